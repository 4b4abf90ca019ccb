"""Escape unprintable characters in text before it is shown.

They are control, bidirectional and line-breaking characters. What somebody wrote into a registry, a header or a log
could otherwise begin a line of its own, turn the order of what stands around it (Unicode TR #36, "bidirectional text
spoofing"), move a terminal's cursor, or not be seen at all.
"""

import re
from typing import Final

_ALL_PLAIN: Final = re.compile(r"[ -~]*")
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7e]+")
# Letters, marks and a symbol by their category, and nothing to see: what Unicode's property Default_Ignorable_Code_Point
# has of such (fillers, joiners, variation selectors), and the blank Braille pattern.
_BLANK: Final = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
)
_SHORT: Final = {"\n": "\\n", "\t": "\\t"}


def printable(text: str) -> str:
    r"""Escape the unprintable characters of a text.

    They are every control, format and line-breaking character, such as `\n`, `\x1b` and `\u202e`.
    """
    if _ALL_PLAIN.fullmatch(text):
        return text
    return "".join(char if _shows(char) else _escape(char) for char in text)


def printable_own_lines(text: str) -> str:
    """Escape the unprintable characters of a text whose lines we put together: its line feeds stay.

    A text that somebody else wrote goes through `printable`: its line feed could begin a line of its own.
    """
    return "\n".join(map(printable, text.split("\n")))


def printable_json(text: str) -> str:
    """The same JSON with unprintable characters in its strings as escapes."""
    if text.isascii() and "\x7f" not in text:
        return text
    return _NOT_ASCII.sub(_escape_in_json, text)


def _shows(char: str) -> bool:
    if char.isprintable():
        return char not in _BLANK
    return char.isspace() and char not in "\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\u2028\u2029"


def _escape(char: str) -> str:
    code = ord(char)
    if char in _SHORT:
        return _SHORT[char]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _escape_in_json(found: re.Match[str]) -> str:
    return "".join(char if _shows(char) else _json_escape(char) for char in found[0])


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{int.from_bytes(units[at : at + 2], 'big'):04x}" for at in range(0, len(units), 2))
