"""What a gateway counts and reports: only while a rollout runs, a window at a time, each with one share."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from gateway.core.exchange import Exchange
from gateway.core.model_updates import to_document
from gateway.registry.base import MODELS, ROLLOUTS, Delete, Put, Unavailable
from gateway.registry.memory import MemoryRegistry, SharedStore
from gateway.registry.snapshot import compile_snapshot
from gateway.rollout.lease import Lease, LeaseObserver
from gateway.rollout.request_count_reporter import FIGURES, RolloutReport, RolloutReporter
from gateway.rollout.request_counter import RequestCounter, Tally
from gateway.thread_and_task_supervisor import Supervisor
from tests.unit.rollout.fleet import PLAN, Clock, rollout_of, wine


class Scene:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.registry = MemoryRegistry(SharedStore())
        self.counting: list[Callable[[Exchange], None] | None] = []
        self.reporter = RolloutReporter(
            self.registry, self.counting.append, supervisor=Supervisor(), clock=clock
        )
        self.revision = 0

    async def model(self, revision: int = 0, **changes: Any) -> None:
        await self.registry.write(
            Put(kind=MODELS, name="wine", body=to_document(wine(**changes)), expected=revision), author="ana"
        )

    async def show(self, **changes: Any) -> None:
        if not self.revision:
            await self.model()
        rollout = rollout_of(plan=msgspec.structs.replace(PLAN, window_s=15.0), **changes)
        await self.registry.write(
            Put(kind=ROLLOUTS, name="wine", body=to_document(rollout), expected=self.revision), author="ana"
        )
        self.revision += 1
        self.reporter.follow(compile_snapshot(await self.registry.load_mirrored()))

    def tally(self, version: str = "4") -> Tally:
        counter = self.counting[-1]
        assert isinstance(counter, RequestCounter)
        return counter.collectors["wine"][version].tally

    async def reports(self) -> list[RolloutReport]:
        found = await self.registry.list_ephemeral(FIGURES)
        return [msgspec.convert(one.body, RolloutReport, str_keys=True) for one in found]

    async def reported(self, windows: int) -> RolloutReport:
        """The report, once it has so many windows; the clock has been moved before."""
        while True:
            for report in await self.reports():
                if report.last >= windows:
                    return report
            await asyncio.sleep(0)


@pytest.fixture
def scene(clock: Clock) -> Scene:
    return Scene(clock)


async def test_without_a_rollout_nothing_is_counted(scene: Scene):
    scene.reporter.follow(compile_snapshot(await scene.registry.load_mirrored()))
    assert scene.counting == []


async def test_a_window_is_reported_when_it_is_over(scene: Scene):
    await scene.show(position=0)
    scene.tally().requests += 7
    await scene.reporter.start()
    try:
        scene.clock.now += 15
        scene.reporter._changed.set()
        report = await scene.reported(1)
        assert report.windows[0].versions["4"].requests == 7
        assert (report.windows[0].position, report.windows[0].number) == (0, 1)
        assert scene.tally().requests == 0
    finally:
        await scene.reporter.stop()
    (last,) = await scene.reports()
    assert last.final
    assert last.last == 2


async def test_no_window_has_two_shares(scene: Scene):
    await scene.show(position=0)
    scene.tally().requests += 3
    scene.clock.now += 4
    await scene.show(position=1)
    scene.tally().requests += 5
    scene.clock.now += 2
    await scene.reporter.stop()
    (report,) = await scene.reports()
    first, second = report.windows
    assert (first.position, first.versions["4"].requests) == (0, 3)
    assert (second.position, second.versions["4"].requests, second.after_s) == (1, 5, 0.0)


async def test_a_report_is_bounded(scene: Scene):
    for position in (0, 1, 2) * 10:
        await scene.show(position=position)
    await scene.reporter.stop()
    (report,) = await scene.reports()
    assert len(report.windows) == 8
    assert report.last == 30


async def test_counting_ends_with_the_rollout_and_the_report_is_deleted(scene: Scene):
    await scene.show(position=0)
    await scene.reporter.start()
    scene.clock.now += 15
    scene.reporter._changed.set()
    await scene.reported(1)
    await scene.show(position=0, state="returned")
    assert scene.counting[-1] is None
    while await scene.reports():
        await asyncio.sleep(0)
    await scene.reporter.stop()
    assert await scene.reports() == []


async def test_a_rollout_that_ends_while_anothers_report_is_deleted_is_not_forgotten(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
):
    delete, deleted = scene.registry.delete_ephemeral, []

    async def slow(kind: str, name: str) -> None:
        deleted.append(name)
        if len(deleted) == 1:
            scene.reporter._ended.append("beer")  # as `follow` does when it ends meanwhile
        await delete(kind, name)

    monkeypatch.setattr(scene.registry, "delete_ephemeral", slow)
    scene.reporter._ended.append("wine")
    await scene.reporter._forget_ended()
    assert deleted == [scene.reporter._name("wine"), scene.reporter._name("beer")]
    assert scene.reporter._ended == []


async def test_a_rollout_that_was_deleted_has_ended(scene: Scene):
    await scene.show(position=0)
    await scene.registry.write(Delete(kind=ROLLOUTS, name="wine", expected=scene.revision), author="ana")
    scene.reporter.follow(compile_snapshot(await scene.registry.load_mirrored()))
    assert scene.counting[-1] is None


async def test_windows_that_could_not_be_written_come_with_the_next(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
):
    await scene.show(position=0)
    write = scene.registry.write_ephemeral
    failures = 0

    async def away(*_: object, **__: object) -> int:
        nonlocal failures
        failures += 1
        raise Unavailable("away")

    monkeypatch.setattr(scene.registry, "write_ephemeral", away)
    await scene.reporter.start()
    scene.clock.now += 15
    scene.reporter._changed.set()
    while not failures:
        await asyncio.sleep(0)
    monkeypatch.setattr(scene.registry, "write_ephemeral", write)
    scene.clock.now += 15
    report = await scene.reported(2)
    assert [window.number for window in report.windows] == [1, 2]
    await scene.reporter.stop()


async def test_a_report_that_cannot_be_deleted_is_tried_again_with_pauses(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
):
    await scene.show(position=0)
    await scene.reporter.start()
    tries = 0
    pauses: list[float] = []
    deleted = asyncio.Event()

    async def away(*_: object) -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise Unavailable("away")
        deleted.set()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(scene.registry, "delete_ephemeral", away)
    monkeypatch.setattr("gateway.rollout.request_count_reporter.asyncio.sleep", pause)
    await scene.show(position=0, state="returned")
    await deleted.wait()
    monkeypatch.undo()
    await scene.reporter.stop()
    assert len(pauses) == 3
    assert pauses == sorted(pauses)
    assert pauses[0] > 0


async def test_a_write_that_was_done_though_nobody_said_so_does_not_stop_the_reports(scene: Scene):
    await scene.show(position=0)
    await scene.registry.write_ephemeral(FIGURES, scene.reporter._name("wine"), {}, expected=0)
    await scene.reporter.stop()
    (report,) = await scene.reports()
    assert report.last == 1


async def test_a_rollout_without_a_controller_is_noticed(clock: Clock, caplog: pytest.LogCaptureFixture):
    scene = Scene(clock)
    reporter = scene.reporter = RolloutReporter(
        scene.registry,
        scene.counting.append,
        supervisor=Supervisor(),
        controller_lease=LeaseObserver(scene.registry, "rollouts", clock=clock),
        clock=clock,
    )
    controller = Lease(scene.registry, "rollouts", "a", clock=clock)
    await scene.show(position=0)

    async def report(windows: int) -> float:
        clock.now += 15
        await reporter._report("wine", reporter._open["wine"])
        await reporter._look_for_controller(15.0)
        return reporter.gauges()["chips_rollout_unattended"][""]

    assert [await report(number) for number in range(4)] == [0.0] * 4
    assert await report(5) == 1.0  # for more than a minute nobody has come
    assert "chips rollouts run" in caplog.text
    await controller.acquire_or_renew()
    assert await report(6) == 0.0
    for number in range(4):
        assert await report(number) == 0.0
    assert await report(11) == 1.0  # it has gone
    await scene.show(position=0, state="returned")
    assert reporter.gauges()["chips_rollout_unattended"][""] == 0.0


async def test_what_another_backend_does_under_the_same_name_is_not_counted(scene: Scene):
    """A version is replaced and put back: the rollout may go on then, on its own requests."""
    await scene.show(position=0)
    scene.tally().requests += 3
    old, new = wine().backends
    await scene.model(1, backends=(old, msgspec.structs.replace(new, url="http://elsewhere")))
    scene.clock.now += 2
    scene.reporter.follow(compile_snapshot(await scene.registry.load_mirrored()))
    assert scene.counting[-1] is None
    await scene.model(2)
    scene.clock.now += 2
    scene.reporter.follow(compile_snapshot(await scene.registry.load_mirrored()))
    scene.tally().requests += 4
    scene.clock.now += 2
    await scene.reporter.stop()
    (report,) = await scene.reports()
    assert [window.versions["4"].requests for window in report.windows] == [3, 0, 4]


async def test_a_model_that_is_deregistered_is_not_counted(scene: Scene):
    await scene.show(position=0)
    await scene.registry.write(Delete(kind=MODELS, name="wine", expected=1), author="ana")
    scene.reporter.follow(compile_snapshot(await scene.registry.load_mirrored()))
    assert scene.counting[-1] is None
    await scene.reporter.stop()
