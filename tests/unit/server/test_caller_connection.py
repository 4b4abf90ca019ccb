"""A caller's connection and its clock: whose time runs, and when."""

import asyncio
import re
from collections.abc import Iterator

import pytest

from gateway.server import request_framing
from gateway.server.fast_path_interfaces import BODY
from tests.fuzz.harness import Callers, answers_in

HEAD = b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
NEVER = float("inf")


@pytest.fixture
def callers() -> Iterator[Callers]:
    loop = asyncio.new_event_loop()
    callers = Callers(loop)
    yield callers
    callers.leave()
    loop.close()


def test_a_body_has_its_time_again_with_each_piece(callers: Callers):
    connection = callers.connection
    connection.data_received(HEAD)
    first = connection.due
    assert first != NEVER
    connection.data_received(b"12345")
    assert first < connection.due != NEVER
    assert not callers.wire.written


def test_a_body_that_does_not_go_on_fails(callers: Callers):
    callers.connection.data_received(HEAD + b"12345")
    callers.connection.expire()
    assert answers_in(callers.wire.written) == [
        (400, b"bad")
    ]  # the harness's pipeline says so of every failure
    assert callers.wire.closed


def test_time_that_others_take_is_not_the_callers(callers: Callers):
    connection = callers.connection
    connection.data_received(HEAD + b"12345")
    connection.pause_reading(BODY)
    connection.expire()
    assert (callers.wire.written, connection.due) == (b"", NEVER)
    connection.resume_reading(BODY)
    assert connection.due != NEVER
    connection.data_received(b"67890")
    assert answers_in(callers.wire.written) == [(200, b"/1 1234567890")]


def test_a_request_whose_body_is_there_has_no_such_time(callers: Callers):
    connection = callers.connection
    connection.data_received(HEAD + b"1234567890" + HEAD[:20])
    assert len(answers_in(callers.wire.written)) == 1
    connection.expire()  # this is about the next head
    assert callers.wire.cut


class Counted:
    """A pattern that counts the bytes it is given to search."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self._pattern = pattern
        self.searched = 0

    def search(self, data: bytes, start: int = 0) -> re.Match[bytes] | None:
        self.searched += len(data) - start
        return self._pattern.search(data, start)


def test_a_head_that_comes_byte_by_byte_is_searched_once(callers: Callers, monkeypatch: pytest.MonkeyPatch):
    counted = Counted(request_framing._BARE_CR_OR_LF)
    monkeypatch.setattr(request_framing, "_BARE_CR_OR_LF", counted)
    head = b"\r\nPOST /1 HTTP/1.1\r\nHost: x\r\n" + b"X: 1234567890\r\n" * 80 + b"Content-Length: 2\r\n\r\n"
    for _ in range(2):
        for byte in head:
            callers.connection.data_received(bytes((byte,)))
        callers.connection.data_received(b"ab")
    assert answers_in(callers.wire.written) == [(200, b"/1 ab")] * 2
    assert counted.searched < 2 * 3 * len(head)


@pytest.mark.parametrize("bad", [b"\n", b"\r\r", b"\r", b"\n\n"])
@pytest.mark.parametrize(
    "at", [b"POST /1 HTTP/1.1", b"POST /1 HTTP/1.1\r\nHost: x", b"\r\nPOST /1 HTTP/1.1\r\nA:"]
)
def test_a_bare_line_end_is_seen_where_the_head_comes_in_pieces(callers: Callers, at: bytes, bad: bytes):
    head = at + bad + b"B"
    for byte in head:
        callers.connection.data_received(bytes((byte,)))
    assert callers.wire.written.startswith(b"HTTP/1.1 400 ")
    assert callers.wire.closed


def test_empty_lines_give_a_head_no_new_time(callers: Callers):
    callers.connection.data_received(b"\r")
    first = callers.connection.due
    for byte in b"\n\r\n\r\nPOST":
        callers.connection.data_received(bytes((byte,)))
    assert callers.connection.due == first != NEVER
