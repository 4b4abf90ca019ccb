"""Trace context: W3C Trace Context (traceparent, level 1) and Google's older X-Cloud-Trace-Context."""

import re

from gateway.core.randomness import random_bits

_REST = rb"-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_TRACEPARENT = re.compile(b"00" + _REST)
_LATER_TRACEPARENT = re.compile(b"(?!00|ff)[0-9a-f]{2}" + _REST + b"(?:-.*)?", re.DOTALL)
_ODD = frozenset("13579bdf")
_CLOUD_TRACE = re.compile(r"([0-9a-fA-F]{32})(?:/([0-9]{1,20}))?(?:;o=([0-9]))?")
_NO_TRACE = "0" * 32
_SAMPLED = 0x01


class TraceContext:
    """A request's trace id, its own span id, its parent's, and whether the trace is sampled."""

    __slots__ = ("parent_id", "sampled", "span_id", "trace_id")

    def __init__(self, trace_id: str, parent_id: str | None, span_id: str, sampled: bool) -> None:  # noqa: FBT001
        self.trace_id = trace_id  # 32 lower-case hex digits
        self.parent_id = parent_id  # the caller's span, 16 hex digits; None where the trace begins here
        self.span_id = span_id  # our span for the request, 16 hex digits: the parent of each attempt's
        self.sampled = sampled  # the caller's wish; whether it is granted stands in the exchange

    def traceparent(self, span_id: str, *, sampled: bool) -> bytes:
        """The traceparent field's value for a backend; the attempt's `span_id` is the parent of what the backend does."""
        return f"00-{self.trace_id}-{span_id}-{'01' if sampled else '00'}".encode("ascii")


def new_span_id() -> str:
    """A random span id: 16 hexadecimal digits."""
    return "%016x" % (random_bits(64) or 1)


def new_trace_id() -> str:
    """A random trace id: 32 hexadecimal digits."""
    return "%032x" % (random_bits(128) or 1)


def continue_trace(traceparent: bytes | None, cloud_trace: bytes | None = None) -> TraceContext:
    """Continue the caller's trace, or begin one where the caller sent none that is valid.

    An invalid `traceparent` is ignored and a new trace begins, as W3C Trace Context section 4.3 asks.
    """
    parent = None
    if traceparent is not None:
        parent = parse_traceparent(traceparent)
    elif cloud_trace is not None:
        parent = parse_cloud_trace(cloud_trace)
    return parent or TraceContext(new_trace_id(), None, new_span_id(), sampled=False)


def parse_traceparent(value: bytes) -> TraceContext | None:
    """Parse a `traceparent` field (W3C Trace Context); None where it is not valid."""
    if _TRACEPARENT.fullmatch(value) is None and _LATER_TRACEPARENT.fullmatch(value) is None:
        return None
    text = value.decode("latin-1")
    return TraceContext(text[3:35], text[36:52], new_span_id(), text[54] in _ODD)


def parse_cloud_trace(value: bytes) -> TraceContext | None:
    """Parse `TRACE_ID/SPAN_ID;o=OPTIONS` (cloud.google.com/trace/docs/trace-context); SPAN_ID is decimal."""
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
