"""How long a test waits for what must come: a time for a quiet machine, times how much slower this one is just now.

Such a limit only ends a test that hangs. It decides nothing about what is right, so a slow machine gets more of it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Final, TypeVar

Found = TypeVar("Found")

# What the work below takes on one quiet core of a machine of 2024, in seconds.
_USUAL_S: Final = 0.1
_ROUNDS: Final = 180
_LARGEST: Final = 20.0


@cache
def slowness() -> float:
    """1.0 on a quiet machine of today, 8.0 where it takes eight times as long; measured once in each process."""
    began = time.monotonic()
    for _ in range(_ROUNDS):
        sum(number * number % 7 for number in range(16_000))
    return min(_LARGEST, max(1.0, (time.monotonic() - began) / _USUAL_S))


def patience(seconds: float) -> float:
    """A limit for a wait, in seconds: `seconds` on a quiet machine, and more on one that is slow or busy."""
    return seconds * slowness()


async def eventually(look: Callable[[], Awaitable[Found | None]], *, within_s: float = 30.0) -> Found:
    """Look again and again, with a pause, until there is something; TimeoutError where nothing comes.

    For what another thread or process does, and tells nobody. Within one event loop, wait for the event itself.
    """
    async with asyncio.timeout(patience(within_s)):
        while (found := await look()) is None:
            await asyncio.sleep(0.01)
        return found
