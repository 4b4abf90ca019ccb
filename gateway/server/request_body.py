"""The caller's request body as it arrives.

On the fast path it decodes the framing, buffers the beginning, and pipes the body to a backend with back-pressure.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from gateway.core.chunked import ChunkedDecoder
from gateway.core.errors import BadRequest, PayloadTooLarge, RequestTimeout
from gateway.core.exchange import BUFFERED_BODY_BYTES
from gateway.core.inline_wakeup_future import InlineWakeupFuture

if TYPE_CHECKING:
    from gateway.server.fast_path_interfaces import CallerTransport
    from gateway.upstream.base import RequestBodySink

INVALID_CHUNKS: Final = "The chunks of the request's body are not valid."
_HELD_LIMIT_BYTES: Final = 256 * 1024  # beyond this, reading stops until somebody takes what is held


class CallerRequestBody:
    """A caller's request body on the fast path.

    `feed` it what the caller sends, but for a `whole` body, which came with the head. `complete` is true once the end of
    the body has arrived.
    """

    __slots__ = (
        "_completion",
        "_connection",
        "_count",
        "_dechunker",
        "_held_bytes",
        "_left",
        "_limit_bytes",
        "_more",
        "_pieces",
        "_sink",
        "complete",
        "error",
        "expected",
        "length",
        "piping_started",
    )

    def __init__(self, connection: "CallerTransport", length: int | None, whole: bytes = b"") -> None:
        self._connection = connection
        self.length = length
        self.complete = length == len(whole)
        self.expected = False  # the caller waits to be asked for it
        self.error: BaseException | None = None  # why there is no more of it
        self.piping_started = False  # some of it may have been handed on, and is not here any more
        self._left = length or 0
        self._dechunker = ChunkedDecoder() if length is None else None
        self._pieces = [whole] if whole else []
        self._held_bytes = 0
        self._sink: RequestBodySink | None = None
        self._count: int  # of the bytes that the sink got
        self._limit_bytes: int
        self._completion: InlineWakeupFuture | None = None  # of the reader that waits for its end
        self._more: InlineWakeupFuture | None = None  # of the reader that reads it piece by piece

    # -- from the connection

    def feed(self, data: bytes) -> bytes:
        """Feed received bytes to this body. Returns those that lie beyond its end."""
        dechunker = self._dechunker
        self.expected = False  # it came unasked
        if dechunker is None:
            left = self._left - len(data)
            if left > 0:
                self._left = left
                self._take(data)
                return b""
            rest = b""
            if left < 0:
                rest = data[left:]
                data = data[:left]
            self._left = 0
            self.complete = True
            if self._sink is None and not self._pieces:  # all of it at once
                self._pieces.append(data)
                if self._completion is None and self._more is None:
                    return rest
            else:
                self._take(data)
            self._end(b"")
            return rest
        try:
            pieces = dechunker.feed(data)
        except ValueError:
            self.fail(BadRequest(INVALID_CHUNKS))
            return b""
        self.complete = dechunker.done
        if pieces:
            self._take(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if dechunker.done:
            self._end(dechunker.trailers)
        return dechunker.rest

    def fail(self, error: BaseException) -> None:
        """End the body with `error`. No more will come, and what has arrived must not be used."""
        self.complete = False
        self.error = error
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.upload_failed(error)
        self._wake(error)

    def _take(self, piece: bytes) -> None:
        if not piece:
            return
        sink = self._sink
        if sink is not None:
            self._count += len(piece)
            if self._count > self._limit_bytes:
                self._sink = None
                sink.upload_failed(PayloadTooLarge(self._limit_bytes))
                return
            sink.upload(piece)
            return
        self._pieces.append(piece)
        self._held_bytes += len(piece)
        if self._completion is not None and self._held_bytes >= BUFFERED_BODY_BYTES:
            self._completion.complete()
        if self._more is not None:
            self._more.complete()
        elif self._held_bytes > _HELD_LIMIT_BYTES and not self.complete:
            self._connection.pause_reading()

    def _end(self, trailers: bytes) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.upload_end(trailers)
        self._wake(None)

    def _wake(self, error: BaseException | None) -> None:
        if self._completion is not None:
            self._completion.complete(error)
        if self._more is not None:
            self._more.complete(error)

    # -- to its reader

    def buffered_body(self) -> bytes:
        pieces = self._pieces
        if len(pieces) == 1:
            return pieces[0]
        whole = b"".join(pieces)
        self._pieces = [whole]
        return whole

    async def buffer_start(self, deadline: float) -> None:
        if self.error is not None:
            raise self.error
        if self.complete or self._held_bytes >= BUFFERED_BODY_BYTES:
            return
        self._ask()
        completion = self._completion = InlineWakeupFuture()
        end = min(deadline, time.monotonic() + self._connection.body_timeout_s)
        alarm = asyncio.get_running_loop().call_at(end, completion.complete, body_timeout_error())
        try:
            await completion
        finally:
            alarm.cancel()
            self._completion = None

    async def read_small_body(self) -> bytes:
        return b"".join([chunk async for chunk in self.iter_chunks()])

    def iter_chunks(self) -> AsyncIterator[bytes]:
        return _Chunks(self)

    async def next_chunk(self) -> bytes | None:
        """The next bytes of the body. None at the end.

        They have arrived since the last call; if none have, it waits for the next.
        """
        self._ask()
        while True:
            if self.error is not None:
                raise self.error
            if self._pieces:
                self.piping_started = True
                chunk = self.buffered_body()
                self._pieces = []
                self._held_bytes = 0
                self._connection.resume_reading()
                return chunk
            if self.complete:
                return None
            self._more = InlineWakeupFuture()
            try:
                await self._more
            finally:
                self._more = None

    def pipe_to(self, sink: "RequestBodySink", limit_bytes: int) -> None:
        if self.error is not None:
            sink.upload_failed(self.error)
            return
        self._ask()
        self.piping_started = True
        self._sink = sink
        self._count, self._limit_bytes = 0, limit_bytes
        if self._pieces:
            pieces, self._pieces = self._pieces, []
            self._held_bytes = 0
            self._connection.resume_reading()  # first: the reader of the pieces may pause it again immediately
            for piece in pieces:
                self._take(piece)

    def stop_piping(self) -> None:
        self._sink = None

    def pause(self) -> None:
        self._connection.pause_reading()

    def resume(self) -> None:
        self._connection.resume_reading()

    def _ask(self) -> None:
        if self.expected and not self.complete:
            self.expected = False
            self._connection.send_continue()


def body_timeout_error() -> RequestTimeout:
    """The error for a caller that sends the body too slowly."""
    return RequestTimeout("The request's body did not arrive in time.")


class _Chunks:
    __slots__ = ("_body",)

    def __init__(self, body: CallerRequestBody) -> None:
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._body.next_chunk()
        if chunk is None:
            raise StopAsyncIteration
        return chunk
