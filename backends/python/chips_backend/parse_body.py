"""Parse a request's body as JSON. A large one is parsed in pieces, so that other threads get their turn in between."""

import gc
import re
from typing import Any, Final
from uuid import uuid4

import msgspec

from chips_backend.decode_instances import shown
from chips_backend.duplicate_names import repeated_name, strings_in, strings_in_text
from chips_backend.problem_details import Problem, malformed_json

LARGE_BYTES: Final = 256 * 1024  # from here on not on the event loop
MOST_AT_ONCE: Final = 4 * 1024 * 1024  # of JSON are parsed in one go, in about 6 ms
_PIECE_BYTES: Final = 64 * 1024
_PIECE_ITEMS: Final = 5_000
_TRIES: Final = 8
_LONG_ARRAY = re.compile(rb'"(?:instances|data)"\s*:\s*\[')
_AFTER_ITEM = re.compile(rb"[\]}]\s*,|,")
_AFTER_ROW = re.compile(rb"[\]}]\s*,")
_ENDED = re.compile(r"trailing characters \(byte (\d+)\)")


def parse(content: bytes) -> Any:
    """Parse a body of any size. A Problem says where it is not JSON, or which name stands twice in one object."""
    value = parse_json(content) if len(content) <= LARGE_BYTES else parse_large(content)
    if strings_in(value) != strings_in_text(content):
        name = repeated_name(content)
        which = f"the name {shown(name)}" if name is not None else "a name"
        raise malformed_json(f"{which} stands twice in one object, and nobody knows which value counts")
    return value


def parse_json(content: bytes) -> Any:
    """Parse a body; a Problem says at which line and column it is not JSON, and what to send instead."""
    try:
        return msgspec.json.decode(content)
    except UnicodeDecodeError:
        raise malformed_json(f"the body is not UTF-8: {_place(content, _not_utf8(content))}") from None
    except msgspec.DecodeError as error:
        raise _malformed(content, str(error)) from None
    except RecursionError:
        raise malformed_json("the body is nested too deeply") from None


def _not_utf8(content: bytes) -> int:
    """The parser counts from the beginning of a string; the caller's editor from that of the body."""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return error.start
    return 0


def _malformed(content: bytes, error: str) -> Problem:
    what, _, at = error.removeprefix("JSON is malformed: ").rpartition(" (byte ")
    if not content.strip():
        return malformed_json('the body is empty: send JSON, such as {"instances": [...]}')
    if content[:3] == b"\xef\xbb\xbf":
        return malformed_json("the body begins with a byte order mark: send UTF-8 without it")
    if content[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        return malformed_json("the body is UTF-16: send UTF-8")
    if not what:
        if "out of range" in error:
            return malformed_json(
                f"the body is not JSON: {error[:1].lower()}{error[1:]}; send null for a missing value"
            )
        return malformed_json(f"the body is not JSON: {error[:1].lower()}{error[1:]}")
    offset = int(at.rstrip(")"))
    if what.startswith(("trailing", "invalid escape")):  # there it counts from 1
        offset -= 1
    advice = ""
    if re.match(rb"-?(?:NaN|Infinity|nan|inf|Inf)", content[max(0, offset - 1) : offset + 9].lstrip(b"[ ,:")):
        advice = "; JSON has no NaN and no Infinity: send null for a missing value"
    return malformed_json(f"the body is not JSON: {what} at {_place(content, offset)}{advice}")


def _place(content: bytes, offset: int) -> str:
    line = content.count(b"\n", 0, offset) + 1
    column = offset - (content.rfind(b"\n", 0, offset) + 1) + 1
    return f"line {line}, column {column}"


def parse_large(content: bytes) -> Any:
    """As `parse_json`, for a thread next to the event loop.

    The parser holds the interpreter for as long as one call takes, 0.4 s for 31 MiB. So the long arrays (`instances`, `data`)
    are cut at their commas and parsed a piece at a time. A piece is right exactly where it is JSON by itself: a comma
    inside a string, an array or an object leaves something open. Whatever is not so simple is parsed whole.
    """
    try:
        return _in_pieces(content)
    except (_NotSimple, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return parse_json(content)


class Collector:
    """Pauses the garbage collector while large requests are under way. For the event loop's thread alone.

    It would go through millions of lists, again and again, and stop every thread meanwhile.
    """

    def __init__(self) -> None:
        self._paused = 0
        self._was_on = False

    def pause(self) -> None:
        if not self._paused:
            self._was_on = gc.isenabled()
            gc.disable()
        self._paused += 1

    def resume(self) -> None:
        self._paused -= 1
        if not self._paused and self._was_on:
            gc.enable()


def release(*lists: list[Any]) -> None:
    """Empty long lists a piece at a time: to let go of a million rows at once stops every thread for a tenth of a second."""
    for items in lists:
        while items:
            del items[-_PIECE_ITEMS:]


class _NotSimple(Exception):
    """It is left to the parser as it is."""


def _in_pieces(content: bytes) -> Any:
    mark = f"\0{uuid4().hex}:"
    arrays: list[list[Any]] = []
    skeleton: list[bytes] = []
    at = 0
    while len(content) - at > 2 * _PIECE_BYTES:
        found = _LONG_ARRAY.search(content, at, at + 2 * _PIECE_BYTES)
        if found is None:
            raise _NotSimple
        items, end = _long_array(content, found.end())
        skeleton += [content[at : found.end() - 1], msgspec.json.encode(f"{mark}{len(arrays)}")]
        arrays.append(items)
        at = end
    document = msgspec.json.decode(b"".join(skeleton) + content[at:])
    return _put_back(document, mark, arrays)


def _put_back(value: Any, mark: str, arrays: list[list[Any]]) -> Any:
    if isinstance(value, str) and value.startswith(mark):
        return arrays[int(value[len(mark) :])]
    if isinstance(value, dict):
        return {name: _put_back(item, mark, arrays) for name, item in value.items()}
    if isinstance(value, list):
        return [_put_back(item, mark, arrays) for item in value]
    return value


def _long_array(content: bytes, at: int) -> tuple[list[Any], int]:
    """The items of the array whose first one begins at `at`, and where the text goes on behind it."""
    items: list[Any] = []
    after = _AFTER_ROW
    while True:
        candidates = after.finditer(content, at + _PIECE_BYTES, at + 3 * _PIECE_BYTES)
        for _, candidate in zip(range(_TRIES), candidates, strict=False):
            piece = b"[" + content[at : candidate.end() - 1] + b"]"
            try:
                items += msgspec.json.decode(piece, type=list[Any])
            except msgspec.DecodeError as error:
                ended = _ENDED.search(str(error))
                if ended is None:
                    continue
                end = at - 2 + int(ended.group(1))  # counted from 1, behind the bracket put before it
                items += msgspec.json.decode(b"[" + content[at:end], type=list[Any])
                return items, end
            at = candidate.end()
            break
        else:
            if after is _AFTER_ITEM or len(content) - at <= 2 * _PIECE_BYTES:
                return _last_piece(content, at, items)
            after = _AFTER_ITEM


def _last_piece(content: bytes, at: int, items: list[Any]) -> tuple[list[Any], int]:
    rest = content[at : at + 4 * _PIECE_BYTES]
    try:
        msgspec.json.decode(b"[" + rest)
    except msgspec.DecodeError as error:
        ended = _ENDED.search(str(error))
        if ended is not None:
            end = at - 2 + int(ended.group(1))  # counted from 1, behind the bracket put before it
            return items + msgspec.json.decode(b"[" + content[at:end], type=list[Any]), end
    raise _NotSimple
