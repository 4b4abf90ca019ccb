"""The registry document of a rollout.

It says how a new version of a model gets its share of the traffic, and how far it has come.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from gateway.core.model import Backend, Model
from gateway.core.name_validation import check_model_name, check_version

State = Literal["running", "held", "succeeded", "returned", "aborted"]
ACTIVE: frozenset[State] = frozenset({"running", "held"})

_MAX_STEPS = 100
_MAX_TEXT = 2000
_MAX_REASON_BYTES = 1000  # a rollout keeps that of each step
_LONGEST_S = 30 * 86_400.0


class RolloutPlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The plan of a rollout: its steps, and when it advances or returns.

    Times in seconds, shares in percent, tolerances as fractions.
    """

    steps: tuple[int, ...] = (1, 5, 25, 50, 100)
    every_s: float = 600.0  # a step lasts at least this long
    min_requests: int = 500  # of the candidate, at each step
    max_errors: float = 0.005  # how much higher its share of errors, or of refusals, may be
    slower: float = 0.2  # how much slower its 95th and 99th percentile may be
    confirm: bool = False  # the last step waits for a person
    undecided_after_s: float | None = None  # go on without a verdict after so long at a step; None: stay
    window_s: float = 15.0  # how often gateways report
    min_gateways: int = 1  # gateway processes that must report for a step to end
    settle_s: float = 30.0  # after a step, times are not judged for so long
    webhook: str = ""  # told of each step


class RolloutEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """An event in the history of a rollout. The registry's history has when, and who did it."""

    percent: int  # the candidate's share from here on
    state: State
    reason: str
    evidence: dict[str, Any] = {}


class Rollout(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A rollout: the document `rollouts/NAME`. `position` is the step of the plan that is in force; -1: none yet."""

    model: str
    id: str  # differs for each rollout of the model
    candidate: str
    stable: str
    plan: RolloutPlan
    state: State = "running"
    reason: str = ""  # why it is in this state
    by: str = ""
    position: int = -1
    confirmed: bool = False
    traffic: dict[str, int]  # the model's split as this rollout has left it
    versions: dict[str, str]  # what candidate and stable version were when it began: `backend_fingerprint`
    steps: tuple[RolloutEvent, ...] = ()

    @property
    def active(self) -> bool:
        return self.state in ACTIVE

    @property
    def percent(self) -> int:
        """The candidate's share of the traffic, in percent."""
        return self.traffic.get(self.candidate, 0)


def backend_fingerprint(backend: Backend) -> str:
    """A text that changes when the backend is replaced. It has the backend's address, artifact and image."""
    return " ".join(
        filter(None, (f"{backend.url}{backend.predict_path}", backend.artifact_digest, backend.image))
    )


def parse_rollout(document: Mapping[str, Any]) -> Rollout:
    """Parse a rollout from its registry document.

    ValueError says everything that is wrong with it. An unknown field is an error: it might be a condition that this
    release does not honour.
    """
    try:
        rollout = msgspec.convert(document, Rollout)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    problems = [*problems_outside_plan(rollout), *plan_problems(rollout.plan)]
    if problems:
        raise ValueError("; ".join(problems))
    return rollout


def problems_outside_plan(rollout: Rollout) -> list[str]:
    """What is wrong with a rollout apart from its plan, a sentence each. `plan_problems` is for that."""
    problems = []
    for check, value in (
        (check_model_name, rollout.model),
        (check_version, rollout.candidate),
        (check_version, rollout.stable),
    ):
        try:
            check(value)
        except ValueError as error:
            problems.append(str(error))
    if rollout.candidate == rollout.stable:
        problems.append("the candidate and the stable version are the same")
    if not -1 <= rollout.position < len(rollout.plan.steps):
        problems.append(f"step {rollout.position} is not one of the plan's {len(rollout.plan.steps)}")
    if set(rollout.versions) != {rollout.candidate, rollout.stable}:
        problems.append("it must say what its two versions were when it began")
    if sum(rollout.traffic.values()) != 100:
        problems.append("its traffic does not add up to 100 %")
    return problems


def plan_problems(plan: RolloutPlan) -> list[str]:
    """Everything that is wrong with a plan, a sentence each."""
    problems = []
    steps = plan.steps
    if not 0 < len(steps) <= _MAX_STEPS or any(not 1 <= step <= 100 for step in steps):
        problems.append(
            f"the steps must be 1 to {_MAX_STEPS} percentages from 1 to 100, such as 1,5,25,50,100"
        )
    elif list(steps) != sorted(set(steps)):
        problems.append("the steps must grow from one to the next")
    elif steps == (100,):
        problems.append(
            "a plan whose only step is 100 compares nothing: begin with a smaller share, or use chips traffic"
        )
    for name, value, least, most in (
        ("the time of a step", plan.every_s, 0.0, _LONGEST_S),
        ("the time after which it goes on undecided", plan.undecided_after_s, 0.0, _LONGEST_S),
        ("the gateways' interval", plan.window_s, 0.2, 300.0),
        ("the time to settle", plan.settle_s, 0.0, 3600.0),
        ("the tolerated share of errors", plan.max_errors, 0.0, 0.5),
        ("the tolerated slowness", plan.slower, 0.0, 10.0),
    ):
        if value is not None and not (math.isfinite(value) and least <= value <= most):
            problems.append(f"{name} must lie between {least:g} and {most:g}, not {value:g}")
    if not 1 <= plan.min_requests <= 10**9:
        problems.append(f"the requests at each step must be 1 to {10**9}, not {plan.min_requests}")
    if not 1 <= plan.min_gateways <= 10_000:
        problems.append(f"the gateway processes that report must be 1 to 10000, not {plan.min_gateways}")
    if plan.confirm and len(steps) == 1:
        problems.append(
            "a plan of one step begins with it, so no last step can wait for a person: give two steps"
        )
    if plan.undecided_after_s is not None and plan.undecided_after_s < plan.every_s:
        problems.append("it cannot go on undecided before the time of a step is over")
    if plan.webhook:
        problems += webhook_problems(plan.webhook)
    return problems


def webhook_problems(url: str) -> list[str]:
    """What is wrong with a webhook's URL, which must be https, or http on this machine. Empty where nothing is."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return ["the webhook's address cannot be read"]
    if len(url) > _MAX_TEXT or not url.isascii() or not url.isprintable() or " " in url:
        return ["the webhook's address must be plain ASCII without spaces"]
    if parts.username is not None or parts.password is not None:
        return ["the webhook's address must not hold a user name or a password: it is signed instead"]
    if not host or not (
        parts.scheme == "https" or (parts.scheme == "http" and host in {"127.0.0.1", "::1", "localhost"})
    ):
        return ["the webhook's address must begin with https:// and name a host"]
    return []


def mask_webhook(url: str) -> str:
    """A webhook's URL with only its scheme and host.

    People and logs may see these: the rest often is what lets anybody post there.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return "…"
    origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    return origin if url == origin else f"{origin}/…"


def reason_problems(reason: str) -> list[str]:
    """What is wrong with the reason that a person gives for a step."""
    size = len(reason.encode("utf-8", "surrogatepass"))
    return (
        [f"the reason has {size} bytes, of at most {_MAX_REASON_BYTES}"] if size > _MAX_REASON_BYTES else []
    )


def start_problems(model: Model, candidate: str, plan: RolloutPlan) -> list[str]:
    """Why a rollout of `candidate` cannot begin, a sentence each. `model` is as it is now."""
    if model.backend(candidate) is None:
        known = ", ".join(backend.version for backend in model.backends)
        return [f'"{model.name}" has no version {candidate}; it has {known or "none"}']
    if not model.enabled:
        return [f'"{model.name}" is disabled, so nothing could be compared']
    others = [version for version, share in model.traffic.items() if share and version != candidate]
    if len(others) != 1:
        split = ", ".join(f"{version}={share}" for version, share in model.traffic.items() if share)
        problem = (
            f"the candidate is compared with one stable version, and the traffic is split as {split}: give"
        )
        return [f"{problem} one other version all of it first (chips traffic {model.name} VERSION=100)"]
    share = model.traffic.get(candidate, 0)
    if plan.steps and plan.steps[0] <= share:
        return [f"version {candidate} takes {share} % already, and the first step is {plan.steps[0]} %"]
    return []


def new_rollout(
    model: Model, candidate: str, plan: RolloutPlan, *, identity: str, by: str, reason: str
) -> Rollout:
    """A new rollout, as it is first written. Raises ValueError where the plan cannot be honoured."""
    problems = [*plan_problems(plan), *start_problems(model, candidate, plan), *reason_problems(reason)]
    if problems:
        raise ValueError("; ".join(problems))
    stable = next(version for version, share in model.traffic.items() if share and version != candidate)
    found = {backend.version: backend_fingerprint(backend) for backend in model.backends}
    return Rollout(
        model=model.name,
        id=identity,
        candidate=candidate,
        stable=stable,
        plan=plan,
        by=by,
        reason=reason,
        traffic=dict(model.traffic),
        versions={version: found[version] for version in (candidate, stable)},
    )


def changed_by_hand(rollout: Rollout, model: Model | None) -> str:
    """What somebody changed by hand in the model during the rollout. Empty if nothing that matters to the rollout."""
    if model is None:
        return "the model was deregistered"
    if not model.enabled:
        return "the model was disabled"
    replaced = version_replaced_since_start(rollout, model)
    if replaced:
        return replaced
    now = {version: share for version, share in model.traffic.items() if share}
    left = {version: share for version, share in rollout.traffic.items() if share}
    if now != left:
        return f"the traffic was changed by hand: {_split(now)} instead of {_split(left)}"
    return ""


def version_replaced_since_start(rollout: Rollout, model: Model) -> str:
    """Which of the rollout's two versions was replaced or removed since it began. It is a sentence; empty if neither was."""
    for version, was in rollout.versions.items():
        backend = model.backend(version)
        if backend is None:
            return f"version {version} was removed"
        if backend_fingerprint(backend) != was:
            return f"version {version} was replaced"
    return ""


def _split(traffic: Mapping[str, int]) -> str:
    return ", ".join(f"version {version} {share} %" for version, share in sorted(traffic.items())) or "none"


def candidate_stable_split(rollout: Rollout, candidate_percent: int) -> dict[str, int]:
    """The traffic split that gives the candidate `candidate_percent`, the stable version the rest, and others nothing."""
    return {
        **dict.fromkeys(rollout.traffic, 0),
        rollout.stable: 100 - candidate_percent,
        rollout.candidate: candidate_percent,
    }


def with_traffic(model: Model, traffic: Mapping[str, int]) -> Model:
    """A copy of `model` with this traffic split. A version that `traffic` does not name gets nothing."""
    split = {backend.version: traffic.get(backend.version, 0) for backend in model.backends}
    return msgspec.structs.replace(model, traffic=split)
