"""NEEDS_WAIT: the sentinel that a function returns where it would have to wait."""

from enum import Enum
from typing import Final, Literal


class _NeedsWait(Enum):
    NEEDS_WAIT = "later"


NEEDS_WAIT: Final = _NeedsWait.NEEDS_WAIT
NeedsWait = Literal[_NeedsWait.NEEDS_WAIT]
