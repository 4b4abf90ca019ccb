"""What is done with a rollout, for each state it can be in."""

import msgspec
import pytest

from gateway.core.rollout_document import (
    Rollout,
    RolloutPlan,
    candidate_stable_split,
    new_rollout,
    problems_outside_plan,
)
from gateway.registry.firestore.document_layout import MAX_BODY_BYTES
from gateway.rollout.assessment import Assessment
from gateway.rollout.decision import MOST_STEPS, abort, apply_decision, decide, hold, resume
from gateway.rollout.request_count_reporter import RolloutReport, RolloutWindow
from tests.unit.rollout.fleet import PLAN, rollout_of, tally, wine


def _at(position: int, *, plan: RolloutPlan = PLAN, **changes: object) -> Rollout:
    rollout = rollout_of(plan=plan, position=position)
    traffic = candidate_stable_split(rollout, plan.steps[position])
    return msgspec.structs.replace(rollout, traffic=traffic, **changes)


def _seen(
    rollout: Rollout,
    *,
    windows: int = 0,
    errors: int = 0,
    requests: int = 50,
    waited_s: float = 60.0,
    silent: int = 0,
) -> Assessment:
    seen = Assessment.begin(rollout)
    seen.reporting, seen.silent = 1, silent
    for number in range(1, windows + 1):
        window = RolloutWindow(
            number=number,
            position=rollout.position,
            after_s=60.0,
            versions={"4": tally(requests, errors), "3": tally(950)},
        )
        seen.add_new_windows(rollout, RolloutReport(rollout="r1", gateway="g1", windows=(window,)))
    seen.waited_s = waited_s
    return seen


def _model(rollout: Rollout):
    return wine(traffic=rollout.traffic)


def test_a_rollout_begins_with_its_first_step():
    rollout = rollout_of()
    decision = decide(rollout, wine(), Assessment.begin(rollout))
    assert (decision.action, decision.position) == ("advance", 0)
    new = apply_decision(rollout, decision, {})
    assert (new.percent, new.traffic, new.state) == (5, {"3": 95, "4": 5}, "running")
    assert problems_outside_plan(new) == []


@pytest.mark.parametrize(
    ("windows", "waited_s", "silent", "why"),
    [
        (20, 59.0, 0, "lasts"),
        (20, 60.0, 2, "2 gateways have not reported"),
        (9, 60.0, 0, "450 of 500 requests"),
    ],
)
def test_a_step_waits_and_says_why(windows: int, waited_s: float, silent: int, why: str):
    rollout = _at(0)
    decision = decide(
        rollout, _model(rollout), _seen(rollout, windows=windows, waited_s=waited_s, silent=silent)
    )
    assert decision.action == "wait"
    assert why in decision.reason


def test_a_version_of_which_most_requests_seem_cold_does_not_advance():
    """It may be slow in a way that it does not account for."""
    rollout = _at(0)
    seen = _seen(rollout, windows=20)
    seen.cold_here = 200
    assert decide(rollout, _model(rollout), seen).action == "advance"
    seen.cold_here = 201
    decision = decide(rollout, _model(rollout), seen)
    assert decision.action == "wait"
    assert "201 of 1000 requests at this step waited for an instance" in decision.reason


def test_the_step_before_100_percent_bears_fewer_cold_starts():
    """A version that stalls for one request in ten, and does not account for it, is no version for all traffic."""
    rollout = _at(len(PLAN.steps) - 2)
    seen = _seen(rollout, windows=100)
    assert not seen.questions_not_yet_fine()
    seen.cold_here = seen.requests // 20
    assert decide(rollout, _model(rollout), seen).action == "advance"
    seen.cold_here += 1
    assert decide(rollout, _model(rollout), seen).action == "wait"


def test_a_step_that_nothing_speaks_against_is_followed_by_the_next():
    rollout = _at(0)
    decision = decide(rollout, _model(rollout), _seen(rollout, windows=10))
    assert (decision.action, decision.position) == ("advance", 1)


def test_the_last_step_needs_a_proof():
    rollout = _at(1)
    few = _seen(rollout, windows=11)
    assert few.requests >= PLAN.min_requests
    decision = decide(rollout, _model(rollout), few)
    assert decision.action == "wait"
    assert "not yet proved" in decision.reason
    decision = decide(rollout, _model(rollout), _seen(rollout, windows=60))
    assert decision.action == "advance"
    assert apply_decision(rollout, decision, {}).state == "succeeded"


@pytest.mark.parametrize("errors", [1, 2, 3])
@pytest.mark.parametrize("go_on_after_s", [None, 60.0])
def test_a_version_that_begins_to_fail_at_its_last_step_does_not_advance_on_what_it_did_before(
    errors: int, go_on_after_s: float | None
):
    """It was good for ten thousand requests, and fails 2, 4 or 6 % with the load of the last step."""
    plan = msgspec.structs.replace(PLAN, undecided_after_s=go_on_after_s)
    rollout = _at(0, plan=plan)
    seen = _seen(rollout, windows=200)
    assert not seen.questions_not_yet_fine()
    rollout = _at(1, plan=plan)
    seen.enter_step(rollout.position)
    decisions = []
    for number in range(201, 301):
        window = RolloutWindow(
            number=number, position=1, after_s=60.0, versions={"4": tally(50, errors), "3": tally(950)}
        )
        seen.add_new_windows(rollout, RolloutReport(rollout="r1", gateway="g1", windows=(window,)))
        seen.waited_s = 60.0 if number > 205 else 30.0
        decisions.append(decide(rollout, _model(rollout), seen))
    actions = [decision.action for decision in decisions]
    assert "return" in actions
    assert set(actions[: actions.index("return")]) == {"wait"}
    assert any("speak against it: errors" in decision.reason for decision in decisions)


def test_little_traffic_goes_on_only_where_the_plan_says_so():
    plan = msgspec.structs.replace(PLAN, undecided_after_s=3600.0)
    rollout = _at(1, plan=plan)
    assert decide(rollout, _model(rollout), _seen(rollout, windows=1, waited_s=3599)).action == "wait"
    decision = decide(rollout, _model(rollout), _seen(rollout, windows=1, waited_s=3600))
    assert decision.action == "advance"
    assert "undecided" in decision.reason
    assert decide(rollout, _model(rollout), _seen(rollout, waited_s=3600, silent=1)).action == "wait"


@pytest.mark.parametrize("state", ["running", "held"])
def test_a_worse_version_returns_at_once_also_where_it_is_held_or_gateways_are_silent(state: str):
    rollout = _at(1, state=state)
    decision = decide(rollout, _model(rollout), _seen(rollout, windows=1, errors=50, waited_s=1.0, silent=3))
    assert decision.action == "return"
    assert "fails more often" in decision.reason
    new = apply_decision(rollout, decision, {"errors": 1})
    assert (new.percent, new.state, new.traffic) == (0, "returned", {"3": 100, "4": 0})
    assert new.steps[-1].evidence == {"errors": 1}


def test_a_held_rollout_does_not_advance():
    rollout = _at(0, state="held", reason="lunch")
    decision = decide(rollout, _model(rollout), _seen(rollout, windows=20))
    assert (decision.action, decision.reason) == ("wait", "lunch")


def test_the_last_step_can_wait_for_a_person():
    plan = msgspec.structs.replace(PLAN, confirm=True)
    rollout = _at(1, plan=plan)
    decision = decide(rollout, _model(rollout), _seen(rollout, windows=60))
    assert decision.action == "hold"
    assert "chips canary wine --resume" in decision.reason
    held = apply_decision(rollout, decision, {})
    assert (held.state, held.percent) == ("held", 25)
    confirmed = msgspec.structs.replace(held, state="running", confirmed=True)
    assert decide(confirmed, _model(confirmed), _seen(confirmed, windows=60)).action == "advance"


def test_a_plan_that_ends_below_100_ends_with_a_proof():
    plan = msgspec.structs.replace(PLAN, steps=(5, 25))
    rollout = _at(1, plan=plan)
    assert decide(rollout, _model(rollout), _seen(rollout, windows=11)).action == "wait"
    decision = decide(rollout, _model(rollout), _seen(rollout, windows=60))
    assert decision.action == "finish"
    new = apply_decision(rollout, decision, {})
    assert (new.state, new.percent) == ("succeeded", 25)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (None, "deregistered"),
        (
            wine(traffic={"3": 50, "4": 50}),
            "version 3 50 %, version 4 50 % instead of version 3 95 %, version 4 5 %",
        ),
        (wine(traffic={"3": 95, "4": 5}, enabled=False), "disabled"),
        (wine(traffic={"3": 95, "4": 5}, backends=wine().backends[:1]), "version 4 was removed"),
    ],
)
def test_a_model_that_was_changed_by_hand_is_left_alone(model, why: str):
    rollout = _at(0)
    seen = _seen(rollout, windows=2, errors=50)
    decision = decide(rollout, model, seen)
    assert decision.action == "hold"
    assert why in decision.reason
    held = apply_decision(rollout, decision, {})
    assert held.traffic == rollout.traffic
    assert decide(held, model, seen).action == "wait"


@pytest.mark.parametrize("change", [{"artifact_digest": "sha256:1"}, {"image": "wine@sha256:1"}])
def test_another_artifact_or_image_of_the_candidate_is_another_version(change: dict[str, str]):
    """The address may stay the same: a service's revisions can have one."""
    rollout = _at(0)
    old, new = wine().backends
    replaced = msgspec.structs.replace(new, **change)
    decision = decide(rollout, wine(traffic=rollout.traffic, backends=(old, replaced)), _seen(rollout))
    assert "version 4 was replaced" in decision.reason


def test_a_new_time_out_does_not_disturb_a_rollout():
    rollout = _at(0)
    policy = msgspec.structs.replace(wine().policy, timeout_s=5.0)
    model = wine(traffic=rollout.traffic, policy=policy)
    assert decide(rollout, model, _seen(rollout, windows=10)).action == "advance"


def test_a_rollout_that_is_held_and_resumed_again_and_again_keeps_room_to_return():
    """Its steps are kept in one document, which a registry takes up to a size: there the return would fail as well."""
    rollout = _at(0)
    while len(rollout.steps) < MOST_STEPS:
        rollout = hold(rollout, "x" * 1000)
        rollout = resume(rollout, _model(rollout), "y" * 1000)
    with pytest.raises(ValueError, match=r"too often.*--abort"):
        hold(rollout, "")
    with pytest.raises(ValueError, match=r"too often.*--abort"):
        resume(msgspec.structs.replace(rollout, state="held"), _model(rollout), "")
    assert len(msgspec.json.encode(rollout)) < MAX_BODY_BYTES - 100_000
    decision = decide(rollout, _model(rollout), _seen(rollout, windows=1, errors=50))
    assert apply_decision(rollout, decision, {}).state == "returned"
    assert abort(rollout, _model(rollout), "z" * 1000).state == "aborted"


def test_a_reason_that_is_too_long_is_refused():
    rollout = _at(0)
    held = hold(rollout, "")
    for attempt in (
        lambda: hold(rollout, "é" * 501),
        lambda: resume(held, _model(rollout), "é" * 501),
        lambda: abort(rollout, _model(rollout), "é" * 501),
        lambda: new_rollout(wine(), "4", PLAN, identity="r1", by="ana", reason="é" * 501),
    ):
        with pytest.raises(ValueError, match="1002 bytes, of at most 1000"):
            attempt()
