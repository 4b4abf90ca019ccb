"""One HTTP/1.1 connection to a backend. It is a state machine that relays the response as it arrives."""

import time
from typing import TYPE_CHECKING, Final

from gateway.core.chunked import ChunkedDecoder
from gateway.core.errors import BrokenUpstreamResponse
from gateway.core.exchange import Attempt, Exchange
from gateway.core.inline_wakeup_future import InlineWakeupFuture
from gateway.core.location_and_link_rewriting import rewrite_urls
from gateway.tcp_keepalive import enable_tcp_keepalive
from gateway.upstream.hold_retryable_refusal import REFUSALS, hold_retryable_refusal
from gateway.upstream.request_upload import (
    CHUNKS,
    HEAD,
    LENGTH,
    NEVER,
    NOTHING,
    TUNNEL,
    UNTIL_CLOSE,
    RequestUpload,
)
from gateway.upstream.response_head import HEAD_LIMIT_BYTES, CachingResponseHeadParser, ResponseHead

if TYPE_CHECKING:
    from gateway.upstream.base import OwningPool, ResponseSink

_INTERIM_LIMIT: Final = 32
_LAST_WORDS_S: Final = 10.0


class BackendConnection(RequestUpload):
    """One HTTP/1.1 connection to a backend. It carries one request at a time and relays its response to the caller."""

    __slots__ = (
        "_completion",
        "_dechunker",
        "_head_only",
        "_interims",
        "_keep_alive",
        "_left",
        "_parse_head",
        "_paused",
        "_received",
        "_response",
        "_upgrading",
        "answer_began",
        "dialed",
        "idle_since",
        "uses",
    )

    def __init__(self, pool: "OwningPool", dialed: float | None = None) -> None:
        super().__init__(pool)
        self.dialed = dialed  # when TCP was there and TLS began
        self.uses = 0
        self.idle_since = 0.0
        self.answer_began = False  # at least one byte of the present answer has come
        self._completion: InlineWakeupFuture | None = None
        self._response: ResponseSink
        self._head_only = False
        self._upgrading = False
        self._interims = 0
        self._keep_alive = True
        self._left = 0
        self._dechunker: ChunkedDecoder | None = None
        self._parse_head = CachingResponseHeadParser()
        self._received = b""  # of a head that is not whole yet
        self._paused = False

    def is_serving(self, attempt: Attempt) -> bool:
        """Whether `attempt` is still under way on this connection."""
        return self._completion is not None and self._attempt is attempt

    # -- the request

    def start_exchange(
        self,
        exchange: Exchange,
        attempt: Attempt,
        request: bytes,
        upgrading: bool = False,  # noqa: FBT001, FBT002
    ) -> InlineWakeupFuture:
        """Send a request, whose response is then relayed. The future completes when all of that is relayed, or fails.

        `request` is the head, and the whole body unless `send_body` streams that.
        """
        self._exchange = exchange
        self._attempt = attempt
        self._response = exchange.response  # type: ignore[assignment]  # the server's own, which relays
        self._head_only = exchange.method == "HEAD"
        self._upgrading = upgrading
        self._interims = 0
        self.answer_began = False
        self._state = HEAD
        self.deadline = exchange.deadline
        self.uses += 1
        completion = self._completion = InlineWakeupFuture()
        transport = self.transport
        if transport is None:
            self._fail(BrokenUpstreamResponse("The backend closed the connection."))
        else:
            transport.write(request)
        return completion

    # -- the answer

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state == HEAD:
            self.answer_began = True
            if self._received:
                data = self._received + data
                self._received = b""
            self._read_head(data)
        elif state == LENGTH:
            left = self._left - len(data)
            if left > 0:
                self._left = left
                self._response.relay_piece(data)
                return
            if left < 0:  # more than was announced: whose answer would that be?
                data = data[:left]
                self._keep_alive = False
            self._response.relay_piece(data)
            self._response.relay_end(b"")
            self._finish()
        elif state == CHUNKS:
            self._read_chunks(data)
        elif state == UNTIL_CLOSE:
            self._response.relay_piece(data)
        elif state == TUNNEL:
            self.deadline = time.monotonic() + self.pool.tunnel_idle_s
            self._response.relay_piece(data)
        else:
            self.abort()  # an answer that nobody asked for

    def _next_head(self, data: bytes) -> ResponseHead | None:
        """The next head in `data`; None where it is not whole yet, or not valid."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            if len(data) > HEAD_LIMIT_BYTES:
                self._fail(BrokenUpstreamResponse("The head of the backend's answer is too long."))
            else:
                self._received = data
            return None
        try:
            head = self._parse_head.__call__(data, end)
        except ValueError as error:
            self._fail(BrokenUpstreamResponse("The backend's answer was not valid HTTP."), error)
            return None
        self._received = data[end + 4 :]
        return head

    def _read_head(self, data: bytes) -> None:
        head = self._next_head(data)
        while head is not None and head.status < 200:
            self._interim(head)
            if self._state != HEAD or not self._received:
                return
            head = self._next_head(self._received)
        if head is None:
            return
        status = head.status
        body, self._received = self._received, b""
        attempt, exchange, response = self._attempt, self._exchange, self._response
        attempt.answered = time.monotonic()
        attempt.status = status
        exchange.backend_server_timing = head.timing
        if status in REFUSALS and exchange.may_wait:
            self._response = response = hold_retryable_refusal(exchange, head, response)
        self._keep_alive = head.keep_alive
        if head.addresses is not None:
            head.fields += rewrite_urls(exchange, head.addresses)
        length = head.length
        if self._head_only or status in {204, 304}:
            # A 204 has no body, but one that announces it may come from a program that sends it.
            if body or (status == 204 and (length >= 0 or head.chunked)):
                self._keep_alive = False
            response.relay(head, b"", complete=True, source=self)
            self._finish()
        elif length >= 0:
            left = length - len(body)
            if left > 0:
                self._left = left
                self._state = LENGTH
                response.relay(head, body, complete=False, source=self)
                return
            if left < 0:
                body = body[:left]
                self._keep_alive = False
            response.relay(head, body, complete=True, source=self)
            self._finish()
        elif head.chunked:
            self._begin_chunks(head, body)
        else:
            self._state = UNTIL_CLOSE
            self._keep_alive = False
            response.relay(head, body, complete=False, source=self)

    def _interim(self, head: ResponseHead) -> None:
        self._interims += 1
        if self._interims > _INTERIM_LIMIT:
            self._fail(BrokenUpstreamResponse("The backend's answer did not end."))
        elif head.status == 101 and not self._upgrading:
            self._fail(BrokenUpstreamResponse("The backend switched protocols without being asked to."))
        elif head.status == 101:
            self._attempt.answered = time.monotonic()
            self._attempt.status = 101
            self._state = TUNNEL
            self._keep_alive = False
            self.deadline = time.monotonic() + self.pool.tunnel_idle_s
            enable_tcp_keepalive(self.transport)
            first, self._received = self._received, b""
            self._response.relay_tunnel(head, first, self)
        elif head.length > 0 or head.chunked:  # nor has this one a body
            self._fail(BrokenUpstreamResponse("The backend's answer was not valid HTTP."))
        elif head.status != 100:  # that one is answered by the gateway itself
            if head.addresses is not None:
                head.fields += rewrite_urls(self._exchange, head.addresses)
            self._response.relay_interim(head)

    def _begin_chunks(self, head: ResponseHead, body: bytes) -> None:
        dechunker = self._dechunker = ChunkedDecoder()
        try:
            pieces = dechunker.feed(body) if body else []
        except ValueError as error:
            self._fail(BrokenUpstreamResponse("The backend's answer was not valid HTTP."), error)
            return
        self._state = CHUNKS
        if dechunker.done:
            self._keep_alive = self._keep_alive and not dechunker.rest
            self._response.relay(
                head, b"".join(pieces), complete=True, source=self, trailers=dechunker.trailers
            )
            self._finish()
        else:
            self._response.relay(head, b"".join(pieces), complete=False, source=self)

    def _read_chunks(self, data: bytes) -> None:
        dechunker = self._dechunker
        assert dechunker is not None  # noqa: S101
        try:
            pieces = dechunker.feed(data)
        except ValueError as error:
            self._fail(BrokenUpstreamResponse("The backend broke off in the middle of its answer."), error)
            return
        if pieces:
            self._response.relay_piece(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if dechunker.done:
            self._keep_alive = self._keep_alive and not dechunker.rest
            self._response.relay_end(dechunker.trailers)
            self._finish()

    def pause(self) -> None:
        """Pause reading the response. The caller reads more slowly than the backend writes."""
        if not self._paused and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        if self._paused and self.transport is not None:
            self._paused = False
            self.transport.resume_reading()

    # -- the end

    def _finish(self) -> None:
        """The answer is complete: back to the pool, unless anything could still be on its way in either direction."""
        body, completion = self._body, self._completion
        self._state = NOTHING
        self._completion = self._dechunker = None
        self.deadline = NEVER
        if self._paused:
            self.resume()
        if body is not None:  # the backend answered before it had the whole request
            self._body = None
            body.stop_piping()
            self.abort()
        elif (
            self._keep_alive and not self._sent_trailers
        ):  # some servers take them for fields of the next request
            self.pool.release(self)
        else:
            self.pool.remove(self)
            if self.transport is not None:
                self.transport.close()
        if completion is not None:
            completion.complete()

    def _fail(self, error: BaseException, cause: BaseException | None = None) -> None:
        if cause is not None:
            error.__cause__ = cause
        completion = self._completion
        self.abort()
        if completion is not None:
            completion.complete(error)

    def close_tunnel(self) -> None:
        """Close the tunnel: the caller's connection is gone. Bytes already accepted still go out, if the backend reads them in time."""
        completion = self._completion
        self._state = NOTHING
        self._completion = None
        self.deadline = time.monotonic() + _LAST_WORDS_S
        if self.transport is not None:
            self.transport.close()
        if completion is not None:
            completion.complete()

    def expire(self, error: BaseException) -> None:
        """Fail the request with `error`, because its deadline has passed.

        A tunnel, which was silent for too long, ends without one.
        """
        if self._state == TUNNEL:  # nothing has gone through it for long: that is no failure
            self._response.relay_end(b"")
            self.close_tunnel()
        else:
            self._fail(error)

    def abort(self) -> None:
        """Abort the connection at once. What still arrives on it is discarded."""
        self._state = NOTHING
        self._completion = self._dechunker = None
        self.deadline = NEVER
        body, self._body = self._body, None
        if body is not None:
            body.stop_piping()
        self.pool.remove(self)
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        state, completion = self._state, self._completion
        self.pool.remove(self)
        if state == NOTHING:
            return
        if (state == UNTIL_CLOSE and exc is None) or state == TUNNEL:
            self._response.relay_end(b"")
            self._keep_alive = False
            self._finish()
            return
        self._state = NOTHING
        self._completion = None
        body, self._body = self._body, None
        if body is not None:
            body.stop_piping()
        error = BrokenUpstreamResponse(
            "The backend broke off in the middle of its answer."
            if self.answer_began
            else "The backend closed the connection before it answered."
        )
        error.__cause__ = exc
        if completion is not None:
            completion.complete(error)
