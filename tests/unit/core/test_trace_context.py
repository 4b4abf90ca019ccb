"""Trace context: a valid parent is continued, anything else begins a new trace, and nothing breaks."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import trace_context
from gateway.core.trace_context import (
    TraceContext,
    _forget_ids,
    continue_trace,
    new_span_id,
    new_trace_id,
    parse_cloud_trace,
    parse_traceparent,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
_hex = st.sampled_from("0123456789abcdef")
trace_ids = st.text(_hex, min_size=32, max_size=32).filter(lambda text: set(text) != {"0"})
span_ids = st.text(_hex, min_size=16, max_size=16).filter(lambda text: set(text) != {"0"})


def _sent(trace: TraceContext) -> bytes:
    """The value of the field that a backend gets, where our own span is the parent."""
    line = trace.traceparent_line(trace.span_id, trace.sampled)
    assert (line[:13], line[-2:]) == (b"traceparent: ", b"\r\n")
    return line[13:-2]


@given(trace_ids, span_ids, st.integers(0, 255))
def test_a_valid_parent_is_continued(trace_id: str, span_id: str, flags: int):
    context = continue_trace(f"00-{trace_id}-{span_id}-{flags:02x}".encode())
    assert (context.trace_id, context.parent_id, context.sampled) == (trace_id, span_id, bool(flags & 1))
    assert context.span_id != span_id


@given(trace_ids, span_ids, st.booleans())
def test_what_we_send_on_reads_back_with_our_span_as_the_parent(trace_id: str, span_id: str, sampled: bool):
    ours = continue_trace(f"00-{trace_id}-{span_id}-0{int(sampled)}".encode())
    read = parse_traceparent(_sent(ours))
    assert read is not None
    assert (read.trace_id, read.parent_id, read.sampled) == (trace_id, ours.span_id, sampled)


@pytest.mark.parametrize(
    "value",
    [
        *(
            f"00-{TRACE}-{SPAN}",
            f"00-{TRACE}-{SPAN}-01-more",
            f"00-{TRACE}-{SPAN}-01 ",
            f"00-{TRACE}-{SPAN}-1",
        ),
        *(
            f"ff-{TRACE}-{SPAN}-01",
            f"0-{TRACE}-{SPAN}-01",
            f"00-{TRACE.upper()}-{SPAN}-01",
            f"00-{TRACE[1:]}-{SPAN}-01",
        ),
        *(
            f"00-{'0' * 32}-{SPAN}-01",
            f"00-{TRACE}-{'0' * 16}-01",
            f"cc-{TRACE}-{SPAN}-01more",
            "",
            "\xff",
            "x" * 9999,
        ),
    ],
)
def test_an_invalid_parent_begins_a_new_trace(value: str):
    """W3C Trace Context level 1, section 3.2.2 and 4.3."""
    context = continue_trace(value.encode("latin-1"), f"{TRACE}/1;o=1".encode())
    assert context.trace_id != TRACE, "nor is the other header looked at"
    assert context.parent_id is None
    assert not context.sampled
    assert re.fullmatch(r"[0-9a-f]{32}", context.trace_id)


def test_a_future_version_may_say_more():
    read = parse_traceparent(f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like".encode())
    assert read is not None
    assert (read.trace_id, read.sampled) == (TRACE, True)
    assert _sent(read).startswith(b"00-"), "we speak the version that we know"


@pytest.mark.parametrize(
    ("value", "parent_id", "sampled"),
    [
        (f"{TRACE}/67667974448284343;o=1", "00f067aa0ba902b7", True),
        (f"{TRACE.upper()}/1", "0000000000000001", False),
        (TRACE, None, False),
        (f"{TRACE}/0;o=1", None, True),
        (f"{TRACE};o=1", None, True),
        (f"{TRACE}/1;o=2", "0000000000000001", False),
        (f"{TRACE}/18446744073709551615;o=3", "ffffffffffffffff", True),
    ],
)
def test_googles_older_header_is_read(value: str, parent_id: str | None, sampled: bool):
    context = continue_trace(None, value.encode())
    assert (context.trace_id, context.parent_id, context.sampled) == (TRACE, parent_id, sampled)


@pytest.mark.parametrize(
    "value", ["", "x", TRACE[1:], f"{TRACE}/", f"{TRACE}/-1", f"{TRACE}/1;o=", "0" * 32, f"{TRACE}/1;o=1;"]
)
def test_what_is_no_such_header_begins_a_new_trace(value: str):
    assert continue_trace(None, value.encode()).trace_id != TRACE


_WRITTEN = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@given(st.integers(0, 54), st.binary(min_size=1, max_size=2), st.integers(0, 2), st.booleans())
def test_a_traceparent_is_read_where_and_only_where_the_specification_has_it(
    at: int, put: bytes, taken: int, is_zero: bool
):
    value = f"00-{TRACE}-{SPAN}-01".encode()
    if is_zero:
        value = re.sub(rb"[0-9a-f]", b"0", value)
    value = value[:at] + put + value[at + taken :]
    read = parse_traceparent(value)
    if value.startswith(b"00"):
        assert (read is not None) == (_WRITTEN.fullmatch(value) is not None)
    if read is not None and len(value) == 55:
        assert (read.trace_id, read.parent_id) == (value[3:35].decode(), value[36:52].decode())
        assert read.sampled == bool(int(value[53:], 16) & 1)


@given(st.binary(max_size=80))
def test_no_bytes_break_the_parsers(value: bytes):
    for parsed in (parse_traceparent(value), parse_cloud_trace(value), continue_trace(value, value)):
        if parsed is not None:
            assert parse_traceparent(_sent(parsed)) is not None


def test_ids_are_well_formed_and_differ():
    _forget_ids()
    made = {new_trace_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch(r"[0-9a-f]{32}", made_id) for made_id in made)
    spans = {new_span_id() for _ in range(1000)}
    assert len(spans) == 1000
    assert all(re.fullmatch(r"[0-9a-f]{16}", span) and int(span, 16) for span in spans)


def test_an_id_of_zeros_is_never_given(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trace_context, "urandom", lambda size: bytes(8) + b"\1" * (size - 8))
    _forget_ids()
    assert {new_span_id() for _ in range(63)} == {"01" * 8}
    _forget_ids()
