"""Match the lines of a message head against a head seen before.

It extracts the few values that vary, of a request's head or a response's.
"""

from collections.abc import Callable, Sequence
from operator import itemgetter
from struct import Struct
from typing import Any, Final

_CRLF: Final = b"\r\n"
_MAX_LAYOUTS: Final = 64

_Cut = Callable[[bytes], tuple[Any, ...]]


def byte_table(allowed: bytes) -> bytes:
    """A table of allowed bytes, for `bytes.translate`.

    It finds bytes that are not allowed. An allowed byte becomes 1 and any other 0: `0 in value.translate(table)` says
    whether there is one. It takes a quarter of what a regular expression takes for the same.
    """
    return bytes(byte in allowed for byte in range(256))


class LineMatcher:
    """Matches heads against a template of lines.

    Each line in `places` has a variable value at its end. `lines` are those of a head, with the empty ones
    at its end. A line in `places` is given up to its value, such as `b"Content-Length: "`.
    """

    __slots__ = ("_between", "_layouts", "_ordered")

    def __init__(self, lines: Sequence[bytes], places: Sequence[int]) -> None:
        between = []
        text = b""
        for place, line in enumerate(lines):
            text += line if not place else _CRLF + line
            if place in places:
                between.append(text)
                text = b""
        self._between = (*between, text)  # what stands before each value, and behind the last one
        order = [sorted(places).index(place) for place in places]
        self._ordered = itemgetter(*order) if order != sorted(order) else None  # None: as they stand
        # By the size of the whole: takes out what stands between, and the values, where they stood the last time.
        self._layouts: dict[int, tuple[_Cut, _Cut]] = {}

    def match(self, raw: bytes) -> tuple[bytes, ...] | None:
        """Match a head; return its variable values.

        They are in the order of `places`; None where `raw` differs in anything else.
        """
        layout = self._layouts.get(len(raw))
        if layout is not None:
            between, values = layout
            if between(raw) == self._between:
                found = values(raw)
                return found if self._ordered is None else self._ordered(found)
        return self._search(raw)

    def _search(self, raw: bytes) -> tuple[bytes, ...] | None:
        """As `values`; remembers where they stand."""
        between, values = "", ""
        at = 0
        for text in self._between[:-1]:
            begin = at + len(text)
            at = raw.find(_CRLF, begin)
            if at < 0:
                return None
            between += f"{len(text)}s{at - begin}x"
            values += f"{len(text)}x{at - begin}s"
        rest = len(raw) - at
        layout = Struct(f"{between}{rest}s").unpack, Struct(f"{values}{rest}x").unpack
        if layout[0](raw) != self._between:
            return None
        if len(self._layouts) >= _MAX_LAYOUTS:
            self._layouts.clear()
        self._layouts[len(raw)] = layout
        found = layout[1](raw)
        return found if self._ordered is None else self._ordered(found)
