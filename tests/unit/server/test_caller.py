"""A caller's connection and its clock: whose time runs, and when."""

import asyncio
from collections.abc import Iterator

import pytest

from gateway.server.transport import BODY
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
