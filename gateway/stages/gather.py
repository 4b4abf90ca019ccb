"""Wait for the rest of a small body, before the request takes a place that others could have."""

import time

from gateway.core.exchange import HELD_BODY_BYTES, Exchange


class Gather:
    async def __call__(self, exchange: Exchange) -> None:
        """Raises RequestTimeout. A large body, and one of unknown length, is not waited for: it flows."""
        body = exchange.body
        if body.length is None or body.length > HELD_BODY_BYTES:
            return
        began = time.monotonic()
        try:
            await body.gather(exchange.deadline)
        finally:
            exchange.gathered_s = time.monotonic() - began
