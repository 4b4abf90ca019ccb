"""Whatever a caller sends, in whatever pieces: no crash, no answer to another request, nothing after a cut."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.chunked import encode_chunk, encode_last_chunk
from tests.fuzz.harness import Callers, answers_in


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def message(number: int, body: bytes, chunked: bool) -> bytes:
    head = b"POST /%d HTTP/1.1\r\nHost: x\r\n" % number
    if chunked:
        pieces = [body[i : i + 7] for i in range(0, len(body), 7)]
        return (
            head
            + b"Transfer-Encoding: chunked\r\n\r\n"
            + b"".join(map(encode_chunk, pieces))
            + encode_last_chunk(b"")
        )
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


MESSAGES = st.lists(st.tuples(st.binary(max_size=60), st.booleans()), min_size=1, max_size=6)


@given(MESSAGES, st.integers(1, 200))
def test_each_request_has_its_own_answer_in_its_turn(
    loop: asyncio.AbstractEventLoop, messages: list[tuple[bytes, bool]], step: int
):
    callers = Callers(loop)
    callers.feed(b"".join(message(i, body, chunked) for i, (body, chunked) in enumerate(messages)), step)
    assert callers.seen == [(f"/{i}", body) for i, (body, _) in enumerate(messages)]
    assert answers_in(callers.wire.written) == [
        (200, b"/%d " % i + body) for i, (body, _) in enumerate(messages)
    ]
    callers.leave()


@settings(max_examples=300)
@given(
    MESSAGES,
    st.integers(1, 200),
    st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=3), st.integers(0, 3)), max_size=4),
)
def test_broken_requests(
    loop: asyncio.AbstractEventLoop,
    messages: list[tuple[bytes, bool]],
    step: int,
    edits: list[tuple[int, bytes, int]],
):
    raw = b"".join(message(i, body, chunked) for i, (body, chunked) in enumerate(messages))
    for at, new, removed in edits:
        at %= len(raw) + 1  # noqa: PLW2901
        raw = raw[:at] + new + raw[at + removed :]
    callers = Callers(loop)
    callers.feed(raw, step)
    answers = answers_in(callers.wire.written)
    good = [body for status, body in answers if status == 200]
    assert good == [target.encode() + b" " + body for target, body in callers.seen]
    if any(
        status != 200 for status, _ in answers
    ):  # after a refusal nobody knows where a request would begin
        assert answers[-1][0] != 200
        assert callers.wire.closed or callers.wire.cut
    callers.leave()


@given(st.binary(max_size=300), st.integers(1, 50))
def test_noise(loop: asyncio.AbstractEventLoop, raw: bytes, step: int):
    callers = Callers(loop)
    callers.feed(raw, step)
    assert len(answers_in(callers.wire.written)) <= len(callers.seen) + 1
    callers.leave()
