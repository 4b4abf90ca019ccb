"""The controller against a registry in memory: steps, returns, hand changes, two of them at once, one that takes over."""

import asyncio
from typing import Any

import msgspec
import pytest

from gateway.core.model import Backend
from gateway.core.model_updates import to_document
from gateway.core.version_evidence import CANARY, why_evidence_does_not_apply
from gateway.registry.base import MODELS, ROLLOUTS, Put
from gateway.registry.evidence_records import read_evidence
from gateway.rollout.assessment import ASSESSMENTS
from gateway.rollout.controller import AUTHOR
from gateway.rollout.request_count_reporter import FIGURES
from tests.unit.rollout.fleet import (
    PLAN,
    Clock,
    ReportingGateway,
    Scene,
    tally,
    wine,
)


@pytest.fixture
def scene(clock: Clock) -> Scene:
    return Scene(clock)


async def test_a_good_version_goes_to_100_percent_by_itself(scene: Scene):
    await scene.begin()
    controller = scene.controller()
    await scene.turn(controller)
    assert await scene.traffic() == {"3": 95, "4": 5}
    await scene.serve(controller, windows=40)
    assert await scene.traffic() == {"3": 0, "4": 100}
    rollout = await scene.rollout()
    assert (rollout.state, [step.percent for step in rollout.steps]) == ("succeeded", [5, 25, 100])
    assert controller.counters() == {"chips_rollout_steps_total": {"wine": 3.0}}


async def test_each_step_is_one_write_with_its_evidence(scene: Scene):
    await scene.begin()
    controller = scene.controller()
    await scene.turn(controller)
    await scene.serve(controller, windows=40)
    changes = [one for one in await scene.registry.history() if one.author == AUTHOR]
    by_generation: dict[int, set[str]] = {}
    for change in changes:
        by_generation.setdefault(change.generation, set()).add(change.kind)
    assert len(by_generation) == 3
    assert all({MODELS, ROLLOUTS} <= kinds for kinds in by_generation.values())
    last = next(change.after for change in changes if change.kind == ROLLOUTS)
    assert last is not None
    assert last["steps"][1]["evidence"]["errors"]["candidate"][1] == 0
    assert [change.reason for change in changes if "25 %" in change.reason]


async def test_the_end_of_a_rollout_is_evidence_about_the_candidate(scene: Scene):
    await scene.begin()
    controller = scene.controller()
    await scene.turn(controller)
    await scene.serve(controller, windows=2, errors=30)
    record = await read_evidence(scene.registry, "wine", "4", CANARY)
    assert record is not None
    assert not record.passed
    assert why_evidence_does_not_apply(record, wine().backends[1]) == ""
    assert record.facts["errors"]["finding"] == "worse"
    assert record.facts["tolerated"] == {"max_errors": 0.005, "slower": 0.2}, "who approves it must see that"
    assert record.facts["min_requests"] == 500
    assert record.summary == (await scene.rollout()).reason


async def test_evidence_is_bound_to_the_image(scene: Scene):
    old, new = wine().backends
    image = f"registry.example/wine@sha256:{'a' * 64}"
    named = msgspec.structs.replace(new, image=image)
    await scene.begin(model=wine(backends=(old, named)))
    controller = scene.controller()
    await scene.turn(controller)
    await scene.serve(controller, windows=2, errors=30)
    record = await read_evidence(scene.registry, "wine", "4", CANARY)
    assert record is not None
    assert record.image == image
    assert why_evidence_does_not_apply(record, named) == ""
    assert (
        why_evidence_does_not_apply(
            record, msgspec.structs.replace(new, image=image.replace("registry", "mirror"))
        )
        == ""
    )
    other = msgspec.structs.replace(new, image=image.replace("a" * 64, "b" * 64))
    assert why_evidence_does_not_apply(record, other) == "it is about another image"


@pytest.mark.parametrize(("go_on_after_s", "passed"), [(None, True), (60.0, False)])
async def test_only_a_proof_is_evidence_that_passes(scene: Scene, go_on_after_s: float | None, passed: bool):
    plan = msgspec.structs.replace(PLAN, undecided_after_s=go_on_after_s)
    await scene.begin(plan)
    controller = scene.controller()
    await scene.turn(controller)
    if passed:
        await scene.serve(controller, windows=40)
    else:
        while (rollout := await scene.rollout()).active:
            await scene.gateway.report(rollout.position, candidate=tally(0), stable=tally(0))
            await scene.turn(controller, seconds=61.0)
    rollout = await scene.rollout()
    assert (rollout.state, rollout.percent) == ("succeeded", 100)
    record = await read_evidence(scene.registry, "wine", "4", CANARY)
    assert record is not None
    assert record.passed is passed
    assert ("undecided" in record.summary) is not passed


async def test_a_version_that_fails_returns_in_the_turn_that_sees_it(scene: Scene):
    await scene.begin()
    controller = scene.controller()
    await scene.turn(controller)
    await scene.serve(controller, windows=2, errors=30)
    assert await scene.traffic() == {"3": 100, "4": 0}
    rollout = await scene.rollout()
    assert rollout.state == "returned"
    assert "fails more often" in rollout.reason
    history = await scene.registry.history(kind=MODELS)
    assert "returns to 0 %" in history[0].reason
    await scene.turn(controller)
    assert (await scene.rollout()) == rollout


async def test_a_gateway_that_does_not_report_makes_the_step_wait(scene: Scene):
    await scene.begin()
    controller = scene.controller()
    other = ReportingGateway(scene.registry, "g2")
    await scene.turn(controller)
    await other.report(0, candidate=tally(1), stable=tally(9))
    await scene.serve(controller, windows=7)
    assert await scene.traffic() == {"3": 95, "4": 5}
    await other.report(
        0, candidate=tally(1), stable=tally(9), final=True
    )  # it has stopped: nobody waits for it
    await scene.turn(controller)
    assert await scene.traffic() == {"3": 75, "4": 25}


async def test_a_model_that_was_changed_by_hand_is_held_and_not_touched(scene: Scene):
    await scene.begin()
    controller = scene.controller()
    await scene.turn(controller)
    document = await scene.registry.read(MODELS, "wine")
    assert document is not None
    by_hand = {**document.body, "traffic": {"3": 60, "4": 40}}
    await scene.registry.write(
        Put(kind=MODELS, name="wine", body=by_hand, expected=document.revision), author="bea"
    )
    await controller.reconcile()  # the mirror does not show it yet
    await scene.serve(controller, windows=3, errors=100)
    assert await scene.traffic() == {"3": 60, "4": 40}
    rollout = await scene.rollout()
    assert rollout.state == "held"
    assert "changed by hand" in rollout.reason


async def test_a_hand_change_that_the_mirror_does_not_show_yet_is_not_overwritten(scene: Scene):
    await scene.begin()
    controller = scene.controller()
    await scene.turn(controller)
    await scene.mirror.catch_up()
    document = await scene.registry.read(MODELS, "wine")
    assert document is not None
    by_hand = {**document.body, "traffic": {"3": 60, "4": 40}}
    await scene.registry.write(
        Put(kind=MODELS, name="wine", body=by_hand, expected=document.revision), author="bea"
    )
    await scene.gateway.report(0, candidate=tally(100, 100), stable=tally(900))
    await controller.reconcile()
    assert await scene.traffic() == {"3": 60, "4": 40}
    assert (await scene.rollout()).state == "running"


async def test_of_two_controllers_one_acts(scene: Scene):
    await scene.begin()
    first, second = scene.controller(), scene.controller()
    for _ in range(3):
        await scene.turn(first, second)
        await scene.gateway.report(0, candidate=tally(100), stable=tally(900))
    assert first.steps == {"wine": 1}
    assert second.steps == {}


async def test_two_that_both_believe_to_hold_the_lease_take_a_step_once(scene: Scene):
    await scene.begin()
    await scene.mirror.catch_up()
    first, second = scene.controller(), scene.controller()

    async def always(*_: object) -> bool:
        return True

    for controller in (first, second):
        controller._lease.acquire_or_renew = always  # type: ignore[method-assign]
        controller._lease._renewed_at = float("inf")
    await asyncio.gather(first.reconcile(), second.reconcile())
    assert first.steps.get("wine", 0) + second.steps.get("wine", 0) == 1
    assert len((await scene.rollout()).steps) == 1


async def test_a_controller_that_dies_is_replaced_and_nothing_is_gathered_anew(scene: Scene):
    """At each turn of a whole rollout another controller goes on."""
    await scene.begin()
    controllers = 0
    rollout = await scene.rollout()
    for _ in range(60):
        controller = scene.controller()
        controllers += 1
        await scene.turn(controller, seconds=0.5)  # sees the lease of the one that died
        await scene.turn(controller, seconds=11.0)
        rollout = await scene.rollout()
        if not rollout.active:
            break
        await scene.gateway.report(rollout.position, candidate=tally(100), stable=tally(900))
        await scene.turn(controller, seconds=4.0)
    assert rollout.state == "succeeded"
    assert [step.percent for step in rollout.steps] == [5, 25, 100]
    assert controllers > 10


async def test_a_model_that_nobody_can_read_is_not_overwritten_and_told_once(
    scene: Scene, caplog: pytest.LogCaptureFixture
):
    """Gateways serve its last good state meanwhile, so the step would not reach them."""
    await scene.begin()
    controller = scene.controller()
    await scene.turn(controller)
    await scene.turn(controller)  # the mirror shows the step
    document = await scene.registry.read(MODELS, "wine")
    assert document is not None
    body = {**document.body, "backends": "none"}
    await scene.registry.write(
        Put(kind=MODELS, name="wine", body=body, expected=document.revision), author="bea"
    )
    await scene.gateway.report(0, candidate=tally(100, 100), stable=tally(900))
    for _ in range(3):
        await scene.turn(controller)
    (told,) = [record for record in caplog.records if "unreadable" in record.getMessage()]
    assert "returns to 0 %" in told.getMessage()
    assert (await scene.rollout()).state == "running"
    await scene.registry.write(
        Put(kind=MODELS, name="wine", body=document.body, expected=document.revision + 1), author="bea"
    )
    await scene.turn(controller)
    assert (await scene.rollout()).state == "returned"


async def test_a_held_rollout_goes_on_when_it_is_resumed(scene: Scene):
    await scene.begin(state="held", reason="lunch")
    controller = scene.controller()
    await scene.turn(controller)
    assert (await scene.rollout()).steps == ()
    document = await scene.registry.read(ROLLOUTS, "wine")
    assert document is not None
    resumed = msgspec.structs.replace(await scene.rollout(), state="running")
    await scene.registry.write(
        Put(kind=ROLLOUTS, name="wine", body=to_document(resumed), expected=document.revision), author="ana"
    )
    await scene.turn(controller)
    assert (await scene.traffic())["4"] == 5


async def test_figures_of_another_rollout_and_what_cannot_be_read_are_left_out(scene: Scene):
    await scene.begin()
    controller = scene.controller()
    await scene.turn(controller)
    old = ReportingGateway(scene.registry, "old", rollout="r0")
    await old.report(0, candidate=tally(100, 100), stable=tally(900))
    await scene.registry.write_ephemeral(FIGURES, "wine.broken", {"windows": "none"}, expected=0)
    await scene.registry.write_ephemeral(FIGURES, "winery.g1", {"windows": "none"}, expected=0)
    await scene.turn(controller)
    assert (await scene.rollout()).state == "running"


@pytest.mark.parametrize(
    "odd",
    [
        {"requests": -5},
        {"requests": 10**400},
        {"errors": -1},
        {"cold": 2**60},
        {"requests": 10, "errors": 11},
        {"requests": 10, "errors": 6, "refusals": 5},
        {"requests": 10, "cold": 11},
        {"requests": 10, "cold": 1, "latency": {"5": 10}},
        {"latency": {"5": 10**400}},
        {"latency": {"-5": 1}},
        {"number": 10**400},
    ],
)
async def test_a_report_that_no_gateway_counts_stops_nothing(scene: Scene, odd: dict[str, Any]):
    """A gateway that was broken into may write its figures, and nothing else."""
    await scene.begin()
    controller = scene.controller()
    await scene.turn(controller)
    versions = {"4": odd, "3": {"requests": 900}}
    window = {"number": 1, "position": 0, "after_s": 60.0, "versions": versions, **odd}
    body = {"rollout": "r1", "gateway": "g9", "windows": [window]}
    await scene.registry.write_ephemeral(FIGURES, "wine.g9", body, expected=0)
    await scene.serve(controller, windows=40)
    assert (await scene.rollout()).state == "succeeded"


async def test_what_gateways_that_are_gone_have_left_is_deleted_at_the_end(scene: Scene):
    await scene.begin()
    controller = scene.controller()
    await scene.turn(controller)
    await scene.serve(controller, windows=1, errors=100)
    assert (await scene.rollout()).state == "returned"
    assert await scene.registry.list_ephemeral(FIGURES) == ()


async def test_gateways_that_come_and_go_for_days_leave_nothing_to_read_each_time(scene: Scene):
    """Instances of Cloud Run stop after minutes: their documents, and what has waited for its pair, are not kept until the end."""
    await scene.begin()
    controller = scene.controller()
    await scene.turn(controller)
    for number in range(60):
        gone = ReportingGateway(scene.registry, f"gone{number}")
        for final in (False, True):
            await gone.report(0, candidate=tally(1), stable=tally(0), final=final)
            await scene.turn(controller)
    assert await scene.registry.list_ephemeral(FIGURES) == ()
    (kept,) = await scene.registry.list_ephemeral(ASSESSMENTS)
    assert kept.body["unpaired"] == {}
    assert kept.body["requests"] == 120, "each window counts once, also for the controller that comes next"
    other = scene.controller()
    await scene.turn(controller, other)
    (same,) = await scene.registry.list_ephemeral(ASSESSMENTS)
    assert same.body["requests"] == 120


async def test_evidence_of_another_release_is_gathered_anew(scene: Scene):
    await scene.begin()
    await scene.registry.write_ephemeral(ASSESSMENTS, "wine", {"rollout": "r1", "future": True}, expected=0)
    controller = scene.controller()
    await scene.turn(controller)
    await scene.turn(controller)
    assert (await scene.traffic())["4"] == 5


async def test_a_third_version_that_is_removed_or_added_meanwhile_does_not_disturb_it(scene: Scene):
    third = Backend(version="2", url="http://c")
    await scene.begin(model=wine(backends=(*wine().backends, third), traffic={"2": 0, "3": 100, "4": 0}))
    controller = scene.controller()
    await scene.turn(controller)
    assert await scene.traffic() == {"2": 0, "3": 95, "4": 5}
    await scene.put(
        wine(
            backends=(*wine().backends, Backend(version="5", url="http://d")),
            traffic={"3": 95, "4": 5, "5": 0},
        )
    )
    await scene.serve(controller, windows=40)
    assert (await scene.rollout()).state == "succeeded"
    assert await scene.traffic() == {"3": 0, "4": 100, "5": 0}


async def test_without_a_rollout_nothing_is_written(scene: Scene):
    await scene.registry.write(
        Put(kind=MODELS, name="wine", body=to_document(wine()), expected=0), author="ana"
    )
    controller = scene.controller()
    await scene.turn(controller)
    for kind in ("leases", ASSESSMENTS, FIGURES):
        assert await scene.registry.list_ephemeral(kind) == ()
