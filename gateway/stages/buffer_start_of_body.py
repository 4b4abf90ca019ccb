"""Buffer the start of the request body.

A small body is buffered whole. This happens before the request takes a concurrency permit.
"""

import time

from gateway.core.errors import Overloaded
from gateway.core.exchange import Exchange


class BufferStartOfBody:
    """Buffer the start of the body.

    It waits until the body is complete or `BUFFERED_BODY_BYTES` have arrived. At most `max_waiting_requests` requests wait
    at once.
    """

    def __init__(self, *, max_waiting_requests: int) -> None:
        self._max_waiting_requests = max_waiting_requests
        self.waiting = 0

    async def __call__(self, exchange: Exchange) -> None:
        """Wait. Raises RequestTimeout or Overloaded. The rest of a larger body is streamed later."""
        body = exchange.body
        if self.waiting >= self._max_waiting_requests:
            raise Overloaded("The gateway is receiving as many requests as it can. Try again in a moment.")
        self.waiting += 1
        began = time.monotonic()
        try:
            await body.buffer_start(exchange.deadline)
        finally:
            self.waiting -= 1
            exchange.buffering_s = time.monotonic() - began
