"""The trace context of a request: W3C traceparent, else Google's older X-Cloud-Trace-Context."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from multidict import istr

_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)
# A name that is an istr is looked up without being lowered first.
_TRACEPARENT_NAME: Final = istr("traceparent")
_CLOUD_TRACE_NAME: Final = istr("X-Cloud-Trace-Context")
_CLOUD_TRACE = re.compile(r"(?!0{32})([0-9a-fA-F]{32})(?:/([0-9]{1,20}))?(?:;o=([0-9]))?")


class Trace(NamedTuple):
    """The trace that a request belongs to: trace id, the caller's span id, and whether it is sampled."""

    trace_id: str
    span_id: str
    sampled: bool


def read_trace(headers: Mapping[str, str]) -> Trace | None:
    """The trace that the caller's headers name; None where they name none, or not a valid one."""
    traceparent = headers.get(_TRACEPARENT_NAME)
    if traceparent is not None:
        match = _TRACEPARENT.fullmatch(traceparent)
        return Trace(match[1], match[2], bool(int(match[3], 16) & 1)) if match else None
    cloud_trace = headers.get(_CLOUD_TRACE_NAME)
    match = None if cloud_trace is None else _CLOUD_TRACE.fullmatch(cloud_trace)
    if match is None:
        return None
    span = int(match[2] or 0) & 0xFFFF_FFFF_FFFF_FFFF
    return Trace(match[1].lower(), f"{span:016x}", match[3] not in {None, "0"})
