"""A cache of parsed request heads, by their bytes without the fields that vary by request.

A client sends nearly the same head each time. The fields that differ between two requests (the length, the trace, an id, and
the credentials, which must not stay in memory) are variable: their lines are taken out. Where the rest was parsed before for
the same peer, only the variable lines are parsed again. Nothing here judges a request: a head that is not plainly the same
goes to the parser, as each does the first time.
"""

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from gateway.core.head_line_matcher import LineMatcher, byte_table
from gateway.core.header_classification import (
    API_KEY,
    AUTHORIZATION,
    CLOUD_TRACE,
    CREDENTIALS,
    CRLF,
    REQUEST_ID,
    TRACEPARENT,
    TRACESTATE,
    RequestHead,
    position_in_read_fields,
)

_PARTICULAR: Final = frozenset({API_KEY, AUTHORIZATION, CLOUD_TRACE, REQUEST_ID, TRACEPARENT, TRACESTATE})
_LENGTH: Final = -2
_SECRET: Final = -3
# Names of fields that may hold a secret and are not known by their position: such heads are not remembered. Broad on
# purpose: a head that is parsed again costs some microseconds, and vendors invent names for keys all the time.
_SECRETS: Final = re.compile(
    rb"cookie|auth(?!enticated)|token|jwt|oidc|saml|assertion|secret|passw|passphrase|pwd|credential|key|sign|hmac"
    rb"|session|nonce|otp|ticket|bearer|[cx]srf|private|licen[cs]e"
)
_MAX_LENGTH_DIGITS: Final = 15
_VISIBLE: Final = byte_table(bytes(range(0x21, 0x7F)))  # what a particular value consists of
_MAX_BYTES: Final = 4096  # of a head that is remembered
_MAX_LINES: Final = 64
_MAX_TARGET: Final = 128
_MAX_HEADS: Final = 512


class ParsedHead(msgspec.Struct, frozen=True):
    """A parsed request head. It has method, target, version, header fields and framing."""

    method: str
    target: str
    version_11: bool
    closes: bool  # the connection ends with this request
    expects: bool  # 100-continue
    headers: tuple[tuple[bytes, bytes], ...]
    length: int | None  # of the body; None where it comes in chunks


class CachedHead:
    """A cached request head. It is parsed, and lacks the values of its variable fields."""

    __slots__ = ("_last_length", "_lead", "_template", "has_length", "head", "indexes", "parsed", "via")

    def __init__(
        self,
        parsed: ParsedHead,
        lines: list[bytes],
        places: Sequence[tuple[int, bytes]],
        indexes: tuple[int, ...],
    ) -> None:
        self.parsed = parsed
        self.indexes = indexes  # in RequestHead.read, of the particular fields
        self.has_length = len(places) > len(indexes)  # it stands last in `values`
        self.head: RequestHead | None = None  # as far as it is the same each time, once it has been read
        self.via = ""  # what the gateway was called in Via when it was read
        self._last_length = (b"", 0)
        self._template = LineMatcher(lines, [place for place, _ in places])
        self._lead: tuple[int, bytes] | None = None  # the scheme that stands before the credentials
        if AUTHORIZATION in indexes:
            at = indexes.index(AUTHORIZATION)
            self._lead = at, places[at][1].partition(b": ")[2]

    def match(self, raw: bytes) -> Sequence[bytes] | None:
        """Compare a raw head with this one, and return its variable values.

        None where it is another head. The values are at `indexes`, with Content-Length where there is one.
        """
        values = self._template.match(raw)
        if values is None or 0 in b"".join(values).translate(_VISIBLE):
            return None
        if self.has_length:
            length = values[-1]
            if length != self._last_length[0] and not (
                length.isdigit() and len(length) <= _MAX_LENGTH_DIGITS
            ):
                return None
        if self._lead is not None:
            at, scheme = self._lead
            if not values[at]:  # a scheme alone: the blank behind it would not be a part of the value
                return None
            return (*values[:at], scheme + values[at], *values[at + 1 :])
        return values

    def body_length(self, values: Sequence[bytes]) -> int | None:
        """The length of the body of the request with these `values`, in bytes. None where it comes in chunks."""
        if not self.has_length:
            return self.parsed.length
        text = values[-1]
        last, number = self._last_length
        if text != last:
            number = int(text)
            self._last_length = (text, number)
        return number


class HeadTemplateCache:
    """The cache of parsed request heads of one server, by their bytes without the fields that vary by request.

    It refuses nothing: a head longer than `longest_head_bytes`, or one that is not plainly the same, goes to the parser. When
    there are too many, all are removed.
    """

    def __init__(self, *, longest_head_bytes: int) -> None:
        self._longest_head_bytes = longest_head_bytes  # a head that is no longer has no field that is
        self._known: dict[tuple[str, str, tuple[bytes, ...]], CachedHead] = {}
        self._begins: dict[bytes, bytes] = {}  # of the particular lines, by their names

    def lookup(
        self, last: CachedHead | None, peer: str, scheme: str, raw: bytes
    ) -> tuple[CachedHead, Sequence[bytes]] | None:
        """The cached head that `raw` matches, and the variable values. None where there is none.

        `last`, the last head of the same connection, is tried first.
        """
        if len(raw) > self._longest_head_bytes:
            return None
        if last is not None and last.head is not None:
            values = last.match(raw)
            if values is not None:
                return last, values
        lines = raw.split(CRLF)
        if len(lines) > _MAX_LINES:
            return None
        known = self._find(peer, scheme, lines)
        if known is None or known.head is None:
            return None
        values = known.match(raw)
        return None if values is None else (known, values)

    def store(self, peer: str, scheme: str, raw: bytes, parsed: ParsedHead) -> CachedHead | None:
        """Cache a head that the parser accepted. Returns its entry, or None where it must not be cached."""
        lines = raw.split(CRLF)
        if len(lines) - 3 != len(parsed.headers):  # a folded field, or an empty line before the first
            return None
        if b"?" in lines[0] and _SECRETS.search(lines[0].lower()):  # ?api_key=…
            return None
        if len(parsed.target) > _MAX_TARGET or len(raw) > _MAX_BYTES or len(lines) > _MAX_LINES:
            return None
        same = list(lines)
        places: dict[int, tuple[int, bytes]] = {}
        for place in range(1, len(lines) - 2):
            name, _, value = lines[place].partition(b":")
            kind = _kind_of(name)
            if kind is None:
                continue
            begin = name + b": "
            if kind == AUTHORIZATION:
                words = value.split()
                begin += words[0] + b" " if len(words) == 2 else b"-"  # one word is no scheme, but a secret
            if kind == _SECRET or kind in places or not lines[place].startswith(begin):
                return None
            same[place] = begin
            places[kind] = place, begin
        if len(self._known) >= _MAX_HEADS:
            self._known.clear()
            self._begins.clear()
        length = places.pop(_LENGTH, None)
        ordered = [*places.values(), *([] if length is None else [length])]
        known = CachedHead(_without(parsed, ordered), same, ordered, tuple(places))
        self._begins.update((begin.partition(b":")[0], begin) for _, begin in ordered)
        self._known[peer, scheme, tuple(same)] = known
        return known

    def __len__(self) -> int:
        return len(self._known)

    def _find(self, peer: str, scheme: str, lines: list[bytes]) -> CachedHead | None:
        same = list(lines)
        begins = self._begins
        for place in range(1, len(lines) - 2):
            line = lines[place]
            begin = begins.get(line[: line.find(b":")])
            if begin is not None:
                same[place] = begin
        return self._known.get((peer, scheme, tuple(same)))


def _kind_of(name: bytes) -> int | None:
    """What is particular about the fields of this name: the position in `RequestHead.read`, or why there is none."""
    index = position_in_read_fields(name)
    if index in _PARTICULAR or index >= CREDENTIALS:
        return index
    lower = name.lower()
    if lower == b"content-length":
        return _LENGTH
    return _SECRET if index < 0 and _SECRETS.search(lower) else None


def _without(parsed: ParsedHead, places: Sequence[tuple[int, bytes]]) -> ParsedHead:
    """Nothing particular stays in memory."""
    taken = {place - 1 for place, _ in places}
    headers = tuple(field for i, field in enumerate(parsed.headers) if i not in taken)
    return msgspec.structs.replace(parsed, headers=headers)
