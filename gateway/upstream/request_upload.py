"""Sends the caller's request body to the backend.

It is the sending half of a backend connection, and also sends what flows into a tunnel.
"""

import asyncio
import time
from typing import TYPE_CHECKING, Final, cast

from gateway.core.chunked import encode_chunk, encode_last_chunk
from gateway.core.exchange import Attempt, Exchange

if TYPE_CHECKING:
    from gateway.upstream.base import OwningPool, PipedBody

NEVER: Final = float("inf")

# What may come next.
NOTHING: Final = 0  # no request is under way
HEAD: Final = 1
LENGTH: Final = 2
CHUNKS: Final = 3
UNTIL_CLOSE: Final = 4
TUNNEL: Final = 5


class RequestUpload(asyncio.Protocol):
    """Sends a request's body to the backend.

    It is the sending half of a `BackendConnection`, with back-pressure towards the caller.
    """

    __slots__ = (
        "_attempt",
        "_body",
        "_chunked_upload",
        "_exchange",
        "_sent_trailers",
        "_state",
        "deadline",
        "pool",
        "transport",
    )

    def __init__(self, pool: "OwningPool") -> None:
        self.pool = pool
        self.transport: asyncio.Transport | None = None
        self.deadline = NEVER
        self._state = NOTHING
        self._exchange: Exchange
        self._attempt: Attempt
        self._body: PipedBody | None = None  # the caller's, as long as it flows through here
        self._chunked_upload = False
        self._sent_trailers = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    @property
    def usable(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    def send_body(self, body: "PipedBody", *, chunked: bool, limit_bytes: int) -> None:
        """Send the body to the backend as it arrives.

        It goes in chunks if `chunked`. Beyond `limit_bytes`, the request fails.
        """
        self._body = body
        self._chunked_upload = chunked
        body.pipe_to(self, limit_bytes)

    def upload(self, piece: bytes) -> None:
        transport = self.transport
        if self._state == TUNNEL:
            self.deadline = time.monotonic() + self.pool.tunnel_idle_s
        self._exchange.bytes_in += len(piece)
        if transport is not None:
            transport.write(encode_chunk(piece) if self._chunked_upload else piece)

    def upload_end(self, trailers: bytes) -> None:
        self._body = None
        self._attempt.sent = time.monotonic()
        if self._chunked_upload:
            self._chunked_upload = False
            self._sent_trailers = bool(trailers)
            if self.transport is not None:
                self.transport.write(encode_last_chunk(trailers))

    def upload_failed(self, error: BaseException) -> None:
        self._body = None
        self._fail(error)

    def pause_writing(self) -> None:
        if self._body is not None:
            self._body.pause()
        elif self._state == TUNNEL:
            self._exchange.body.pause()  # type: ignore[attr-defined]

    def resume_writing(self) -> None:
        if self._body is not None:
            self._body.resume()
        elif self._state == TUNNEL:
            self._exchange.body.resume()  # type: ignore[attr-defined]

    def _fail(self, error: BaseException, cause: BaseException | None = None) -> None:
        """End the request with `error`: the caller's body cannot be read any more."""
        raise NotImplementedError
