"""What an upstream is: it carries one request to a backend and pipes the answer into the exchange's reply."""

from typing import NamedTuple, Protocol

from gateway.core.exchange import Attempt, Exchange
from gateway.core.headers import CRLF, TRACESTATE


class Outbound(NamedTuple):
    """A request as the backend shall see it, but for Host, `trace_fields` and the framing of its body."""

    method: str
    url: str  # the backend's address, no trailing slash
    path: str  # below it, with the query
    fields: list[bytes]  # flat: `name: `, value, CRLF


class Upstream(Protocol):
    async def start(self) -> None: ...

    async def send(self, exchange: Exchange, outbound: Outbound) -> None:
        """Return when the caller has the whole answer.

        Raises an UpstreamError (or PayloadTooLarge) where it fails; whether a part of the answer has gone out by then
        is for `exchange.reply.started` to say. Fills `exchange.attempts`, `bytes_in`, `backend_server_timing`.
        """

    async def stop(self) -> None: ...


def trace_fields(exchange: Exchange, attempt: Attempt) -> tuple[bytes, ...]:
    """The trace context of one attempt, flat as in `Outbound.fields`.

    Each attempt has a span of its own, so that what two backends did for one request does not end up in one heap.
    """
    trace = exchange.trace
    traceparent = trace.traceparent(attempt.span_id, sampled=exchange.kept is not None)
    tracestate = exchange.head.read[TRACESTATE]
    if (
        tracestate is None or trace.parent_id is None
    ):  # it belongs to the trace that the caller named, or to none
        return (b"traceparent: ", traceparent, CRLF)
    return (b"traceparent: ", traceparent, CRLF, b"tracestate: ", tracestate, CRLF)
