"""The HTTP/1.1 connection of one caller. It reads requests and writes responses, one at a time, in order."""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from gateway.core.api_keys import LastKeyDigest
from gateway.core.errors import BadRequest, GatewayError, HeadersTooLarge
from gateway.core.exchange import BUFFERED_BODY_BYTES, Exchange
from gateway.core.head_template_cache import CachedHead, ParsedHead
from gateway.core.trace_context import new_trace_id
from gateway.server.base_caller_protocol import NEVER, BaseCallerProtocol
from gateway.server.caller_response import CallerResponse
from gateway.server.eager_coroutine_runner import EagerCoroutineRunner
from gateway.server.fast_path_interfaces import BODY, PIPELINE
from gateway.server.open_connections import HALF_HEAD, SILENT, has_unread_bytes
from gateway.server.request_body import CallerRequestBody, body_timeout_error
from gateway.server.request_framing import cannot_be_request_head
from gateway.server.request_head_parser import HeadParser, parsed_head_of
from gateway.server.response_before_pipeline import render_refusal
from gateway.tcp_keepalive import enable_tcp_keepalive

if TYPE_CHECKING:
    from gateway.server.fast_path_interfaces import ServerState
    from gateway.upstream.base import RelayingConnection

_log = logging.getLogger(__name__)

_CR: Final = 13


class CallerConnection(BaseCallerProtocol):
    """One caller's HTTP/1.1 connection. The server calls `expire` at `due` (monotonic seconds), unless something happens before."""

    __slots__ = (
        "_body",
        "_head_began",
        "_head_limit_bytes",
        "_head_seen",
        "_idle_waiter",
        "_known",
        "_last_digest",
        "_parser",
        "_response",
        "_runner",
        "_taking",
        "_tunnel",
        "last",
        "recognized",
    )

    def __init__(self, server: "ServerState", loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(server)
        self._head_limit_bytes = server.head_limit_bytes
        self._parser = HeadParser(loop, limit_bytes=server.field_limit_bytes)
        self._runner = EagerCoroutineRunner(loop, self._ended)
        self._known: CachedHead | None = None  # the last head
        self._last_digest = LastKeyDigest()
        self._head_began = False  # a part of a head is there, and has its time
        self._head_seen = 0  # bytes of it that were searched for its end
        self._taking = False
        self._body: CallerRequestBody | None = None
        self._response: CallerResponse | None = None
        self._tunnel: RelayingConnection | None = None
        self.recognized = False
        self._idle_waiter: asyncio.Future[None] | None = None
        self.last = False  # no request after the present one

    # -- asyncio.Protocol

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.due = NEVER
        self._received = b""
        self._server.connection_lost(self, exc)
        if self._tunnel is not None and self._response is not None:
            self._response.finished = True  # either side may end a tunnel
            self._tunnel.close_tunnel()
        if self._busy and (self._response is None or not self._response.finished):
            self._runner.cancel()

    def data_received(self, data: bytes) -> None:
        if self._tunnel is not None:
            self._tunnel.upload(data)
            return
        if self._linger is not None:
            if not self._linger.try_drop(len(data)):
                self.abort()
            return
        body = self._body
        if body is not None and not body.complete:
            if body.error is not None:
                return
            timeout_s = self.body_timeout_s
            earned_s = len(data) * timeout_s / BUFFERED_BODY_BYTES
            self.due = min(self.due + earned_s, time.monotonic() + timeout_s)
            data = body.feed(data)
            if not data:
                return
        self._received = self._received + data if self._received else data
        if not self._busy:
            self._take_requests()
        # While a request is under way, or the caller does not read the answers. A head that waits for its end is shorter.
        if len(self._received) > self._head_limit_bytes:
            self.pause_reading(PIPELINE)

    def eof_received(self) -> None:
        """Count a caller who half-closes as gone: the transport closes itself. asyncio calls this at the caller's FIN."""

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._received and not self._busy:
            self._take_requests()

    # -- requests

    def _take_requests(self) -> None:
        """Take the requests that have arrived, one after the other: what ends at once must not nest in what follows."""
        if self._taking:
            return
        self._taking = True
        try:
            while self._received and not self._busy and self._linger is None and not self.writing_paused:
                if self.last or not self._take_request():
                    break
        finally:
            self._taking = False
        if self._pauses and len(self._received) <= self._head_limit_bytes:
            self.resume_reading(PIPELINE)

    def _take_request(self) -> bool:
        """Take one request off what has been received; False where there is none yet, or none to be taken."""
        received = self._received
        if received[0] == _CR:  # RFC 9112 section 2.2: an empty line before a request does no harm
            self._head_seen = 0
            received = self._received = _without_empty_lines(received)
            if not received:
                return False
        seen = self._head_seen
        end = received.find(b"\r\n\r\n", seen - 3 if seen > 3 else 0)
        if end < 0:
            self._wait_for_head(received)
            return False
        if end > self._head_limit_bytes:
            self._refuse(_too_long())
            return False
        end += 4
        if end == len(received):
            head, rest = received, b""
        else:
            head, rest = received[:end], received[end:]
        try:
            parsed, length, known, values = self._read_head(head)
        except GatewayError as error:
            self._refuse(error)
            return False
        self._received = b""
        self._head_began = False
        self._head_seen = 0
        self._begin_request(parsed, length, known, values, rest)
        return True

    def _begin_request(
        self,
        parsed: ParsedHead,
        length: int | None,
        known: CachedHead | None,
        values: Sequence[bytes],
        rest: bytes,
    ) -> None:
        """Send a request down the pipeline: its head has been read, and `rest` came after it."""
        if parsed.closes:
            self.last = True
        method = parsed.method
        response = CallerResponse(self, method == "HEAD", parsed.version_11)
        arrived = time.monotonic()
        self.due = NEVER
        if len(rest) == length:
            body = CallerRequestBody(self, length, rest)
        else:
            body = CallerRequestBody(self, length)
            if body.complete:
                self._received = rest
            elif rest:
                self._received = body.feed(rest)
            else:
                body.expected = parsed.expects
            if not body.complete:
                self.due = arrived + self.body_timeout_s
        exchange = Exchange(
            method,
            parsed.target,
            parsed.headers,
            self.peer,
            self._scheme,
            body,
            response,
            arrived,
            known,
            values,
            self._last_digest,
        )
        response.exchange = exchange
        self._body = body
        self._response = response
        self._busy = True
        self._server.requests_count += 1
        self._runner.start(self._server.pipeline(exchange))

    def _read_head(self, raw: bytes) -> tuple[ParsedHead, int | None, CachedHead | None, Sequence[bytes]]:
        """What a head says of its message, the length of the body, and as what the head is known."""
        heads = self._server.heads
        found = heads.lookup(self._known, self.peer, self._scheme, raw)
        if found is None:
            parsed = parsed_head_of(self._parser.parse(raw))
            self._known = heads.store(self.peer, self._scheme, raw, parsed)
            return parsed, parsed.length, self._known, ()
        known, values = found
        self._known = known
        return known.parsed, known.body_length(values), known, values

    def _wait_for_head(self, received: bytes) -> None:
        """Refuse at once what can never become a head; give the rest its time."""
        seen, self._head_seen = self._head_seen, len(received)
        if received != b"\r" and cannot_be_request_head(received, seen):  # that may become an empty line
            self._refuse(
                BadRequest("The request is not valid HTTP/1.1: each line of its head ends with CR LF.")
            )
        elif len(received) > self._head_limit_bytes:
            self._refuse(_too_long())
        elif not self._head_began:
            self._head_began = True
            self.due = time.monotonic() + self._server.head_timeout_s

    def _ended(self) -> None:
        """The pipeline is through with the request."""
        self._busy = False
        response, body = self._response, self._body
        self._response = self._body = None
        self.source = None
        if response is not None:
            if not self.recognized and response.exchange.authenticated:
                self._server.open.mark_authenticated(self)
            del response.exchange  # the two hold each other: apart, they need no garbage collector
        if self._idle_waiter is not None and not self._idle_waiter.done():
            self._idle_waiter.set_result(None)
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if response is None or not response.finished:
            transport.abort()  # nobody has answered, and nobody will
        elif self._tunnel is not None:
            self._tunnel = None
            transport.close()
        elif self.last or (body is not None and not body.complete):
            self.begin_lingering_close()
        else:
            open_ = self._server.open
            idle_s = open_.linger_s if open_.draining else self._server.keepalive_timeout_s
            self.due = time.monotonic() + idle_s
            if self._pauses:
                self.resume_reading(BODY)  # whatever held up the last request's body is over with it
            if self._received:
                self._take_requests()

    def closes_after_response(self) -> bool:
        """Whether the connection closes after the present response. The writer of the response's head asks this."""
        if self._body is not None and not self._body.complete:
            self.last = True  # the rest of the request is still to come, and would be taken for the next one
        elif (
            self._server.open.draining and not self._received
        ):  # else the next request is here, and has its answer
            self.last = True
        return self.last

    @property
    def busy(self) -> bool:
        return self._busy

    def open_tunnel(self, source: "RelayingConnection") -> None:
        self.last = True
        self.source = self._tunnel = source
        self.resume_reading(PIPELINE)  # what came early goes on now, and nobody else would resume
        enable_tcp_keepalive(self.transport)
        if self._received:
            self._received, early = b"", self._received
            source.upload(early)

    # -- the end

    def _refuse(self, error: GatewayError) -> None:
        """Answer what is no request, and close: nobody knows where the next one would begin."""
        request_id = new_trace_id()
        _log.warning("request %s cannot be parsed: %s", request_id, error.code)
        self._received = b""
        self.last = True
        self.write(render_refusal(error, request_id, self._server.date_line()))
        self.begin_lingering_close()

    def expire(self) -> None:
        """Close the overdue connection: its time `due` has come. A request under way is refused."""
        self.due = NEVER
        if self._busy:
            self._body_is_due()
        elif self._linger is not None:
            now = time.monotonic()
            if self.transport is not None and self._linger.caller_still_reads(self.transport, now):
                self.due = now + self.linger_s()
            else:
                self.abort()
        elif has_unread_bytes(self.transport):
            self.due = time.monotonic()  # a request is here that the loop has not brought yet
        elif self._received:
            self._server.open.count_turned_away(HALF_HEAD, "a caller took too long for a request's head")
            self.abort()
        else:
            if not self.recognized and not self._server.open.draining:
                self._server.open.count_turned_away(SILENT, "a caller opened a connection and sent nothing")
            self.close_when_idle()

    def _body_is_due(self) -> None:
        """Nothing of the body has come for long. Once an answer is under way, the request's deadline is bound enough."""
        body, response = self._body, self._response
        if body is None or body.complete or body.expected or response is None or response.started:
            return
        if (
            not self._pauses
        ):  # else it is not the caller who keeps us waiting; `resume_reading` gives new time
            body.fail(body_timeout_error())

    # -- the server's shutdown, as aiohttp's Server calls it

    def close_when_idle(self) -> None:
        """Close the connection once it is idle: now, or after the response. It accepts no further request."""
        self.last = True
        if not self._busy and self.transport is not None and self._linger is None:
            self.transport.close()

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109  (aiohttp's signature)
        self.close_when_idle()
        if self._busy:
            self._idle_waiter = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._idle_waiter}, timeout=timeout)
            self._runner.cancel()
        if self.transport is not None:
            self.transport.close()


def _without_empty_lines(received: bytes) -> bytes:
    for _ in range(8):
        if not received.startswith(b"\r\n"):
            break
        received = received[2:]
    return received


def _too_long() -> HeadersTooLarge:
    return HeadersTooLarge("The request's head is longer than this gateway accepts.")
