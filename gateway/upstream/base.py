"""The interface of an upstream, which sends requests to backends.

It also relays the responses. The parts of upstreams have their interfaces here, too.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from gateway.core.exchange import Attempt, Exchange, RequestBody, ResponseWriter
from gateway.core.header_classification import TRACESTATE
from gateway.upstream.response_head import ResponseHead


class UpstreamRequest(msgspec.Struct, frozen=True):
    """A request to a backend. The upstream adds Host, `trace_lines` and the framing of the body."""

    method: str
    url: str  # the backend's address, no trailing slash
    path: str  # below it, with the query
    fields: list[bytes]  # field lines, each with its CRLF, in as many pieces as it takes


class Upstream(Protocol):
    """Sends requests to backends and relays their responses."""

    async def start(self) -> None: ...

    async def send(self, exchange: Exchange, request: UpstreamRequest) -> None:
        """Send the request and relay the response.

        It returns when the caller has all of it. Raises an UpstreamError (or PayloadTooLarge); `exchange.response.started`
        says whether a part of the response has gone out by then. Fills `exchange.attempts`, `bytes_in`,
        `backend_server_timing`.
        """

    async def stop(self) -> None: ...


class OwningPool(Protocol):
    """The interface of the pool that owns a connection. It has what the connection uses."""

    tunnel_idle_s: float

    def release(self, connection: Any) -> None:
        """Return a reusable connection to the pool. `remove` one that cannot carry another request."""

    def remove(self, connection: Any) -> None:
        """Remove the connection from the pool, without closing it: it is closed, or closes itself."""


class EgressCheck(Protocol):
    """Checks whether the gateway may connect to a backend's addresses. Called with the resolved ones before each connection."""

    def __call__(self, host: str, addresses: Sequence[str]) -> None:
        """Raise UpstreamUnreachable where one of `addresses` must not be connected to."""


class BackendCredentials(Protocol):
    """Provides the gateway's credentials at a backend.

    They are header fields that prove its identity, as parts of field lines. `audience` is what the backend accepts such a
    proof for, where that is not its own origin.
    """

    def cached_fields(self, url: str, audience: str = "") -> Sequence[bytes] | None:
        """The credential fields for the backend at `url`, if they are cached. None: await `fetch_fields`."""

    async def fetch_fields(self, url: str, audience: str = "") -> Sequence[bytes]: ...


class RelayingConnection(Protocol):
    """The backend connection that relays a response, as the response's sink controls it: pause and resume.

    In a tunnel, it also takes the caller's bytes.
    """

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def upload(self, piece: bytes) -> None: ...

    def close_tunnel(self) -> None:
        """Close the tunnel. The caller's connection is gone."""


class ResponseSink(Protocol):
    """Receives a backend's response as it arrives. Each part comes by a plain call."""

    def relay(
        self,
        head: ResponseHead,
        body: bytes,
        *,
        complete: bool,
        source: RelayingConnection,
        trailers: bytes = b"",
    ) -> None:
        """Relay the head, and the part of the body that came with it. `complete`: that is the whole body."""

    def relay_piece(self, piece: bytes) -> None: ...

    def relay_end(self, trailers: bytes) -> None:
        """Relay the end of the body. `trailers`: field lines, each with its CRLF."""

    def relay_interim(self, head: ResponseHead) -> None:
        """Relay an interim response (1xx). It comes before the final one (RFC 9110 section 15.2)."""

    def relay_tunnel(self, head: ResponseHead, first: bytes, source: RelayingConnection) -> None:
        """Relay a tunnel between the caller and the backend.

        The backend switched protocols: from here on bytes go both ways as they are, until one side closes.
        """


class StreamingResponse(ResponseWriter, ResponseSink, Protocol):
    """A ResponseWriter that can also relay a backend's response."""


class RequestBodySink(Protocol):
    """Receives a caller's request body as it arrives. Each part comes by a plain call."""

    def upload(self, piece: bytes) -> None: ...

    def upload_end(self, trailers: bytes) -> None: ...

    def upload_failed(self, error: BaseException) -> None: ...


class PipedBody(RequestBody, Protocol):
    """A request body that can be piped to a `RequestBodySink`. It can also be taken at once if all of it has arrived."""

    error: BaseException | None  # why there will be no more of it
    piping_started: bool  # some of it may have been handed on, so that it cannot be sent again

    def pipe_to(self, sink: RequestBodySink, limit_bytes: int) -> None:
        """Pipe the body to `sink` as it arrives.

        The bytes that have arrived come first. Beyond `limit_bytes`: PayloadTooLarge.
        """

    def stop_piping(self) -> None:
        """Stop piping the body. The sink gets no more of it."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...


def trace_lines(exchange: Exchange, attempt: Attempt) -> bytes:
    """The trace context field lines of one attempt.

    Each has its CRLF. Each attempt has a span of its own, so that the work of two backends for one request can be told
    apart.
    """
    trace, head = exchange.trace, exchange.head
    line = trace.traceparent_line(attempt.span_id, exchange.keep_trace_because is not None)
    tracestate = head.read[TRACESTATE]
    # It belongs to the trace that the caller named, or to none.
    if tracestate is None or trace.parent_id is None or TRACESTATE in head.ends_here:
        return line
    return b"%btracestate: %b\r\n" % (line, tracestate)
