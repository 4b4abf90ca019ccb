"""Lines that come again and again, the same but for a few values."""

from collections.abc import Sequence
from typing import Final

_CRLF: Final = b"\r\n"


class LineTemplate:
    """Recognizes lines by their bytes, and takes the values out that differ.

    `lines` are those of a head, empty ones at its end included. Each line at one of `places` is given as far as it stays
    the same, such as `b"Content-Length: "`; what follows there is a value.
    """

    __slots__ = ("_end", "_segments")

    def __init__(self, lines: Sequence[bytes], places: Sequence[int]) -> None:
        segments = []
        text = b""
        for place, line in enumerate(lines):
            text += line if not place else _CRLF + line
            if place in places:
                segments.append((text, len(text), places.index(place)))
                text = b""
        self._segments = tuple(
            segments
        )  # what stands before a value, its size, and which of `places` that is
        self._end = text  # what stands behind the last one

    def values(self, raw: bytes) -> list[bytes] | None:
        """The values in `raw`, in the order of `places`; None where it differs in anything else."""
        segments = self._segments
        values = [b""] * len(segments)
        at = 0
        for segment, size, index in segments:
            begin = at + size
            if raw[at:begin] != segment:
                return None
            at = raw.find(_CRLF, begin)
            values[index] = raw[begin:at]
        return values if raw[at:] == self._end else None
