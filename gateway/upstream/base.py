"""The interface of an upstream: it sends a request to a backend and pipes the response to the caller."""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from gateway.core.exchange import Attempt, Exchange, RequestBody, ResponseWriter
from gateway.core.headers import CRLF, TRACESTATE
from gateway.upstream.response_head import ResponseHead


class UpstreamRequest(msgspec.Struct, frozen=True):
    """A request as the backend will see it, but for Host, `trace_fields` and the framing of its body."""

    method: str
    url: str  # the backend's address, no trailing slash
    path: str  # below it, with the query
    fields: list[bytes]  # field lines, each with its CRLF, in as many pieces as it takes


class Upstream(Protocol):
    """Sends requests to backends and relays their responses."""

    async def start(self) -> None: ...

    async def send(self, exchange: Exchange, request: UpstreamRequest) -> None:
        """Return when the caller has the whole answer.

        Raises an UpstreamError (or PayloadTooLarge) where it fails; whether a part of the answer has gone out by then
        is for `exchange.response.started` to say. Fills `exchange.attempts`, `bytes_in`, `backend_server_timing`.
        """

    async def stop(self) -> None: ...


class ConnectionOwner(Protocol):
    """The pool that a connection belongs to, as the connection uses it."""

    tunnel_idle_s: float

    def release(self, connection: Any) -> None:
        """The connection can carry another request."""

    def discard(self, connection: Any) -> None:
        """The connection is, or will be, closed."""


class EgressCheck(Protocol):
    """Says where the gateway may connect to. Called with what a backend's name resolved to, before each connection."""

    def __call__(self, host: str, addresses: Sequence[str]) -> None:
        """Raise UpstreamUnreachable where one of `addresses` must not be connected to."""


class BackendCredentials(Protocol):
    """Proves to a backend who the gateway is: header fields for the backend at a URL, in pieces as in `Outbound.fields`.

    `audience` is what the backend takes such a proof for, where that is not its own origin.
    """

    def fields(self, url: str, audience: str = "") -> Sequence[bytes] | None:
        """The fields as far as they are at hand; None where `fetch` must be awaited first."""

    async def fetch(self, url: str, audience: str = "") -> Sequence[bytes]: ...


class ResponseSource(Protocol):
    """Where a relayed answer comes from; and where, in a tunnel, what the caller sends goes."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def upload(self, piece: bytes) -> None: ...

    def end(self) -> None:
        """The caller has closed the tunnel."""


class ResponseSink(Protocol):
    """Takes a backend's answer by plain calls, as it arrives."""

    def relay(
        self,
        head: ResponseHead,
        body: bytes,
        *,
        complete: bool,
        source: ResponseSource,
        trailers: bytes = b"",
    ) -> None:
        """The head, and what of the body came with it. `complete`: there is no more to come."""

    def relay_piece(self, piece: bytes) -> None: ...

    def relay_end(self, trailers: bytes) -> None:
        """The body is complete. `trailers`: field lines, each with its end."""

    def relay_interim(self, head: ResponseHead) -> None:
        """An answer before the answer (1xx)."""

    def relay_tunnel(self, head: ResponseHead, first: bytes, source: ResponseSource) -> None:
        """The backend switched protocols: from here on bytes go both ways as they are, until one side closes."""


class StreamingResponse(ResponseWriter, ResponseSink, Protocol):
    """A reply that takes a backend's answer, too."""


class BodySink(Protocol):
    """Where a caller's body flows to."""

    def upload(self, piece: bytes) -> None: ...

    def upload_end(self, trailers: bytes) -> None: ...

    def upload_failed(self, error: BaseException) -> None: ...


class PipedBody(RequestBody, Protocol):
    """A body that can be had at once where it has arrived, and else flows by plain calls."""

    error: BaseException | None  # why there will be no more of it
    piping_started: bool  # some of it may have been handed on, so that it cannot be sent again

    def complete_body(self) -> bytes:
        """All of it, once `complete`."""

    def pipe_to(self, sink: BodySink, limit_bytes: int) -> None:
        """Give `sink` what has arrived, and what is still to come as it arrives."""

    def stop_piping(self) -> None:
        """Nobody wants the rest."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...


def trace_fields(exchange: Exchange, attempt: Attempt) -> tuple[bytes, ...]:
    """The trace context of one attempt, in pieces as in `Outbound.fields`.

    Each attempt has a span of its own, so that what two backends did for one request does not end up in one heap.
    """
    trace = exchange.trace
    traceparent = trace.traceparent(attempt.span_id, sampled=exchange.keep_trace_because is not None)
    line = b"traceparent: " + traceparent + CRLF
    head = exchange.head
    tracestate = head.read[TRACESTATE]
    # It belongs to the trace that the caller named, or to none.
    if tracestate is None or trace.parent_id is None or TRACESTATE in head.ends_here:
        return (line,)
    return (line, b"tracestate: ", tracestate, CRLF)
