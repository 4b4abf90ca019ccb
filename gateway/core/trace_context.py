"""The trace context of requests: parse it, continue it, write it.

It follows W3C Trace Context (traceparent, level 1), and reads Google's older X-Cloud-Trace-Context.
"""

import os
import re
from os import urandom
from typing import Final

import msgspec

_REST = rb"-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
# A traceparent of version 00 by its shape, which takes a third of what a regular expression takes: hexadecimal digits become 1.
_SHAPE: Final = bytes(45 if byte == 45 else byte in b"0123456789abcdef" for byte in range(256))
_TRACEPARENT: Final = b"-".join(b"\1" * size for size in (2, 32, 16, 2))
_SAMPLED_FLAGS: Final = frozenset(f"{flags:02x}" for flags in range(1, 256, 2))
_IDS_AT_ONCE: Final = 64
_LATER_TRACEPARENT = re.compile(b"(?!00|ff)[0-9a-f]{2}" + _REST + b"(?:-.*)?", re.DOTALL)
_ODD = frozenset("13579bdf")
_CLOUD_TRACE = re.compile(r"([0-9a-fA-F]{32})(?:/([0-9]{1,20}))?(?:;o=([0-9]))?")
_NO_TRACE = "0" * 32
_NO_PARENT: Final = "0" * 16
_SAMPLED = 0x01


class TraceContext(msgspec.Struct, frozen=True):
    """The trace context of one request.

    `span_id` is the request's own span, `parent_id` the caller's.
    """

    trace_id: str  # 32 lower-case hex digits
    parent_id: str | None  # the caller's span, 16 hex digits; None where the trace begins here
    span_id: str  # our span for the request, 16 hex digits: the parent of each attempt's
    sampled: bool  # what the caller asks for; the exchange has the decision

    def traceparent_line(self, span_id: str, sampled: bool) -> bytes:  # noqa: FBT001
        """The traceparent field line for a backend. The attempt's `span_id` is the parent of what the backend does."""
        return f"traceparent: 00-{self.trace_id}-{span_id}-{'01' if sampled else '00'}\r\n".encode("ascii")


_span_ids: Final[list[str]] = []
_trace_ids: Final[list[str]] = []


def new_span_id() -> str:
    """A random span id: 16 hexadecimal digits."""
    try:
        return _span_ids.pop()
    except IndexError:
        return _draw(_span_ids, 16)


def new_trace_id() -> str:
    """A random trace id: 32 hexadecimal digits."""
    try:
        return _trace_ids.pop()
    except IndexError:
        return _draw(_trace_ids, 32)


def _draw(ids: list[str], digits: int) -> str:
    """One id, and put more of them into `ids`: to draw and write many at once takes a quarter as long for each."""
    size = digits // 2
    text = urandom(size * _IDS_AT_ONCE).hex(" ", size)
    drawn = text.split(" ")
    nothing = "0" * digits  # which means that there is none
    if nothing in text:
        drawn = [each for each in drawn if each != nothing]
    ids += drawn
    return ids.pop()


def _forget_ids() -> None:
    _span_ids.clear()
    _trace_ids.clear()


os.register_at_fork(after_in_child=_forget_ids)  # what was drawn before belongs to the parent


def continue_trace(traceparent: bytes | None, cloud_trace: bytes | None = None) -> TraceContext:
    """Continue the caller's trace, or begin a new one.

    An invalid `traceparent` is ignored and a new trace begins, as W3C Trace Context section 4.3 asks.
    """
    parent = None
    if traceparent is not None:
        parent = parse_traceparent(traceparent)
    elif cloud_trace is not None:
        parent = parse_cloud_trace(cloud_trace)
    return parent or TraceContext(new_trace_id(), None, new_span_id(), sampled=False)


def parse_traceparent(value: bytes) -> TraceContext | None:
    """Parse a `traceparent` field (W3C Trace Context). None where it is not valid."""
    if value.translate(_SHAPE) == _TRACEPARENT:
        version, trace_id, parent_id, flags = value.decode().split("-")
        if trace_id == _NO_TRACE or parent_id == _NO_PARENT:
            return None
        if version == "00":
            return TraceContext(trace_id, parent_id, new_span_id(), flags in _SAMPLED_FLAGS)
    if _LATER_TRACEPARENT.fullmatch(value) is None:
        return None
    text = value.decode("latin-1")
    return TraceContext(text[3:35], text[36:52], new_span_id(), text[54] in _ODD)


def parse_cloud_trace(value: bytes) -> TraceContext | None:
    """Parse Google's X-Cloud-Trace-Context field.

    It is `TRACE_ID/SPAN_ID;o=OPTIONS` (cloud.google.com/trace/docs/trace-context); SPAN_ID is decimal.
    """
    match = _CLOUD_TRACE.fullmatch(value.decode("latin-1"))
    if match is None:
        return None
    trace_id, span_id, options = match.groups()
    if trace_id == _NO_TRACE:
        return None
    parent = int(span_id) & 0xFFFF_FFFF_FFFF_FFFF if span_id else 0
    return TraceContext(
        trace_id.lower(),
        f"{parent:016x}" if parent else None,
        new_span_id(),
        options is not None and bool(int(options) & _SAMPLED),
    )
