"""Parse the head of a backend's HTTP response.

It is parsed strictly, and its fields are prepared for the caller. aiohttp's own response parser forgives on purpose
what broken web servers send (bare line feeds, folded fields, spaces in the wrong place). A gateway must not: what it
forgives, the next program on the way may read differently.
"""

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from gateway.core.head_line_matcher import LineMatcher, byte_table
from gateway.core.header_classification import RESPONSE_FIELDS_DROPPED, parse_token_list
from gateway.core.location_and_link_rewriting import ADDRESS_FIELDS

HEAD_LIMIT_BYTES: Final = 64 * 1024

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t \x21-\x7e\x80-\xff]*))?")
_FIELD: Final = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t \x21-\x7e\x80-\xff]*)"
)  # linear, on any input

_VALUES: Final = byte_table(b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100)))

# What a field line means. A line, once read, is known by its bytes: backends send few different ones.
_KEPT: Final = 0
_DROPPED: Final = 1
_LENGTH: Final = 2
_CODING: Final = 3
_CONNECTION: Final = 4
_TIMING: Final = 5
_DATE: Final = 6
_ADDRESS: Final = 7

_KINDS: Final[dict[bytes, int]] = {
    **dict.fromkeys(RESPONSE_FIELDS_DROPPED, _DROPPED),
    b"content-length": _LENGTH,
    b"transfer-encoding": _CODING,
    b"connection": _CONNECTION,
    b"server-timing": _TIMING,
    b"date": _DATE,
    **dict.fromkeys(ADDRESS_FIELDS, _ADDRESS),
}
# What differs between two answers of the same backend to the same kind of request.
_VARIABLE: Final = frozenset({_LENGTH, _TIMING, _DATE})
_MAX_KNOWN_BYTES: Final = 4096  # of a head that is remembered
_MAX_LENGTH_DIGITS: Final = 15
# Members of Connection that name no field.
_NOT_NOMINATED: Final = frozenset({b"close", b"keep-alive", b"upgrade", b""})
_known_lines: dict[bytes, tuple[int, bytes]] = {}
_known_status_lines: dict[bytes, tuple[int, int, bytes]] = {}
_KNOWN_LIMIT: Final = 4096
_KNOWN_LINE_BYTES: Final = 128


class ResponseHead(msgspec.Struct, eq=False):
    """A parsed response head. It has the status, the framing, and the field lines for the caller."""

    status: int
    reason: bytes
    keep_alive: bool
    fields: bytes = b""  # the lines that go on, each with its CRLF
    length: int = -1  # -1: not given
    chunked: bool = False
    timing: bytes | None = None  # the value of Server-Timing
    dated: bool = False
    addresses: list[tuple[bytes, bytes]] | None = None  # fields that callers must not get as they are


class CachingResponseHeadParser:
    """Parses the response heads of one connection. Of one like the last, it parses only date, length and timing.

    A backend sends nearly the same head each time: where one differs from the last only in date, length and timing, only
    those fields are parsed.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: _KnownHead | None = None

    def __call__(self, data: bytes, end: int) -> ResponseHead:
        """Parse the whole head that the empty line at `end` of `data` ends; ValueError says what is wrong."""
        if self._known is not None:
            head = self._known.read(data[: end + 2])
            if head is not None:
                return head
        lines = data[:end].split(b"\r\n")
        head = _parse(lines)
        self._known = _known_head(head, lines)
        return head


class _KnownHead:
    """A head that was read."""

    __slots__ = (
        "_after",
        "_before",
        "_date",
        "_last_length",
        "_last_text",
        "_length",
        "_like",
        "_template",
        "_timing",
    )

    def __init__(
        self, like: ResponseHead, template: LineMatcher, kinds: Sequence[int], before: bytes, after: bytes
    ) -> None:
        self._like = like
        self._template = template
        # Which of the template's values they are; -1: there is none.
        self._date, self._length, self._timing = (
            kinds.index(kind) if kind in kinds else -1 for kind in (_DATE, _LENGTH, _TIMING)
        )
        self._before = before  # what goes on, up to the value of Date
        self._after = after
        self._last_text, self._last_length = b"", -1  # of Content-Length

    def read(self, raw: bytes) -> ResponseHead | None:
        """The head that `raw` is; None where it is another one, or not valid."""
        values = self._template.match(raw)
        if values is None or 0 in b"".join(values).translate(_VALUES):
            return None
        like = self._like
        length = -1
        if self._length >= 0:
            text = values[self._length]
            if text != self._last_text:
                if not text.isdigit() or len(text) > _MAX_LENGTH_DIGITS:
                    return None
                self._last_text, self._last_length = text, int(text)
            length = self._last_length
        fields = self._before if self._date < 0 else self._before + values[self._date] + self._after
        timing = values[self._timing].strip(b" \t") if self._timing >= 0 else None
        return ResponseHead(
            like.status, like.reason, like.keep_alive, fields, length, like.chunked, timing, like.dated
        )


def _known_head(head: ResponseHead, lines: list[bytes]) -> _KnownHead | None:
    """What the next head is compared with; None where it would differ in more, or must not be remembered."""
    read = [_known_lines.get(line) or _read_line(line) for line in lines[1:]]
    kinds = [kind for kind, _ in read if kind in _VARIABLE]
    if len(kinds) != len(set(kinds)) or head.addresses is not None or sum(map(len, lines)) > _MAX_KNOWN_BYTES:
        return None
    begins = list(lines)
    places = []
    before, after = b"", b""  # the value of Date
    for place, (line, (kind, value)) in enumerate(zip(lines[1:], read, strict=True), 1):
        if (kind == _CONNECTION and not parse_token_list(value) <= _NOT_NOMINATED) or line[
            :11
        ].lower() == b"set-cookie:":
            return None
        if kind in _VARIABLE:
            name = line.partition(b":")[0]
            begins[place] = name + b": " if line[len(name) + 1 :].startswith(b" ") else name + b":"
            places.append(place)
        if kind == _DATE:
            before, after = after + begins[place], b"\r\n"
        elif kind == _KEPT:
            after += line + b"\r\n"
    if _DATE not in kinds:
        before = after
    return _KnownHead(head, LineMatcher([*begins, b""], places), kinds, before, after)


def parse_response_head(raw: bytes) -> ResponseHead:
    """Parse a response head. It is given without the empty line that ends it. ValueError says what is wrong."""
    return _parse(raw.split(b"\r\n"))


def _parse(lines: list[bytes]) -> ResponseHead:  # noqa: C901, PLR0912  (one branch for each thing a line can be)
    first = lines[0]
    known = _known_status_lines.get(first)
    if known is None:
        known = _read_status_line(first)
    minor, status, reason = known
    head = ResponseHead(status, reason, minor == 1)
    kept: list[bytes] = []
    nominated: bytes | None = None
    for i in range(1, len(lines)):
        line = lines[i]
        kind_value = _known_lines.get(line)
        if kind_value is None:
            kind_value = _read_line(line)
        kind = kind_value[0]
        if kind == _KEPT:
            kept.append(line)
        elif kind == _LENGTH:
            if head.length >= 0:
                raise ValueError("the length stands twice")
            head.length = int(kind_value[1])
        elif kind == _TIMING:
            value = kind_value[1]
            head.timing = value if head.timing is None else head.timing + b", " + value
        elif kind == _DATE:
            head.dated = True
            kept.append(line)
        elif kind == _CODING:
            if head.chunked or minor == 0:
                raise ValueError("this transfer coding cannot be")
            head.chunked = True
        elif kind == _CONNECTION:
            value = kind_value[1]
            nominated = value if nominated is None else nominated + b"," + value
        elif kind == _ADDRESS:
            head.addresses = [*(head.addresses or ()), (line.partition(b":")[0], kind_value[1])]
    if head.chunked and head.length >= 0:
        raise ValueError("both a length and a transfer coding")
    if nominated is not None:
        kept = _mind_connection(head, nominated, kept)
    if kept:
        head.fields = b"\r\n".join(kept) + b"\r\n"
    return head


def _read_status_line(line: bytes) -> tuple[int, int, bytes]:
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise ValueError("not a status line")
    known = (int(match[1]), int(match[2]), match[3] or b"")
    if len(_known_status_lines) < _KNOWN_LIMIT and len(line) <= _KNOWN_LINE_BYTES:
        _known_status_lines[line] = known
    return known


def _read_line(line: bytes) -> tuple[int, bytes]:
    match = _FIELD.fullmatch(line)
    if match is None:
        raise ValueError("not a header field")
    name, value = match[1].lower(), match[2].strip(b" \t")
    kind = _KINDS.get(name, _KEPT)
    if kind == _KEPT and b"_" in name and _KINDS.get(name.replace(b"_", b"-")) in {_LENGTH, _CODING}:
        raise ValueError("a field that could be taken for one that frames")
    if kind == _LENGTH:
        if not value.isdigit() or len(value) > _MAX_LENGTH_DIGITS:
            raise ValueError("not a length")
    elif kind == _CODING and value.lower() != b"chunked":
        raise ValueError("an unknown transfer coding")
    if kind != _TIMING and len(line) <= _KNOWN_LINE_BYTES and name != b"set-cookie":
        if len(_known_lines) >= _KNOWN_LIMIT:
            _known_lines.clear()
        _known_lines[line] = (kind, value)
    return kind, value


def _mind_connection(head: ResponseHead, value: bytes, lines: list[bytes]) -> list[bytes]:
    """`lines` without those that Connection names (RFC 9110 section 7.6.1); and learn whether the connection lives on."""
    named = parse_token_list(value)
    if b"close" in named:
        head.keep_alive = False
    elif b"keep-alive" in named:
        head.keep_alive = True
    nominated = named - _NOT_NOMINATED
    if b"date" in nominated:
        head.dated = False
    if b"server-timing" in nominated:
        head.timing = None
    if head.addresses is not None:
        head.addresses = [field for field in head.addresses if field[0].lower() not in nominated]
    if not nominated:
        return lines
    return [line for line in lines if line.partition(b":")[0].lower() not in nominated]
