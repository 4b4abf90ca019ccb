"""The registry document of a shadow.

It says which share of a model's requests is copied to a candidate version, and for how long. The candidate gets a request
after its caller has been answered.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from gateway.core.model import Model
from gateway.core.name_validation import check_model_name, check_version
from gateway.core.rollout_document import backend_fingerprint

LONGEST_S = 30 * 86_400.0
_MOST_CONCURRENT = 256
_MOST_BYTES = 1 << 30
_MOST_PER_S = 10_000.0


PureBy = Literal["policy", "artifacts"]  # what declares that predicting changes nothing


class ShadowBudget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The limits on what a shadow may use in a gateway process. What does not fit is dropped and counted."""

    concurrency: int = 4  # requests under way at once, each on a connection of its own
    requests_per_s: float = 20.0
    waiting: int = 64  # requests that wait for their turn
    body_bytes: int = 1 << 20  # of one answer; a request's body is 64 KiB at most
    buffer_bytes: int = 16 << 20  # of all requests and answers that are held


class Shadow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A shadow: a candidate that gets copies of a model's requests. It is the document `shadows/NAME`."""

    model: str
    id: str  # differs for each shadow of the model
    candidate: str
    stable: str
    versions: dict[
        str, str
    ]  # what both were when it began: `gateway.core.rollout_document.backend_fingerprint`
    percent: float  # of the stable version's scoring requests
    noise_percent: float = 20.0  # of those: they go to the stable version once more
    until: str  # RFC 3339: when it ends by itself
    budget: ShadowBudget = ShadowBudget()
    tolerance: float = 1e-6
    tolerances: dict[str, float] = {}  # by output, where it differs
    allowed: float = 0.01  # how much more often the candidate may differ than the stable version from itself
    report_s: float = 5.0  # how often each gateway process reports
    pure_by: PureBy = "policy"
    by: str = ""
    stopped: str = ""  # RFC 3339: when a person ended it

    @property
    def ends_at(self) -> float:
        """When the shadow ends, in seconds since the epoch."""
        return datetime.fromisoformat(self.stopped or self.until).timestamp()


def parse_shadow(document: Mapping[str, Any]) -> Shadow:
    """Parse a shadow's registry document. ValueError says everything that is wrong with it.

    An unknown field is an error: it might be a bound that this release does not honor.
    """
    try:
        shadow = msgspec.convert(document, Shadow)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    problems = shadow_problems(shadow)
    if problems:
        raise ValueError("; ".join(problems))
    return shadow


def shadow_problems(shadow: Shadow) -> list[str]:
    """Everything that is wrong with a shadow's document. Each problem is a sentence."""
    problems = []
    for check, name in (
        (check_model_name, shadow.model),
        (check_version, shadow.candidate),
        (check_version, shadow.stable),
    ):
        try:
            check(name)
        except ValueError as error:
            problems.append(str(error))
    if shadow.candidate == shadow.stable:
        problems.append("the candidate and the stable version are the same")
    if set(shadow.versions) != {shadow.candidate, shadow.stable}:
        problems.append("it must say what its two versions were when it began")
    for text in filter(None, (shadow.until, shadow.stopped)):
        try:
            if datetime.fromisoformat(text).tzinfo is None:
                problems.append(f"{text} names no time zone")
        except ValueError:
            problems.append(f"{text[:40]!r} is not a time")
    budget = shadow.budget
    tolerances = [shadow.tolerance, *shadow.tolerances.values()]
    for what, value, least, most in (
        ("the share of requests", shadow.percent, 0.001, 100.0),
        ("the share that goes to the stable version again", shadow.noise_percent, 0.1, 100.0),
        ("the allowed share of answers that differ", shadow.allowed, 0.0, 1.0),
        ("the time between two reports", shadow.report_s, 0.05, 300.0),
        ("the requests at once", budget.concurrency, 1, _MOST_CONCURRENT),
        ("the requests per second", budget.requests_per_s, 0.01, _MOST_PER_S),
        ("the requests that wait", budget.waiting, 1, 10_000),
        ("the bytes of an answer", budget.body_bytes, 1, _MOST_BYTES),
        ("the bytes held", budget.buffer_bytes, 1, _MOST_BYTES),
        *(("a tolerance", tolerance, 0.0, 1e9) for tolerance in tolerances),
    ):
        if not (math.isfinite(value) and least <= value <= most):
            problems.append(f"{what} must lie between {least:g} and {most:g}, not {value:g}")
    return problems


def why_not_shadowed(shadow: Shadow, model: Model | None, now: float) -> str:
    """Why the shadow gets no requests at `now`.

    `now` is in seconds since the epoch; the text is empty where the shadow gets requests.
    """
    if shadow.stopped:
        return f"it was stopped at {shadow.stopped}"
    if now >= shadow.ends_at:
        return f"its time was over at {shadow.until}"
    if model is None:
        return f"there is no model {shadow.model}"
    if model.policy.pure is False or (shadow.pure_by == "policy" and not model.policy.pure):
        return "its model is not declared pure any more"
    for version, was in shadow.versions.items():
        backend = model.backend(version)
        if backend is None:
            return f"version {version} is gone"
        if backend_fingerprint(backend) != was:
            return f"version {version} is not what it was when the shadow began: start it again"
    return ""


def utc_text(at: float) -> str:
    """A time as text in UTC (RFC 3339). `at` is in seconds since the epoch."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
