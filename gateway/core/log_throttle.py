"""Throttle log warnings of the same kind.

This is for what may happen thousands of times a second: one line in a while, with a count of the rest.
"""

import logging
import time
from collections.abc import Callable
from typing import Final

_EVERY_S: Final = 30.0


class LogThrottle:
    """Logs at most one warning in `every_s` seconds for each kind. It counts the rest."""

    def __init__(
        self, log: logging.Logger, *, every_s: float = _EVERY_S, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._every_s = every_s
        self._now = now
        self._last: dict[str, float] = {}
        self._held_back: dict[str, int] = {}

    def warning(self, kind: str, text: str, *arguments: object) -> None:
        """Log `text % arguments` unless this `kind` was logged a moment ago. There must be few kinds: each is kept for good."""
        now = self._now()
        last = self._last.get(kind)
        if last is not None and now - last < self._every_s:
            self._held_back[kind] = self._held_back.get(kind, 0) + 1
            return
        self._last[kind] = now
        more = self._held_back.pop(kind, 0)
        if more:
            text += f"; {more} more since the last line about it"
        self._log.warning(text, *arguments)
