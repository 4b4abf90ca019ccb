"""Rehearsal of a release: real gateways, real controllers, real load; windows are short, the decisions are the real ones."""

import asyncio
import os
import signal
import sqlite3
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from gateway.core.rollout_document import RolloutPlan
from gateway.core.sticky_shares import StickyShares
from gateway.registry.base import MODELS, ROLLOUTS
from gateway.rollout.controller import AUTHOR
from gateway.rollout.process_liveness import current_process
from gateway.rollout.request_count_reporter import FIGURES
from tests.e2e.fleet import CALLERS, PLAN, Fleet
from tests.firestore.cable import Cable
from tests.firestore.emulator import Emulator
from tests.firestore.fixture import registry_url
from tests.patience import eventually

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def fleet(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Fleet]:
    fleet = Fleet(tmp_path)
    await fleet.set_up(**getattr(request, "param", {}))
    yield fleet
    await fleet.stop()


async def _assert_explained(fleet: Fleet, plan: RolloutPlan = PLAN) -> None:
    """The split was one of the plan's at any moment, and the history says why it changed."""
    allowed = [{"3": 100 - step, "4": step} for step in (0, *plan.steps)]
    assert all(split in allowed for split in await fleet.splits())
    steps = [change for change in await fleet.changes(ROLLOUTS) if change.author == AUTHOR]
    splits = {change.generation: change for change in await fleet.changes(MODELS)}
    for change in steps:
        assert change.reason
        assert change.after is not None
        assert change.after["steps"][-1]["reason"] == change.reason
    assert {change.generation for change in splits.values() if change.author == AUTHOR} <= {
        change.generation for change in steps
    }


@pytest.mark.slow
async def test_a_rollout_on_firestore(tmp_path: Path, firestore: str):
    """Gateways that only report, and a controller of its own, as on Cloud Run."""
    fleet = Fleet(tmp_path, firestore)
    try:
        await fleet.set_up()
        await asyncio.gather(
            *(fleet.start_gateway("--server.workers=1", "--rollouts.controller=false") for _ in range(2))
        )
        fleet.start_controller()
        async with fleet:
            await fleet.begin()
            await fleet.until("running", percent=25)
            fleet.candidate.dead = True
            rollout = await fleet.until("returned")
        assert "fails more often" in rollout.reason
        await _assert_explained(fleet)
    finally:
        await fleet.stop()


async def test_a_good_version_goes_to_100_percent_by_itself_and_no_request_fails(fleet: Fleet):
    """Three gateways, one with two workers, each with a controller; the clock of one is 90 s fast."""
    site = fleet.folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        textwrap.dedent("""
            import time
            _now = time.time
            time.time = lambda: _now() + 90
        """)
    )
    await asyncio.gather(
        fleet.start_gateway("--server.workers=2"),
        fleet.start_gateway("--server.workers=1"),
        fleet.start_gateway("--server.workers=1", PYTHONPATH=str(site)),
    )
    async with fleet:
        await fleet.begin()
        rollout = await fleet.until("succeeded")

        async def all_new() -> bool | None:
            before = fleet.answers["4", 200]
            await asyncio.sleep(0.3)
            return fleet.answers["4", 200] > before or None

        await eventually(all_new)
    assert [step.percent for step in rollout.steps] == list(PLAN.steps)
    assert {status for _, status in fleet.answers} == {200}
    assert rollout.steps[-1].evidence["errors"]["candidate"][0] >= 3 * PLAN.min_requests
    await _assert_explained(fleet)

    async def forgotten() -> bool | None:
        return not await fleet.registry.list_ephemeral(FIGURES) or None

    await eventually(forgotten)  # no gateway counts any more


@pytest.mark.parametrize(
    "fault",
    [
        "three percent fail",
        *(pytest.param(fault, marks=pytest.mark.slow) for fault in ("dies at 25 percent", "refuses")),
    ],
)
async def test_a_bad_version_returns_to_0_percent(fleet: Fleet, fault: str):
    await asyncio.gather(fleet.start_gateway("--server.workers=1"), fleet.start_gateway("--server.workers=1"))
    if fault == "three percent fail":
        fleet.candidate.fails_every = 33
    elif fault == "refuses":
        fleet.candidate.refuses_every = 4
    async with fleet:
        await fleet.begin(msgspec.structs.replace(PLAN, max_errors=0.005))
        if fault == "dies at 25 percent":
            await fleet.until("running", percent=25)
            fleet.candidate.dead = True
        rollout = await fleet.until("returned")
    assert ("refuses more" if fault == "refuses" else "fails more often") in rollout.reason
    assert (await fleet.splits())[-1] == {"3": 100, "4": 0}
    assert not {answer for answer in fleet.answers if answer[0] == "3" and answer[1] != 200}
    await _assert_explained(fleet)


@pytest.mark.parametrize(
    "fleet", [{"sticky": StickyShares(by="header:x-user", seed="5" * 32)}], indirect=True, ids=["sticky"]
)
@pytest.mark.slow
async def test_callers_of_a_sticky_share_move_once_and_never_back(fleet: Fleet):
    await asyncio.gather(fleet.start_gateway("--server.workers=1"), fleet.start_gateway("--server.workers=1"))
    async with fleet:
        await fleet.begin()
        await fleet.until("succeeded")
    assert {status for _, status in fleet.answers} == {200}
    assert len(fleet.seen) == 20 * CALLERS
    assert all(versions in (["3"], ["4"], ["3", "4"]) for versions in fleet.seen.values())


@pytest.mark.slow
async def test_a_version_that_is_right_but_cold_is_not_held_to_blame(fleet: Fleet):
    """One in thirty of its requests waits 1.5 s for an instance, as a version does whose instances are started one by one."""
    await fleet.start_gateway("--server.workers=1")
    fleet.candidate.cold_every = 30
    async with fleet:
        await fleet.begin()
        rollout = await fleet.until("succeeded", within_s=60)
    assert rollout.steps[-1].evidence["cold_starts"] > 2
    assert {status for _, status in fleet.answers} == {200}


@pytest.mark.slow
async def test_a_slow_version_returns_to_0_percent(fleet: Fleet):
    await asyncio.gather(fleet.start_gateway("--server.workers=1"), fleet.start_gateway("--server.workers=1"))
    fleet.candidate.delay_s = 2.0
    async with fleet:
        await fleet.begin(msgspec.structs.replace(PLAN, slower=1.0, min_requests=10_000))
        rollout = await fleet.until("returned")
    assert "slower at the" in rollout.reason
    assert {status for _, status in fleet.answers} == {200}


# A step for each kill; all that is short is the time between them. Leases last 1.5 s instead of 10.
_KILLS = 25
_MANY_STEPS = msgspec.structs.replace(
    PLAN, steps=tuple(range(4, 101, 4)), every_s=0.2, min_requests=10, window_s=0.3
)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "fleet", [{"sticky": StickyShares(by="header:x-user", seed="5" * 32)}], indirect=True, ids=["sticky"]
)
async def test_the_controller_that_holds_the_lease_is_killed_at_each_of_25_steps(fleet: Fleet):
    """Once before the first step, and then as soon as each one is seen: another controller takes the next one.

    Where this process is so slow that a controller takes two steps before it is killed, another rollout has the kills that are left.
    """
    await asyncio.gather(
        *(fleet.start_gateway("--server.workers=1", "--rollouts.controller=false") for _ in range(2))
    )
    controllers = {fleet.start_controller(lease_s=1.5).pid for _ in range(2)}
    killed: set[int] = set()
    async with fleet:
        while len(killed) < _KILLS:
            before = await fleet.registry.read(ROLLOUTS, "wine")
            await fleet.begin(_MANY_STEPS)
            percent = 0
            while len(killed) < _KILLS:
                rollout = await fleet.until("running", "succeeded", percent=percent)
                if rollout.state == "succeeded":
                    break
                percent = rollout.percent + 1
                holder = await fleet.lease_holder(others_than=killed)
                assert holder in controllers
                os.kill(holder, signal.SIGKILL)
                killed.add(holder)
                controllers.add(fleet.start_controller(lease_s=1.5).pid)
            rollout = await fleet.until("succeeded")
            assert [one.percent for one in rollout.steps] == list(_MANY_STEPS.steps), "each is taken, once"
            await _assert_nobody_noticed(fleet, first=before is None)
    await _assert_explained(fleet, _MANY_STEPS)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_the_registry_is_away_for_30_seconds_in_the_middle(fleet: Fleet):
    """Nobody can write: gateways keep their figures, the controller its lease or not, and all go on after that."""
    await asyncio.gather(
        *(fleet.start_gateway("--server.workers=1", "--rollouts.controller=false") for _ in range(2))
    )
    for _ in range(2):
        fleet.start_controller()
    async with fleet:
        await fleet.begin()
        await fleet.until("running", percent=25)
        await asyncio.to_thread(_lock, fleet.folder / "registry.db", _OUTAGE_S)
        rollout = await fleet.until("succeeded")
    assert [one.percent for one in rollout.steps] == list(PLAN.steps)
    await _assert_nobody_noticed(fleet)
    await _assert_explained(fleet)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_firestore_is_cut_off_for_30_seconds_in_the_middle(
    tmp_path: Path, firestore_emulator: Emulator
):
    """Nobody can read or write, as where a region loses its network."""
    cable = Cable(firestore_emulator.port)
    direct = registry_url(firestore_emulator)
    through = direct.replace(firestore_emulator.host, await cable.plug_in())
    assert through != direct
    fleet = Fleet(tmp_path, direct, through)
    try:
        await fleet.set_up()
        await asyncio.gather(
            *(fleet.start_gateway("--server.workers=1", "--rollouts.controller=false") for _ in range(2))
        )
        fleet.start_controller()
        async with fleet:
            await fleet.begin()
            await fleet.until("running", percent=25)
            cable.cut()
            await asyncio.sleep(_OUTAGE_S)
            cable.mend()
            rollout = await fleet.until("succeeded", within_s=90)
        assert [one.percent for one in rollout.steps] == list(PLAN.steps)
        await _assert_nobody_noticed(fleet)
        await _assert_explained(fleet)
    finally:
        await fleet.stop()
        await cable.unplug()


@pytest.mark.slow
@pytest.mark.skipif(not current_process(), reason="the system does not say when a process began")
async def test_a_gateway_that_is_killed_is_not_waited_for(fleet: Fleet):
    """On one machine the controller sees that its process has ended; a time-out of 60 s would hold the step up otherwise."""
    doomed = await fleet.start_gateway("--server.workers=1", "--rollouts.controller=false")
    await fleet.start_gateway("--server.workers=1", "--rollouts.controller=false")
    fleet.start_controller()
    spared = fleet.ports.pop(0)
    assert fleet.ports != [spared], "nobody calls the one that is killed"
    async with fleet:
        await fleet.begin()
        await fleet.until("running", percent=25)

        async def both_report() -> bool | None:
            return len(await fleet.registry.list_ephemeral(FIGURES)) == 2 or None

        await eventually(both_report)
        doomed.send_signal(signal.SIGKILL)
        doomed.wait()
        rollout = await fleet.until("succeeded")
    assert rollout.steps[-1].evidence["gateways_left_out"] == 0
    await _assert_nobody_noticed(fleet)


async def _assert_nobody_noticed(fleet: Fleet, *, first: bool = True) -> None:
    """No request has failed, and, where shares are sticky, no caller met one version, then the other, then the first again.

    Before a rollout that is not the `first` one, all callers go back.
    """
    assert {status for _, status in fleet.answers} == {200}
    model = await fleet.registry.read(MODELS, "wine")
    assert model is not None
    if "sticky" in model.body and first:
        assert all("".join(versions) in {"3", "4", "34"} for versions in fleet.seen.values())


_OUTAGE_S = 30.0


def _lock(file: Path, seconds: float) -> None:
    """Nobody can write meanwhile; longer than SQLite waits."""
    import time

    db = sqlite3.connect(file, isolation_level=None, timeout=60)
    db.execute("BEGIN IMMEDIATE")
    time.sleep(seconds)
    db.execute("ROLLBACK")
    db.close()
