"""A caller's body between the caller who sends it and the code that takes it: what is not taken is not read on."""

import asyncio
from typing import Any

from gateway.core.errors import PayloadTooLarge
from gateway.server.request_body import CallerRequestBody

PIECE = b"x" * 65536


class Connection:
    """Says whether it would read on."""

    body_timeout_s = 15.0

    def __init__(self) -> None:
        self._reading = True

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True

    def reads(self) -> bool:
        return self._reading


class Sink:
    def __init__(self, body: CallerRequestBody, *, full: bool) -> None:
        self._body = body
        self._full = full
        self.taken = b""
        self.ended = False
        self.error: BaseException | None = None

    def upload(self, piece: bytes) -> None:
        self.taken += piece
        if self._full:
            self._body.pause()

    def upload_end(self, trailers: bytes) -> None:
        self.ended = True

    def upload_failed(self, error: BaseException) -> None:
        self.error = error


def body_of(length: int | None) -> tuple[CallerRequestBody, Connection]:
    connection: Any = Connection()
    return CallerRequestBody(connection, length), connection


def test_what_nobody_takes_is_not_read_on_and_what_is_taken_is():
    body, connection = body_of(20 * len(PIECE))
    for _ in range(4):
        body.feed(PIECE)
    assert connection.reads()
    body.feed(PIECE)
    assert not connection.reads()
    sink = Sink(body, full=False)
    body.pipe_to(sink, 1 << 30)
    assert connection.reads()
    assert len(sink.taken) == 5 * len(PIECE)
    for _ in range(15):
        body.feed(PIECE)
    assert connection.reads()
    assert (len(sink.taken), sink.ended) == (20 * len(PIECE), True)


def test_whoever_takes_the_held_pieces_may_say_stop_at_once():
    body, connection = body_of(20 * len(PIECE))
    for _ in range(5):
        body.feed(PIECE)
    body.pipe_to(Sink(body, full=True), 1 << 30)
    assert not connection.reads()


def test_a_body_that_is_whole_needs_no_stop():
    body, connection = body_of(5 * len(PIECE))
    for _ in range(5):
        body.feed(PIECE)
    assert body.complete
    assert connection.reads()
    assert body.buffered_body() == 5 * PIECE


def test_a_body_that_came_with_its_head_is_read_as_any_other():
    connection: Any = Connection()
    body = CallerRequestBody(connection, 5, b"12345")
    assert (body.complete, body.buffered_body()) == (True, b"12345")
    loop = asyncio.new_event_loop()
    try:
        assert loop.run_until_complete(body.next_chunk()) == b"12345"
        assert loop.run_until_complete(body.next_chunk()) is None
    finally:
        loop.close()


def test_chunk_by_chunk():
    body, connection = body_of(6 * len(PIECE))
    for _ in range(5):
        body.feed(PIECE)
    assert not connection.reads()
    loop = asyncio.new_event_loop()
    try:
        assert loop.run_until_complete(body.next_chunk()) == 5 * PIECE
        assert connection.reads()
        body.feed(PIECE + b"the next request")
        assert loop.run_until_complete(body.next_chunk()) == PIECE
        assert loop.run_until_complete(body.next_chunk()) is None
    finally:
        loop.close()


def test_beyond_the_limit_nothing_goes_on():
    body, _ = body_of(None)
    sink = Sink(body, full=False)
    body.pipe_to(sink, 10)
    body.feed(b"8\r\n12345678\r\n")
    body.feed(b"8\r\n12345678\r\n")
    body.feed(b"8\r\n12345678\r\n0\r\n\r\n")
    assert isinstance(sink.error, PayloadTooLarge)
    assert (sink.taken, sink.ended) == (b"12345678", False)
