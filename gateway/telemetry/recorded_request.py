"""The record of one request.

It holds what is known about the request and its attempts at backends. `chips why`, the console, the store and all spans come
from it.
"""

import time

import msgspec

from gateway.core.exchange import Attempt, Exchange

MAX_TEXT = 512


class RecordedAttempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """The record of one attempt at a backend. Times are seconds since the request arrived."""

    span_id: str
    began: float
    dialed: float | None = None
    connected: float | None = None
    reused: bool = False
    sent: float | None = None
    answered: float | None = None
    ended: float | None = None
    status: int | None = None
    failure: str | None = None


class RecordedRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The record of one request and its attempts. It holds no payload, no query and no credentials."""

    request_id: str
    trace_id: str
    span_id: str
    parent_id: str | None = None
    kept: str  # why: asked, caller, sampled, failed, slow, left; recent: kept in the store alone
    at: float  # when it arrived, seconds since the epoch
    duration_s: float
    method: str
    path: str
    status: int
    address: str = ""
    model: str = ""
    version: str = ""
    assigned: str = ""  # why that version: weight, sticky, pin; empty where one version has all traffic
    unit: str = ""  # the hash of what a sticky share stuck to
    url: str = ""
    artifact_digest: str = ""
    generation: int = 0
    caller: str = ""
    caller_label: str = ""
    error: str = ""
    side: str = ""  # of the error: caller, gateway, backend
    detail: str = ""
    cause: str = ""
    bytes_in: int = 0
    bytes_out: int = 0
    routed: float | None = None  # seconds since it arrived, as are the next two
    authenticated: float | None = None
    permitted: float | None = None
    rate_limit_s: float = 0.0
    queued_s: float = 0.0
    buffering_s: float = 0.0  # how long the caller took for a small body
    attempts: tuple[RecordedAttempt, ...] = ()
    server_timing: str = ""
    gateway: str = ""  # which process answered

    @property
    def failed(self) -> bool:
        return self.status >= 400

    @property
    def backend_s(self) -> float:
        return sum((attempt.ended or self.duration_s) - attempt.began for attempt in self.attempts)


def recorded_request_of(
    exchange: Exchange, *, status: int, kept: str, side: str, code: str, gateway: str
) -> RecordedRequest:
    """Make the record of a finished exchange."""
    arrived = exchange.arrived
    duration_s = exchange.ended - arrived
    trace = exchange.trace
    model = version = url = digest = ""
    if exchange.routed:
        model, backend = exchange.model.name, exchange.backend
        version, url, digest = backend.version, backend.url, backend.artifact_digest
    principal = getattr(exchange, "principal", None)
    error, cause = exchange.error, exchange.cause
    timing = exchange.backend_server_timing
    return RecordedRequest(
        request_id=exchange.request_id,
        trace_id=trace.trace_id,
        span_id=trace.span_id,
        parent_id=trace.parent_id,
        kept=kept,
        at=time.time() - duration_s,
        duration_s=duration_s,
        method=exchange.method,
        path=exchange.raw_target.partition("?")[0][:MAX_TEXT],
        status=status,
        address=exchange.remote_ip,
        model=model,
        version=version,
        assigned=exchange.assigned,
        unit=exchange.unit if exchange.assigned == "sticky" else "",
        url=url,
        artifact_digest=digest,
        generation=exchange.generation,
        caller=principal.id if principal is not None else "",
        caller_label=principal.label if principal is not None else "",
        error=code,
        side=side,
        detail=error.detail[:MAX_TEXT] if error is not None else "",
        cause=f"{type(cause).__name__}: {cause}"[:MAX_TEXT] if cause is not None else "",
        bytes_in=exchange.bytes_in,
        bytes_out=exchange.bytes_out,
        routed=exchange.routed - arrived if exchange.routed else None,
        authenticated=exchange.authenticated - arrived if exchange.authenticated else None,
        permitted=exchange.permitted - arrived if exchange.permitted else None,
        rate_limit_s=exchange.rate_limit_s,
        queued_s=exchange.queued_s,
        buffering_s=exchange.buffering_s,
        attempts=tuple([_try(attempt, arrived) for attempt in exchange.attempts]),
        server_timing=timing[:2048].decode("latin-1") if timing is not None else "",
        gateway=gateway,
    )


def _try(attempt: Attempt, arrived: float) -> RecordedAttempt:
    return RecordedAttempt(
        attempt.span_id,
        attempt.began - arrived,
        _since(attempt.dialed, arrived),
        _since(attempt.connected, arrived),
        attempt.reused,
        _since(attempt.sent, arrived),
        _since(attempt.answered, arrived),
        _since(attempt.ended, arrived),
        attempt.status,
        attempt.failure,
    )


def _since(moment: float | None, arrived: float) -> float | None:
    return None if moment is None else moment - arrived
