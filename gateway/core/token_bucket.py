"""A token bucket that limits how often something may happen. It limits this process alone.

It limits the reads of the registry that callers cause, and the requests that a shadow sends.
"""

import time
from collections.abc import Callable


class TokenBucket:
    """A token bucket that limits a rate. It holds `burst` tokens, and is refilled with `per_second` tokens a second."""

    def __init__(self, *, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._left = float(burst)
        self._counted_at = clock()

    def take(self) -> bool:
        """Take one token. False where none is left."""
        now = self._clock()
        self._left = min(self._burst, self._left + max(0.0, now - self._counted_at) * self._per_second)
        self._counted_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
