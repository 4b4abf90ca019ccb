"""The document of a rollout: what is refused, so that no plan is ignored."""

from typing import Any

import msgspec
import pytest

from gateway.core.model import Backend, Model
from gateway.core.model_updates import to_document
from gateway.core.rollout_document import RolloutPlan, new_rollout, parse_rollout, plan_problems

_MODEL = Model(
    name="wine",
    backends=tuple(Backend(version=version, url="http://a") for version in ("2", "3", "4")),
    traffic={"2": 0, "3": 100, "4": 0},
)


def _begin(model: Model = _MODEL, candidate: str = "4", plan: RolloutPlan | None = None):
    return new_rollout(model, candidate, plan or RolloutPlan(), identity="r1", by="ana", reason="")


def test_what_is_written_is_read():
    rollout = _begin()
    assert parse_rollout(to_document(rollout)) == rollout
    assert (rollout.stable, rollout.percent, rollout.active) == ("3", 0, True)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"steps": ()}, "percentages"),
        ({"steps": (0, 100)}, "percentages"),
        ({"steps": (5, 101)}, "percentages"),
        ({"steps": (5, 5, 100)}, "grow"),
        ({"steps": (50, 5)}, "grow"),
        ({"steps": (100,)}, "compares nothing"),
        ({"every_s": -1.0}, "time of a step"),
        ({"every_s": float("nan")}, "time of a step"),
        ({"min_requests": 0}, "must be 1 to 1000000000, not 0"),
        ({"min_requests": 10**9 + 1}, "not 1000000001"),
        ({"steps": (50,), "confirm": True}, "give two steps"),
        ({"max_errors": 0.6}, "share of errors"),
        ({"slower": -0.1}, "slowness"),
        ({"window_s": 0.0}, "interval"),
        ({"every_s": 600.0, "undecided_after_s": 60.0}, "cannot go on undecided"),
        ({"webhook": "http://example.com/"}, "https://"),
        ({"webhook": "https://a:b@example.com/"}, "password"),
        ({"webhook": "https://exa mple.com/"}, "ASCII"),
        ({"webhook": "https:///x"}, "host"),
        ({"webhook": "https://[::1/"}, "cannot be read"),
    ],
)
def test_a_plan_that_cannot_be_honoured_is_refused(change: dict[str, Any], why: str):
    plan = msgspec.structs.replace(RolloutPlan(), **change)
    (problem,) = plan_problems(plan)
    assert why in problem
    with pytest.raises(ValueError, match=why):
        _begin(plan=plan)


@pytest.mark.parametrize(
    ("model", "candidate", "why"),
    [
        (_MODEL, "5", "no version 5; it has 2, 3, 4"),
        (_MODEL, "3", "one stable version"),
        (msgspec.structs.replace(_MODEL, traffic={"2": 50, "3": 50}), "4", "split as 2=50, 3=50"),
        (msgspec.structs.replace(_MODEL, traffic={"3": 90, "4": 10}), "4", "takes 10 % already"),
        (msgspec.structs.replace(_MODEL, enabled=False), "4", "disabled"),
    ],
)
def test_a_rollout_that_could_compare_nothing_is_refused(model: Model, candidate: str, why: str):
    with pytest.raises(ValueError, match=why):
        _begin(model, candidate)


def test_a_candidate_that_takes_a_little_already_can_go_on():
    model = msgspec.structs.replace(_MODEL, traffic={"3": 99, "4": 1})
    assert _begin(model, plan=RolloutPlan(steps=(5, 100))).percent == 1


@pytest.mark.parametrize(
    "damage",
    [
        {"unknown": 1},
        {"plan": {"steps": [5, 100], "only_on_mondays": True}},
        {"state": "paused"},
        {"position": 5},
        {"candidate": "3"},
        {"versions": {}},
        {"traffic": {"3": 50}},
        {"model": "Wine!"},
    ],
)
def test_a_document_that_is_not_understood_is_an_error(damage: dict[str, Any]):
    with pytest.raises(ValueError, match=r"."):
        parse_rollout({**to_document(_begin()), **damage})
