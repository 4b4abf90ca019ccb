"""Wait for the rest of a small body, before the request takes a place that others could have."""

import time

from gateway.core.errors import Overloaded
from gateway.core.exchange import BUFFERED_BODY_BYTES, Exchange


class Buffer:
    """At most `limit` requests wait here: each holds a part of its body, and none counts as in flight yet."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self.waiting = 0

    async def __call__(self, exchange: Exchange) -> None:
        """Raises RequestTimeout or Overloaded. A large body, and one of unknown length, is not waited for: it flows."""
        body = exchange.body
        if body.length is None or body.length > BUFFERED_BODY_BYTES:
            return
        if self.waiting >= self._limit:
            raise Overloaded(
                "The gateway waits for as many requests to arrive as it can. Try again in a moment."
            )
        self.waiting += 1
        began = time.monotonic()
        try:
            await body.buffer(exchange.deadline)
        finally:
            self.waiting -= 1
            exchange.buffering_s = time.monotonic() - began
