"""How long a test waits for what must come: a time for a quiet machine, times how much slower this one is just now.

Such a limit only ends a test that hangs. It decides nothing about what is right, so a slow machine gets more of it.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

Found = TypeVar("Found")

# What the work below takes on one quiet core of a machine of 2024, in seconds.
_USUAL_S: Final = 0.1
_ROUNDS: Final = 180
_LARGEST: Final = 20.0
_MEASURED_EVERY_S: Final = 20.0


class _Machine:
    """1.0 on a quiet machine of today, 8.0 where it takes eight times as long.

    The most that was ever measured here, since a limit that is too long costs nothing.
    """

    def __init__(self) -> None:
        self.slowness = 1.0
        self._measured_at = -math.inf

    def measure(self) -> None:
        if time.monotonic() < self._measured_at + _MEASURED_EVERY_S:
            return
        began = time.monotonic()
        for _ in range(_ROUNDS):
            sum(number * number % 7 for number in range(16_000))
        self._measured_at = time.monotonic()
        self.slowness = min(_LARGEST, max(self.slowness, (self._measured_at - began) / _USUAL_S))


_machine: Final = _Machine()


def measure() -> None:
    """Measure the machine, unless that was done just before. Blocks for a moment, so not for the midst of a test."""
    _machine.measure()


def patience(seconds: float) -> float:
    """A limit for a wait, in seconds: `seconds` on a quiet machine, and more on one that is slow or busy."""
    return seconds * _machine.slowness


async def eventually(look: Callable[[], Awaitable[Found | None]], *, within_s: float = 30.0) -> Found:
    """Look again and again, with a pause, until there is something; TimeoutError where nothing comes.

    For what another thread or process does, and tells nobody. Within one event loop, wait for the event itself.
    """
    async with asyncio.timeout(patience(within_s)):
        while (found := await look()) is None:
            await asyncio.sleep(0.01)
        return found


measure()
