"""HTTP/1.1 with one caller, on aiohttp's request parser: requests are answered one at a time, in their order.

aiohttp's own connection (`aiohttp.web`) makes a request object, a response object and two tasks for each request; that costs more
than reading, predicting and answering one row. The parser is the same, with the same limits, so what is HTTP and what is not stays
the same, bodies in chunks included. The bounds of aiohttp in pyproject.toml belong to what is used of it here.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final, Protocol

from aiohttp import HttpVersion10, HttpVersion11
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import BadHttpMessage, BadStatusLine, HttpProcessingError
from aiohttp.http_parser import HttpRequestParser
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.tcp_helpers import tcp_keepalive

from chips_backend.eager_runner import EagerRunner
from chips_backend.request_context import RequestContext
from chips_backend.response import Response, render_response

_HEADER_BYTES: Final = 16 * 1024  # as the gateway takes them
_READ_BYTES: Final = (
    256 * 1024
)  # of a body are read ahead; aiohttp's 64 KiB pause the connection again and again
_VERSIONS: Final = (HttpVersion11, HttpVersion10)
_MOST_QUEUED: Final = 32  # requests of one caller, parsed and not answered
_IDLE_S: Final = 650.0  # longer than any caller keeps a connection
_JOINED_BYTES: Final = 64 * 1024  # of a body go out together with the head
_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"  # without trailers
_LINGER_S: Final = 2.0  # for what a caller still sends after the last answer


class Application(Protocol):
    """Answers requests."""

    def __call__(self, call: RequestContext) -> Coroutine[Any, Any, Response]: ...

    def refuse(self, error: HttpProcessingError) -> Response:
        """The answer to what is no HTTP request."""


class Connections(Protocol):
    """What connections share."""

    draining: bool

    def date(self) -> str:
        """Now, as the header Date has it."""

    def opened(self, connection: "Connection") -> None: ...

    def closed(self, connection: "Connection") -> None: ...


class Connection(BaseProtocol):
    """Reads requests of one caller and writes their responses."""

    __slots__ = (
        "_after_chunks",
        "_app",
        "_broken",
        "_call",
        "_connections",
        "_ending",
        "_idle_since",
        "_is_held_up",
        "_lingering",
        "_payload",
        "_queue",
        "_runner",
        "_taking",
        "_timer",
    )

    def __init__(self, app: Application, connections: Connections, loop: asyncio.AbstractEventLoop) -> None:
        parser = HttpRequestParser(
            self,
            loop,
            _READ_BYTES,
            max_line_size=_HEADER_BYTES,
            max_field_size=_HEADER_BYTES,
            auto_decompress=False,  # a coding is refused, whatever the body is
            max_msg_queue_size=_MOST_QUEUED,
        )
        super().__init__(loop, parser)
        self._app = app
        self._connections = connections
        self._queue: deque[tuple[Any, StreamReader]] = deque()
        self._runner: EagerRunner[Response] = EagerRunner(loop, self._ended)
        self._call: RequestContext | None = None  # the request under way
        self._payload: StreamReader = EMPTY_PAYLOAD  # of the request that was read last
        self._after_chunks = False  # the request that was taken last had its body in chunks
        self._ending = b""  # the last bytes that came
        self._is_held_up = False  # the parser stops at the next body, and nothing would make it go on
        self._broken = False  # what came is no HTTP, and nobody knows where the next request would begin
        self._lingering = False
        self._taking = False
        self._idle_since = loop.time()
        self._timer = loop.call_later(_IDLE_S, self._check_idle)

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None  # noqa: S101
        tcp_keepalive(self.transport)
        self._connections.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._timer.cancel()
        self._queue.clear()
        self._connections.closed(self)
        if self._call is not None:
            self._runner.cancel()  # who has left waits no more, and is not predicted

    def data_received(self, data: bytes) -> None:
        if self._lingering or self._broken:
            return
        size = len(_LAST_CHUNK)
        self._ending = data[-size:] if len(data) >= size else (self._ending + data)[-size:]
        self._read(data)
        if self._call is None:
            self._take_requests()

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002  (aiohttp's signature)
        """Called at the end of each body, whether it was held up or not."""
        if self._reading_paused:
            # Only the number of chunks holds a body up at its very end. The parser keeps that for the next body.
            self._is_held_up |= not resume_parser
            super().resume_reading(resume_parser)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._take_requests()

    # -- reading

    def _read(self, data: bytes) -> None:
        """Add the requests that `data` completes the heads of to the queue."""
        parser: Any = self._parser
        queue = self._queue
        try:
            messages, _, _ = parser.feed_data(data)
            queue.extend(messages)
        except HttpProcessingError as error:
            self._broken = True
            if queue:
                self._payload = queue[-1][1]
            if self._payload.is_eof():
                queue.append((error, EMPTY_PAYLOAD))
            else:  # the rest of a body
                self._payload.set_exception(error)
            return
        if messages:
            self._payload = queue[-1][1]
            if len(queue) >= _MOST_QUEUED - 1 and not self._buffer_paused:
                self._pause_reading_for_buffer()

    def _take_requests(self) -> None:
        """Begin the next request, and those behind it that are answered at once; a loop, because a caller decides how many come together."""
        if self._taking:
            return
        self._taking = True
        try:
            while self._queue and self._call is None and not (self._paused or self._is_over):
                self._take_request()
        finally:
            self._taking = False

    @property
    def _is_over(self) -> bool:
        """Whether nothing can be answered any more."""
        return self._lingering or self.transport is None or self.transport.is_closing()

    def _take_request(self) -> None:
        message, payload = self._queue.popleft()
        if isinstance(message, HttpProcessingError):
            self._refuse(message)
            return
        if message.version not in _VERSIONS:  # the parser takes 0.9 and 2.0 as well
            self._refuse(BadStatusLine(message.version))
            return
        if self._after_chunks and message.raw_headers and message.raw_headers[0][0].lower() != b"host":
            # A trailer of the request before, see `_cannot_go_on`; Host comes first (RFC 9112, section 3.2), and two are refused.
            self._refuse(BadHttpMessage("a trailer, or Host is not the first field behind a body in chunks"))
            return
        self._after_chunks = message.chunked
        self._call = call = RequestContext(message, payload, self)
        self._runner.start(self._app(call))

    def _refuse(self, error: HttpProcessingError) -> None:
        self._send(self._app.refuse(error), "Connection: close\r\n")
        self._linger()

    def send_continue(self) -> None:
        """Tell a caller who waits for it that the body may come (RFC 9110, section 10.1.1)."""
        if self.transport is not None:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # -- answering

    def _ended(self, response: Response | None) -> None:
        """The request under way has its response; None: its caller has left."""
        call, self._call = self._call, None
        transport = self.transport
        if call is None or transport is None or transport.is_closing():
            return
        if response is None:
            transport.abort()
            return
        is_read = call.payload.is_eof()  # else its rest would be taken for the next request
        if not is_read or call.closes or self._cannot_go_on or self._connections.draining:
            self._send(response, "Connection: close\r\n", without_body=call.method == "HEAD")
            if is_read and self._connections.draining:
                transport.close()
            else:
                self._linger()
            return
        keep = "Connection: keep-alive\r\n" if call.version == HttpVersion10 else ""
        self._send(response, keep, without_body=call.method == "HEAD")
        self._idle_since = self._loop.time()
        parser: Any = self._parser
        parser.message_consumed()
        if self._buffer_paused and not self._broken and len(self._queue) <= _MOST_QUEUED // 2:
            self._read(b"")  # what the parser has kept back
            if len(self._queue) < _MOST_QUEUED - 1:
                self._resume_reading_for_buffer()
        if self._queue:
            self._take_requests()

    @property
    def _cannot_go_on(self) -> bool:
        """Whether the parser would not read the next request as it is.

        aiohttp's parser takes the last trailer for the first field of the next request, which may be another caller's.
        """
        had_trailers = (
            self._after_chunks
            and not self._queue
            and self._ending.endswith(b"\r\n\r\n")
            and self._ending != _LAST_CHUNK
        )
        return self._is_held_up or had_trailers

    def _send(self, response: Response, more_fields: str, *, without_body: bool = False) -> None:
        if self.transport is None:
            return
        head, body = render_response(response, self._connections.date(), more_fields), response.body
        if without_body:
            self.transport.write(head)
        elif len(body) <= _JOINED_BYTES:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)

    # -- the end

    def close(self) -> None:
        """Take no further request: close now where none is under way, else after its response."""
        if self._call is None and self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        if self.transport is not None:
            self.transport.abort()

    def _linger(self) -> None:
        """Close our side and drop what still comes, until the caller closes too, or time is up.

        To close while bytes lie unread resets the connection, and a reset takes the response from who has not read it yet
        (RFC 9112, section 9.6).
        """
        transport = self.transport
        self._lingering = True
        self._queue.clear()
        if transport is None or transport.is_closing():
            return
        try:
            transport.write_eof()
        except OSError:  # asyncio's own transport, where the caller has left
            transport.abort()
            return
        self._reading_paused = self._buffer_paused = False
        self._resume_transport_reading()
        self._timer.cancel()
        self._timer = self._loop.call_later(_LINGER_S, self._end_linger, transport)

    def _end_linger(self, transport: asyncio.Transport) -> None:
        transport.close()  # when all is sent: who does not read has as long as one who idles
        self._timer = self._loop.call_later(_IDLE_S, transport.abort)

    def _check_idle(self) -> None:
        """Close a connection without a request for `_IDLE_S`, also where the last response has not been read."""
        left_s = self._idle_since + _IDLE_S - self._loop.time()
        if self._call is not None:
            left_s = _IDLE_S
        if left_s <= 0:
            self.abort()
        else:
            self._timer = self._loop.call_later(left_s, self._check_idle)
