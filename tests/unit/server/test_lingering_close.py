"""How long a connection stays open behind its last answer."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.server.lingering_close import SEND_TIMEOUT_S, LingeringClose


class Transport:
    """What asyncio has not written yet, and the socket behind it."""

    def __init__(self, sock: socket.socket | None) -> None:
        self.sock = sock
        self.waiting = 0

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def get_extra_info(self, name: str) -> Any:
        assert name == "socket"
        return self.sock


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
        with ours, theirs:
            yield ours, theirs


def test_who_has_all_of_it_is_not_waited_for_any_longer(pair: tuple[socket.socket, socket.socket]):
    transport: Any = Transport(pair[0])
    assert not LingeringClose(0.0).caller_still_reads(transport, 5.0)


def test_what_the_system_still_holds_counts(pair: tuple[socket.socket, socket.socket]):
    ours, theirs = pair
    ours.setblocking(False)
    sent = 0
    try:
        while True:
            sent += ours.send(b"x" * 65536)
    except BlockingIOError:
        pass
    transport: Any = Transport(ours)
    linger = LingeringClose(0.0)
    assert linger.caller_still_reads(transport, 5.0)
    while sent > 0:
        sent -= len(theirs.recv(65536))
    ours.setblocking(True)
    ours.shutdown(socket.SHUT_WR)
    assert theirs.recv(1) == b""


def test_who_takes_nothing_has_a_limit():
    transport: Any = Transport(None)
    transport.waiting = 10
    linger = LingeringClose(0.0)
    assert linger.caller_still_reads(transport, 5.0)
    assert linger.caller_still_reads(transport, 5.0 + SEND_TIMEOUT_S - 1)
    transport.waiting = 9  # a byte is enough
    assert linger.caller_still_reads(transport, 5.0 + SEND_TIMEOUT_S + 1)
    assert not linger.caller_still_reads(transport, 5.0 + 2 * SEND_TIMEOUT_S + 2)


def test_what_comes_meanwhile_is_dropped_up_to_a_limit():
    linger = LingeringClose(0.0)
    assert linger.try_drop(1024)
    assert not linger.try_drop(1024 * 1024 * 1024)
