"""The same bytes in any pieces get the same answers."""

import asyncio
import errno
from itertools import pairwise
from typing import Any

import pytest
from aiohttp.http_exceptions import HttpProcessingError
from chips_backend import connection
from chips_backend.connection import Connection
from chips_backend.request_context import RequestContext
from chips_backend.response import Response
from hypothesis import example, given
from hypothesis import strategies as st


class Transport(asyncio.Transport):
    """Keeps what is written; the caller reads all of it at once."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_over = False

    def write(self, data: Any) -> None:
        assert not self.is_over
        self.written += data

    def write_eof(self) -> None:
        self.is_over = True

    def close(self) -> None:
        self.is_over = True

    abort = close

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Echo:
    """Answers with the body, or with the path where there is none; also what connections share."""

    draining = False

    async def __call__(self, call: RequestContext) -> Response:
        body = await call.read_body(1_000_000)
        return Response(200, "", body or call.path.encode())

    def refuse(self, error: HttpProcessingError) -> Response:  # noqa: ARG002
        return Response(400, "", b"refused")

    def date(self) -> str:
        return "Mon, 30 Nov 2026 17:48:43 GMT"

    def opened(self, one: Connection) -> None: ...

    def closed(self, one: Connection) -> None: ...


def played(pieces: list[bytes]) -> Transport:
    """A transport with what was written to it for these pieces."""
    loop = asyncio.new_event_loop()
    try:
        app = Echo()
        transport, protocol = Transport(), Connection(app, app, loop)
        protocol.connection_made(transport)
        for piece in pieces:
            if not transport.is_over:
                protocol.data_received(piece)
            loop.run_until_complete(asyncio.sleep(0))
        for _ in range(5):
            loop.run_until_complete(asyncio.sleep(0))
        protocol.connection_lost(None)
    finally:
        loop.close()
    return transport


def answers(pieces: list[bytes]) -> list[bytes]:
    """The bodies that come back for these pieces."""
    found, rest = [], played(pieces).written
    while rest:
        head, _, rest = rest.partition(b"\r\n\r\n")
        length = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
        found.append(rest[:length])
        rest = rest[length:]
    return found


def _get(path: str) -> tuple[bytes, bytes]:
    return b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode(), b"/" + path.encode()


def _post(body: bytes) -> tuple[bytes, bytes]:
    head = b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    return head + body, body or b"/p"


def _chunked(chunks: list[bytes], trailer: bytes = b"") -> tuple[bytes, bytes]:
    framed = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    head = b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + framed + b"0\r\n%s\r\n" % trailer, b"".join(chunks) or b"/c"


# Bodies look like what may not be taken for the next request, or for the end of this one.
_BODIES = st.one_of(st.binary(max_size=40), st.sampled_from([b"\r\n\r\n", b"0\r\n\r\n", _get("smuggled")[0]]))
_REQUESTS = st.one_of(
    st.text("abc", max_size=3).map(_get),
    _BODIES.map(_post),
    st.lists(_BODIES.filter(bool), max_size=4).map(_chunked),
)
_NO_HTTP = b"\x00\x01 no request\r\n\r\n"


def _cut(content: bytes, places: list[int]) -> list[bytes]:
    at = sorted({place % (len(content) + 1) for place in places} | {0, len(content)})
    return [content[begin:end] for begin, end in pairwise(at)]


@given(st.lists(_REQUESTS, min_size=1, max_size=6), st.lists(st.integers(0, 10_000), max_size=12))
@example([_post(b"x")] * 100, [])
@example([_chunked([b"x", b"y"])] * 100, list(range(10_000)))
def test_requests_in_any_pieces(requests: list[tuple[bytes, bytes]], places: list[int]):
    content = b"".join(sent for sent, _ in requests)
    assert answers(_cut(content, places)) == [body for _, body in requests]


@given(st.lists(_REQUESTS, max_size=6), st.lists(st.integers(0, 10_000), max_size=12))
def test_behind_what_is_no_request_nothing_is_answered(
    requests: list[tuple[bytes, bytes]], places: list[int]
):
    """The parser forgets requests that came in the same piece: then they have no answer, and never a wrong one."""
    content = b"".join(sent for sent, _ in requests)
    *good, refused = answers(_cut(content + _NO_HTTP + _get("later")[0], places))
    assert refused == b"refused"
    assert good == [body for _, body in requests][: len(good)]


_TRAILER = _chunked([b"x"], b"X-Request-Id: smuggled\r\n")[0]


def test_a_trailer_is_no_field_of_the_request_behind_it():
    assert answers([_TRAILER + _post(b"not answered")[0]]) == [b"x", b"refused"]


@pytest.mark.parametrize(
    "pieces", [[_TRAILER], [_TRAILER[:-2], b"\r\n"], [bytes([byte]) for byte in _TRAILER]]
)
def test_a_trailer_ends_the_connection(pieces):
    """The next request is another caller's, who must not be refused for it."""
    transport = played(pieces)
    assert b"\r\nConnection: close\r\n" in transport.written
    assert transport.is_over


def test_who_has_left_before_the_connection_is_closed_makes_no_error(monkeypatch):
    def not_connected(_: Transport) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    monkeypatch.setattr(Transport, "write_eof", not_connected)
    assert answers([_NO_HTTP]) == [b"refused"]
    assert played([_NO_HTTP]).is_over


@given(
    st.lists(_BODIES.filter(bool), max_size=4).map(_chunked), st.lists(st.integers(0, 10_000), max_size=12)
)
def test_chunks_without_a_trailer_do_not_end_it(chunked: tuple[bytes, bytes], places: list[int]):
    assert not played(_cut(chunked[0], places)).is_over


def test_behind_chunks_a_request_may_have_no_trailer_before_it():
    chunked, posted = _chunked([b"x"]), _post(b"y")
    assert answers([chunked[0], posted[0], posted[0] + chunked[0], posted[0]]) == [
        b"x",
        b"y",
        b"y",
        b"x",
        b"y",
    ]


@pytest.mark.parametrize("more", range(4))
def test_so_many_chunks_that_reading_pauses_with_the_last_one(more):
    """aiohttp's parser would stop in the next body, and nobody would make it go on: the connection is closed instead."""
    chunked, body = _chunked([b"x"] * (connection._READ_BYTES // 16 - 1 + more))
    pieces = [chunked + _post(b"y")[0]]
    assert answers(pieces) == [body, b"y"] or (answers(pieces) == [body] and played(pieces).is_over)
