"""Which connection makes room for which."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.server.open_connections import _LOOKED_AT, OpenConnections

NEVER = float("inf")


class Fake:
    due = stalled_at = NEVER
    recognized = False

    def __init__(self, *, peer: str = "192.0.2.1", busy: bool = False) -> None:
        self.peer = peer
        self.busy = busy
        self.aborted = False

    def expire(self) -> None: ...

    def abort(self) -> None:
        self.aborted = True


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def opened(connections: OpenConnections, *fakes: Any) -> Any:
    for fake in fakes:
        connections.add(fake)
    return fakes


def test_strangers_go_before_known_callers_and_the_oldest_first(loop: asyncio.AbstractEventLoop):
    connections = OpenConnections(loop, limit=4)
    known, busy, old, new = opened(connections, Fake(), Fake(busy=True), Fake(), Fake())
    connections.mark_authenticated(known)
    assert connections.make_room_for("192.0.2.9")
    assert (old.aborted, len(connections)) == (True, 3)
    opened(connections, Fake(busy=True))
    assert connections.make_room_for("192.0.2.9")
    assert new.aborted
    opened(connections, Fake(busy=True))
    assert connections.make_room_for("192.0.2.9")
    assert known.aborted
    opened(connections, Fake(busy=True))
    assert not connections.make_room_for("192.0.2.9")
    assert not busy.aborted
    assert {why: n for why, n in connections.turned_away.items() if n} == {"evicted": 3, "refused": 1}


def test_an_address_makes_room_for_itself(loop: asyncio.AbstractEventLoop):
    connections = OpenConnections(loop, peer_limit=2, is_proxy=lambda peer: peer == "192.0.2.8")
    (other,) = opened(connections, Fake(peer="192.0.2.7"))
    first, second = opened(connections, Fake(), Fake())
    connections.mark_authenticated(first)
    assert connections.make_room_for("192.0.2.1")
    assert (second.aborted, first.aborted, other.aborted) == (True, False, False)
    opened(connections, *(Fake(peer="192.0.2.8", busy=True) for _ in range(10)))
    assert connections.make_room_for("192.0.2.8")


def test_an_address_does_not_lose_its_known_callers_while_a_stranger_of_it_is_idle(
    loop: asyncio.AbstractEventLoop,
):
    connections = OpenConnections(loop, peer_limit=2 * _LOOKED_AT + 2)
    (known,) = opened(connections, Fake())
    connections.mark_authenticated(known)
    opened(connections, *(Fake(busy=True) for _ in range(2 * _LOOKED_AT)))
    (idle,) = opened(connections, Fake())
    assert connections.make_room_for("192.0.2.1")
    assert (idle.aborted, known.aborted) == (True, False)


def test_an_ipv6_network_of_64_bits_is_one_address(loop: asyncio.AbstractEventLoop):
    connections = OpenConnections(loop, peer_limit=2)
    first, _ = opened(connections, Fake(peer="2001:db8::1"), Fake(peer="2001:db8::2"))
    assert connections.make_room_for("2001:db8::3")
    assert first.aborted
    opened(connections, Fake(peer="::ffff:192.0.2.1", busy=True), Fake(peer="192.0.2.1", busy=True))
    assert not connections.make_room_for("192.0.2.1")


def test_many_who_are_busy_for_long_do_not_hide_an_idle_one(loop: asyncio.AbstractEventLoop):
    """Nobody is refused while one connection is idle, wherever it stands."""
    connections = OpenConnections(loop, limit=4 * _LOOKED_AT)
    busy = [Fake(busy=True) for _ in range(4 * _LOOKED_AT - 2)]
    first, last = Fake(), Fake()
    opened(connections, *busy[: 2 * _LOOKED_AT], first, *busy[2 * _LOOKED_AT :], last)
    assert connections.make_room_for("192.0.2.9")
    assert (first.aborted, last.aborted) == (True, False)
    opened(connections, Fake(busy=True))
    assert connections.make_room_for("192.0.2.9")
    assert last.aborted
    opened(connections, Fake(busy=True))
    assert not connections.make_room_for("192.0.2.9")


def test_where_all_are_busy_not_each_caller_costs_a_look_at_all(loop: asyncio.AbstractEventLoop):
    asked = 0

    class Counted(Fake):
        @property
        def busy(self) -> bool:
            nonlocal asked
            asked += 1
            return True

        @busy.setter
        def busy(self, _: bool) -> None: ...

    connections = OpenConnections(loop, limit=8 * _LOOKED_AT)
    opened(connections, *(Counted() for _ in range(8 * _LOOKED_AT)))
    assert not connections.make_room_for("192.0.2.9")
    asked = 0
    connections._all.strangers.all_busy_until = NEVER
    assert not connections.make_room_for("192.0.2.9")
    assert asked == _LOOKED_AT


def test_nothing_is_left_of_those_who_have_gone(loop: asyncio.AbstractEventLoop):
    connections = OpenConnections(loop, limit=5, peer_limit=5)
    fakes = opened(connections, *(Fake(peer=f"192.0.2.{number}") for number in range(5)))
    for fake in fakes:
        connections.remove(fake)
        connections.remove(fake)
    assert len(connections) == 0
    assert connections._by_peer == {}
    connections.stop_timers()
