"""Find a name that stands twice in one object of a JSON text: a parser keeps the last value and says nothing.

Each name and each text is between two quotation marks. A value that was parsed from a text has fewer of them than the text
where, and only where, a name stood twice. To count both is far cheaper than to parse with a parser that looks at names.
"""

import json
from collections.abc import Iterable
from typing import Any, Final

import numpy as np

_QUOTE: Final = ord('"')
_LARGE_BYTES: Final = 4_096  # from here on NumPy counts faster than bytes.count()
_PIECE_BYTES: Final = 1 << 20
_NAMED_BYTES: Final = 256 * 1024  # in a longer text the name is not looked for


def strings_in_text(content: bytes) -> int:
    """How many strings, names among them, a JSON text has. It must be JSON."""
    quotes = _count(content)
    if b"\\" in content:
        escaped = content.replace(b"\\\\", b"") if b"\\\\" in content else content
        quotes -= escaped.count(b'\\"')
    return quotes // 2


def _count(content: bytes) -> int:
    if len(content) < _LARGE_BYTES:
        return content.count(b'"')
    values = np.frombuffer(content, np.uint8)
    pieces = range(0, len(values), _PIECE_BYTES)
    return sum(int(np.count_nonzero(values[at : at + _PIECE_BYTES] == _QUOTE)) for at in pieces)


def strings_in(value: Any) -> int:
    """How many strings, names among them, a JSON text has that this value is read from without a loss."""
    found = 0
    left = [value]
    while left:
        item = left.pop()
        kind = type(item)
        if kind is str:
            found += 1
        elif kind is dict:
            found += len(item)
            left.extend(item.values())
        elif kind is list:
            found += _in_list(item, left)
    return found


def _in_list(items: list[Any], left: list[Any]) -> int:
    """The texts right in it; what may hold more is added to `left`."""
    kinds = set(map(type, items))
    if kinds & {dict, list}:
        left.extend(items)
        return 0
    return sum(type(item) is str for item in items) if str in kinds else 0


def repeated_name(content: bytes) -> str | None:
    """The first name that stands twice in one object; None where there is none, or the text is too long to look for it."""
    if len(content) > _NAMED_BYTES:
        return None
    found: list[str] = []

    def look(pairs: Iterable[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                found.append(name)
            seen.add(name)

    try:
        json.loads(content, object_pairs_hook=look, parse_int=str, parse_float=str)
    except RecursionError:
        return None
    return found[0] if found else None
