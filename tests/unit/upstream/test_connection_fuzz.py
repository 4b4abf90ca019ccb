"""Whatever a backend answers, in whatever pieces: no crash, no bytes of another answer, no half that looks whole."""

import asyncio
from typing import Any

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpResponseParser
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gateway.core.chunked import encode_chunk, encode_last_chunk
from gateway.upstream.response_head import parse_response_head
from tests.fuzz.harness import Backends


def answer(body: bytes, kind: str) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n"
    if kind == "chunks":
        pieces = [body[i : i + 7] for i in range(0, len(body), 7)]
        return (
            head
            + b"Transfer-Encoding: chunked\r\n\r\n"
            + b"".join(map(encode_chunk, pieces))
            + encode_last_chunk(b"")
        )
    if kind == "length":
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    return head + b"\r\n" + body


KINDS = st.sampled_from(["chunks", "length", "close"])


@given(st.lists(st.tuples(st.binary(max_size=60), KINDS), min_size=1, max_size=4), st.integers(1, 120))
def test_good_answers_one_after_another(answers: list[tuple[bytes, str]], step: int):
    backends = Backends()
    for i, (body, kind) in enumerate(answers):
        if i:
            backends.came = 0
            backends.start("POST")
        backends.feed(answer(body, kind), step)
        if kind == "close":
            backends.end()
        assert (backends.response.status, backends.response.body, backends.response.ended) == (
            200,
            body,
            True,
        )
        backends.check()
        if kind == "close":
            break
        assert backends.pool.acquire_idle() is backends.connection


@settings(max_examples=300)
@given(
    st.binary(max_size=60),
    KINDS,
    st.integers(1, 120),
    st.lists(st.tuples(st.integers(0, 300), st.binary(max_size=3), st.integers(0, 3)), max_size=3),
    st.sampled_from(["POST", "HEAD"]),
)
def test_broken_answers(body: bytes, kind: str, step: int, edits: list[tuple[int, bytes, int]], method: str):
    raw = answer(body, kind)
    for at, new, removed in edits:
        at %= len(raw) + 1  # noqa: PLW2901
        raw = raw[:at] + new + raw[at + removed :]
    backends = Backends(method)
    backends.feed(raw, step)
    backends.check()
    backends.end()
    backends.check()
    assert backends.came == 1, "somebody would wait for ever"
    assert len(backends.response.body) <= len(raw)


@given(st.binary(max_size=60), st.integers(0, 59), st.sampled_from(["chunks", "length"]), st.integers(1, 50))
def test_half_an_answer_is_never_whole(body: bytes, left_out: int, kind: str, step: int):
    raw = answer(body, kind)
    cut = raw[: len(raw) - 1 - left_out % len(raw)]
    backends = Backends()
    backends.feed(cut, step)
    backends.end()
    assert backends.error is not None
    assert not backends.response.ended


@given(st.binary(max_size=30), st.binary(min_size=1, max_size=30), st.sampled_from(["chunks", "length"]))
def test_bytes_after_an_answer_poison_the_connection(body: bytes, more: bytes, kind: str):
    backends = Backends()
    backends.feed(answer(body, kind) + more, 1000)
    assert (backends.response.body, backends.response.ended) == (body, True)
    assert backends.connection not in backends.pool.idle


class _Nobody:
    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


@settings(max_examples=300)
@given(
    st.lists(
        st.sampled_from(
            [
                b"HTTP/1.1 200 OK",
                b"HTTP/1.0 404 Not Found",
                b"HTTP/1.1 204",
                b"\r\n",
                b"\n",
                b"\r",
                b": ",
                b":",
                b" ",
                b"\t",
                b"X-A",
                b"Content-Length",
                b"Transfer-Encoding",
                b"chunked",
                b"Connection",
                b"close",
                b"5",
                b"+5",
                b"\0",
                b"\xe4",
                b",",
            ]
        ),
        max_size=14,
    )
)
def test_what_we_read_in_a_head_aiohttp_reads_alike(parts: list[bytes]):
    raw = b"".join(parts)
    try:
        head = parse_response_head(raw)
    except ValueError:
        return
    assume(head.status >= 200)
    loop = asyncio.new_event_loop()
    nobody: Any = _Nobody()
    try:
        parser = HttpResponseParser(nobody, loop, 65536, response_with_body=False)
        try:
            messages, _, _ = parser.feed_data(raw + b"\r\n\r\n")
        except HttpProcessingError:
            return  # stricter than we: not a disagreement about what was said
        message = messages[0][0]
        assert message.code == head.status
        kept = [
            (name, value)
            for name, _, value in (line.partition(b":") for line in head.fields.split(b"\r\n")[:-1])
        ]
        theirs = {(name.lower(), value) for name, value in message.raw_headers}
        assert all((name.lower(), value.strip(b" \t")) in theirs for name, value in kept)
        if head.length >= 0:
            assert (b"content-length", b"%d" % head.length) in {
                (n, v.lstrip(b"0") or b"0") for n, v in theirs
            }
        assert bool(message.chunked) == head.chunked
    finally:
        loop.close()
