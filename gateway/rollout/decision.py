"""Decide what to do next with a rollout.

It waits, advances, returns, holds or finishes. These are pure functions of its document, the model and the evidence.
"""

from typing import Any, Final, Literal, NamedTuple

import msgspec

from gateway.core.model import Model
from gateway.core.rollout_document import (
    Rollout,
    RolloutEvent,
    State,
    candidate_stable_split,
    changed_by_hand,
    reason_problems,
)
from gateway.rollout.assessment import Assessment

AWAITS_CONFIRMATION = "the last step waits for a person: chips canary {model} --resume"
# Steps after which a person may not hold or resume it any more: there must always be room to return.
MOST_STEPS: Final = 200


class Decision(NamedTuple):
    """What to do next with a rollout, and why. `wait` writes nothing; `position` is the step to take."""

    action: Literal["wait", "advance", "return", "hold", "finish"]
    reason: str
    position: int = -1


def decide(rollout: Rollout, model: Model | None, seen: Assessment) -> Decision:
    """Decide what to do with a rollout now. The verdict that all is fine waits for gateways that have not reported in time."""
    by_hand = changed_by_hand(rollout, model)
    if by_hand:
        return Decision(
            "wait" if rollout.state == "held" else "hold",
            f"{by_hand}; nothing is done until a person decides",
        )
    worse = seen.found_worse() if rollout.percent else ""
    if worse:
        return Decision("return", f"version {rollout.candidate} returns to 0 %: {worse}")
    if rollout.state == "held":
        return Decision("wait", rollout.reason)
    if rollout.position < 0:
        return Decision("advance", "the rollout begins", 0)
    undecided = _undecided(rollout, seen)
    if undecided:
        return Decision("wait", undecided)
    return _go_on(rollout, seen)


def _undecided(rollout: Rollout, seen: Assessment) -> str:
    """Why the step cannot end yet; empty where it can."""
    plan = rollout.plan
    if seen.waited_s < plan.every_s:
        return f"the step lasts {plan.every_s:g} s, of which {seen.waited_s:.0f} s are over"
    if seen.silent:
        who = f"{seen.silent} gateways have" if seen.silent > 1 else "a gateway has"
        return f"{who} not reported in time"
    if seen.reporting < plan.min_gateways:
        return f"{seen.reporting} of at least {plan.min_gateways} gateway processes report"
    last = rollout.position + 1 >= len(plan.steps) or plan.steps[rollout.position + 1] == 100
    contradicted = seen.questions_this_step_contradicts() if last else []
    if contradicted:  # that is no lack of evidence, which time makes up for
        return f"undecided: the requests at this step speak against it: {', '.join(contradicted)}"
    if plan.undecided_after_s is not None and seen.waited_s >= plan.undecided_after_s:
        return ""
    if seen.requests < plan.min_requests:
        return f"undecided: {seen.requests} of {plan.min_requests} requests at this step"
    if seen.too_many_cold_starts(at_last_comparison=last):
        cold = f"{seen.cold_here} of {seen.requests} requests at this step waited for an instance to start"
        return f"undecided: {cold}, or took time that the backend does not account for"
    if last:
        unproven = seen.questions_not_yet_fine()
        if unproven:
            return f"undecided: not yet proved to be fine: {', '.join(unproven)}"
    return ""


def _go_on(rollout: Rollout, seen: Assessment) -> Decision:
    plan, position = rollout.plan, rollout.position + 1
    proof = (
        "nothing is worse than tolerated"
        if not seen.questions_not_yet_fine()
        else "nothing speaks against it"
    )
    if seen.requests < plan.min_requests:
        proof = f"undecided, and {plan.undecided_after_s:g} s are over"
    if seen.left_out:
        proof += f", without {seen.left_out} gateways that went silent"
    if position >= len(plan.steps):
        return Decision("finish", f"the plan is done: {proof}")
    if position == len(plan.steps) - 1 and plan.confirm and not rollout.confirmed:
        return Decision("hold", AWAITS_CONFIRMATION.format(model=rollout.model))
    return Decision(
        "advance", f"version {rollout.candidate} goes to {plan.steps[position]} %: {proof}", position
    )


def apply_decision(rollout: Rollout, decision: Decision, evidence: dict[str, Any]) -> Rollout:
    """Apply a decision: return the rollout's next document. It has the traffic that the model is to have."""
    traffic, position = rollout.traffic, rollout.position
    state: State = rollout.state
    if decision.action == "advance":
        position = decision.position
        percent = rollout.plan.steps[position]
        traffic = candidate_stable_split(rollout, percent)
        state = "succeeded" if percent == 100 else "running"
    elif decision.action == "return":
        traffic, state = candidate_stable_split(rollout, 0), "returned"
    elif decision.action == "finish":
        state = "succeeded"
    elif decision.action == "hold":
        state = "held"
    step = RolloutEvent(
        percent=traffic.get(rollout.candidate, 0), state=state, reason=decision.reason, evidence=evidence
    )
    return msgspec.structs.replace(
        rollout,
        position=position,
        traffic=traffic,
        state=state,
        reason=decision.reason,
        steps=(*rollout.steps, step),
    )


def hold(rollout: Rollout, reason: str) -> Rollout:
    """Hold a rollout for a person: return its next document.

    In that document it waits to be resumed. Raises ValueError where it has ended, or has too many steps already.
    """
    if not rollout.active:
        raise ValueError(f"the rollout has ended: it is {rollout.state}")
    _check_reason(reason)
    _check_room(rollout)
    return _moved(rollout, "held", rollout.traffic, reason or "held by hand")


def resume(rollout: Rollout, model: Model | None, reason: str) -> Rollout:
    """Resume a held rollout for a person: return its next document.

    It has the traffic split of its step. This also confirms a last step that waits for it. Raises ValueError where it
    is not held, where what it compares is no longer there, or where it has too many steps already.
    """
    if rollout.state != "held":
        raise ValueError(f"the rollout is not held: it is {rollout.state}")
    _check_reason(reason)
    _check_room(rollout)
    restored = None if model is None else msgspec.structs.replace(model, traffic=rollout.traffic)
    gone = changed_by_hand(rollout, restored)
    if gone:
        raise ValueError(f"{gone}: end this rollout with --abort and begin another one")
    confirmed = rollout.confirmed or rollout.reason == AWAITS_CONFIRMATION.format(model=rollout.model)
    resumed = msgspec.structs.replace(rollout, confirmed=confirmed)
    return _moved(resumed, "running", rollout.traffic, reason or "resumed by hand")


def abort(rollout: Rollout, model: Model | None, reason: str) -> Rollout:
    """Abort a rollout for a person: return its next document.

    In that document the stable version takes all traffic. A split that was changed by hand meanwhile stays as it is. A
    rollout that has returned is ended, too: that acknowledges it. Raises ValueError where it has ended otherwise.
    """
    if rollout.state not in {"running", "held", "returned"}:
        raise ValueError(f"the rollout has ended: it is {rollout.state}")
    _check_reason(reason)
    by_hand = changed_by_hand(rollout, model)
    why = reason or "aborted by hand"
    if by_hand:
        return _moved(rollout, "aborted", rollout.traffic, f"{why}; {by_hand}, and that stays as it is")
    return _moved(rollout, "aborted", candidate_stable_split(rollout, 0), why)


def _check_reason(reason: str) -> None:
    problems = reason_problems(reason)
    if problems:
        raise ValueError("; ".join(problems))


def _check_room(rollout: Rollout) -> None:
    if len(rollout.steps) >= MOST_STEPS:
        raise ValueError(
            f"it was held and resumed too often: {len(rollout.steps)} steps are recorded, of at most {MOST_STEPS}; end it with --abort "
            "and begin another one"
        )


def _moved(rollout: Rollout, state: State, traffic: dict[str, int], reason: str) -> Rollout:
    step = RolloutEvent(percent=traffic.get(rollout.candidate, 0), state=state, reason=reason)
    return msgspec.structs.replace(
        rollout, state=state, reason=reason, traffic=traffic, steps=(*rollout.steps, step)
    )
