"""Make the spans of a recorded request. The console and `chips why` draw them as a waterfall, and exporters send them."""

from collections.abc import Iterator
from typing import Literal

import msgspec

from gateway.telemetry.metrics import COLD_START_S, parse_server_timing
from gateway.telemetry.recorded_request import RecordedAttempt, RecordedRequest

Kind = Literal["server", "client", "internal"]
Value = str | int | float | bool

_OF_THE_BACKEND = (
    16  # the ids of the backend's own phases are beyond those of its attempt, which they are derived from
)
_WAITED_S = 0.0002  # a stage that took less did not wait
_MASK = (1 << 64) - 1
_STRIDE = 0x9E3779B97F4A7C15  # odd, so that the ids derived from one span are all different


class Span(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One timed part of a request. It has a parent and attributes."""

    name: str
    span_id: str
    parent_id: str | None = None
    kind: Kind = "internal"
    start_s: float  # since the request arrived
    end_s: float
    error: str = ""
    attributes: dict[str, Value] = {}


def spans_of(request: RecordedRequest) -> list[Span]:
    """The spans of a request. Its own comes first, then its descendants in the order in which they began."""
    return [_request(request), *_stages(request), *(s for a in _numbered(request) for s in _attempt(*a))]


def _request(request: RecordedRequest) -> Span:
    attributes: dict[str, Value] = {
        "http.request.method": request.method,
        "url.path": request.path,
        "http.response.status_code": request.status,
        "http.request.body.size": request.bytes_in,
        "http.response.body.size": request.bytes_out,
        "client.address": request.address,
        "chips.request_id": request.request_id,
        "chips.kept": request.kept,
        "chips.generation": request.generation,
    }
    for name in ("model", "version", "assigned", "unit", "caller", "artifact_digest", "side"):
        if value := getattr(request, name):
            attributes[f"chips.{name}"] = value
    if request.error:
        attributes["error.type"] = request.error
    return Span(
        name=f"{request.method} /{request.model}" if request.model else f"{request.method} {request.path}",
        span_id=request.span_id,
        parent_id=request.parent_id,
        kind="server",
        start_s=0.0,
        end_s=request.duration_s,
        error=(request.detail or request.error) if request.status >= 500 else "",
        attributes=attributes,
    )


def _stages(request: RecordedRequest) -> Iterator[Span]:
    """Only stages that waited: route that asked the registry, authenticate that read a key, limits, body, queue."""
    before = 0.0
    for index, (name, began, done) in enumerate(_waits(request), 1):
        if done is None:
            return
        began = before if began is None else max(began, before)  # noqa: PLW2901
        if done - began > _WAITED_S:
            yield Span(
                name=name,
                span_id=_derived(request.span_id, index),
                parent_id=request.span_id,
                start_s=began,
                end_s=done,
            )
        before = max(before, done)


def _waits(request: RecordedRequest) -> Iterator[tuple[str, float | None, float | None]]:
    """Name, beginning (None: where the one before ended) and end of what a request may wait for before its attempts."""
    authenticated = request.authenticated
    yield "route", None, request.routed
    yield "authenticate", None, authenticated
    yield "limits", authenticated, None if authenticated is None else authenticated + request.rate_limit_s
    permitted = request.duration_s if request.permitted is None else request.permitted  # it waited in vain
    queued = permitted - request.queued_s
    yield "body", queued - request.buffering_s, queued
    yield "queue", queued, permitted


def _numbered(request: RecordedRequest) -> Iterator[tuple[RecordedRequest, int, RecordedAttempt]]:
    for number, attempt in enumerate(request.attempts, 1):
        yield request, number, attempt


def _attempt(request: RecordedRequest, number: int, attempt: RecordedAttempt) -> Iterator[Span]:
    end = attempt.ended if attempt.ended is not None else request.duration_s
    attributes: dict[str, Value] = {
        "url.full": request.url,
        "http.request.resend_count": number - 1,
        "chips.connection_reused": attempt.reused,
    }
    if attempt.status is not None:
        attributes["http.response.status_code"] = attempt.status
    failed = attempt.failure or (f"status {attempt.status}" if (attempt.status or 0) >= 500 else "")
    if failed:
        attributes["error.type"] = failed
    yield Span(
        name=f"attempt {number}",
        span_id=attempt.span_id,
        parent_id=request.span_id,
        kind="client",
        start_s=attempt.began,
        end_s=end,
        error=failed,
        attributes=attributes,
    )
    for index, (name, began, done) in enumerate(_phases(attempt, end), 1):
        phase = Span(
            name=name,
            span_id=_derived(attempt.span_id, index),
            parent_id=attempt.span_id,
            start_s=began,
            end_s=done,
        )
        yield phase
        if name == "wait" and attempt.answered is not None and number == len(request.attempts):
            yield from _backend(request, phase)


def _phases(attempt: RecordedAttempt, end: float) -> Iterator[tuple[str, float, float]]:
    """What an attempt did, one after the other. Of one that failed the last phase is the one that it failed in."""
    before = attempt.began
    connected = attempt.connected
    if connected is None:
        if attempt.failure == "upstream-unreachable":
            yield "connect", before, end
            return
    elif not attempt.reused:
        if attempt.dialed is None:
            yield "connect", before, connected
        else:
            dialed = max(
                attempt.dialed, before
            )  # it may have been under way, for somebody who then needed it no more
            yield "connect", before, dialed
            yield "TLS", dialed, connected
        before = connected
    else:
        if connected - before > _WAITED_S:
            yield "wait for a connection", before, connected
        before = connected
    for name, done in (
        ("send", attempt.sent),
        ("wait", attempt.answered),
        ("receive", attempt.ended if attempt.answered is not None else None),
    ):
        if done is not None:
            yield name, before, done
            before = done
        elif connected is not None:
            yield name, before, end
            return


def _backend(request: RecordedRequest, wait: Span) -> Iterator[Span]:
    """The backend's own phases. It says how long they took, not when: they are laid out so that they end with the wait."""
    phases = parse_server_timing(request.server_timing.encode("latin-1"))
    start = max(wait.end_s - sum(phase.duration_s for phase in phases), wait.start_s)
    if phases and start - wait.start_s > COLD_START_S:
        yield Span(
            name="cold start",
            span_id=_derived(wait.span_id, _OF_THE_BACKEND),
            parent_id=wait.span_id,
            start_s=wait.start_s,
            end_s=start,
            attributes={"chips.why": "the backend accounts for less than the wait: an instance was starting"},
        )
    for index, phase in enumerate(phases, _OF_THE_BACKEND + 1):
        end = min(start + phase.duration_s, wait.end_s)
        yield Span(
            name=f"backend {phase.name}",
            span_id=_derived(wait.span_id, index),
            parent_id=wait.span_id,
            start_s=start,
            end_s=end,
            attributes={"chips.start_estimated": True},
        )
        start = end


def _derived(span_id: str, index: int) -> str:
    """The id of a span that has no message of its own; the same each time it is asked for."""
    return f"{(int(span_id, 16) + index * _STRIDE) & _MASK or 1:016x}"
