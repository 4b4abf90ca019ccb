"""The callers' open connections. Limits (total and per address), time-outs, and draining at a stop are handled here."""

import asyncio
import logging
import select
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import IPv6Address
from itertools import islice
from typing import Final, Protocol

from gateway.core.log_throttle import LogThrottle
from gateway.server.lingering_close import SEND_TIMEOUT_S
from gateway.thread_and_task_supervisor import Supervisor

_log = logging.getLogger(__name__)

_TICK_S: Final = 0.5
_DRAIN_TICK_S: Final = 0.05
_LOOKED_AT: Final = 256  # connections that are looked at, while a look at all of them found none idle
_ALL_BUSY_S: Final = 0.05  # a look at all connections found none idle: that long, not all are looked at again

# Why a connection was closed, or not taken.
SILENT: Final = "silent"
HALF_HEAD: Final = "half-head"
EVICTED: Final = "evicted"
REFUSED: Final = "refused"
PEER: Final = "peer"
FILES: Final = "files"
REASONS: Final = (SILENT, HALF_HEAD, EVICTED, REFUSED, PEER, FILES)


class OpenConnection(Protocol):
    """One open connection, as OpenConnections uses it."""

    peer: str
    due: float  # monotonic: when `expire` is called
    stalled_at: float  # monotonic: since when the caller has not read what was written
    recognized: bool  # a request of this connection was authenticated

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""

    def expire(self) -> None: ...

    def abort(self) -> None: ...


class _InOrder(dict[OpenConnection, None]):
    """Connections in the order of opening."""

    all_busy_until = 0.0  # monotonic: a look at all of them found none idle

    def oldest_idle(self) -> OpenConnection | None:
        now = time.monotonic()
        whole = now >= self.all_busy_until
        idle = None
        busy = []
        for connection in islice(self, None if whole else _LOOKED_AT):
            if not connection.busy:
                idle = connection
                break
            busy.append(connection)
        for connection in busy:  # the next look begins behind these: they may be busy for long
            self[connection] = self.pop(connection)
        if idle is None and whole:
            self.all_busy_until = now + _ALL_BUSY_S
        return idle


class _Group:
    """All open connections, or those of one address. Which of them have authenticated is known."""

    __slots__ = ("_known", "strangers")

    def __init__(self) -> None:
        self.strangers = _InOrder()
        self._known = _InOrder()

    def __len__(self) -> int:
        return len(self.strangers) + len(self._known)

    def __iter__(self) -> Iterator[OpenConnection]:
        return iter((*self.strangers, *self._known))

    def mark_authenticated(self, connection: OpenConnection) -> None:
        if self.strangers.pop(connection, self) is None:
            self._known[connection] = None

    def remove(self, connection: OpenConnection) -> None:
        self.strangers.pop(connection, None)
        self._known.pop(connection, None)

    def oldest_idle(self) -> OpenConnection | None:
        """The oldest idle connection, one that was never authenticated if there is one. None where all are busy."""
        return self.strangers.oldest_idle() or self._known.oldest_idle()


class OpenConnections:
    """The callers' open connections.

    There are at most `limit`, and `peer_limit` from one address unless `is_proxy` says that it speaks for many.

    Beyond a limit, the oldest idle connection is closed to make room, preferably one that was never authenticated; where all
    are busy, the new one is refused. 0 is no limit.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        linger_s: float = 0.0,
        limit: int = 0,
        peer_limit: int = 0,
        is_proxy: Callable[[str], bool] = lambda _: False,
        supervisor: Supervisor | None = None,
    ) -> None:
        self._timer = (supervisor or Supervisor()).helper("time-outs of callers")
        self._loop = loop
        self.linger_s = linger_s
        self._limit = limit
        self._peer_limit = peer_limit
        self._is_proxy = is_proxy
        self._all = _Group()
        self._by_peer: dict[str, _Group] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._empty: asyncio.Future[None] | None = None
        self._throttled_log = LogThrottle(_log)
        self.draining = False
        self.turned_away: Counter[str] = Counter(dict.fromkeys(REASONS, 0))

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[OpenConnection]:
        return iter(self._all)

    # -- from the listener

    def make_room_for(self, peer: str) -> bool:
        """Make room for one more connection of `peer`.

        Returns False where that is not possible. An idle one is closed if necessary.
        """
        if self._peer_limit and not self._is_proxy(peer):
            its_own = self._by_peer.get(_holder(peer)) or _Group()
            if len(its_own) >= self._peer_limit and not self._make_room(its_own):
                self.count_turned_away(
                    PEER, "an address has %d connections, as many as one may have", len(its_own)
                )
                return False
        if self._limit and len(self) >= self._limit and not self.make_room():
            self.count_turned_away(REFUSED, "all %d connections that callers may hold are busy", len(self))
            return False
        return True

    def make_room(self) -> bool:
        """Close the oldest idle connection, to make room. False where all that were examined are busy."""
        return self._make_room(self._all)

    def _make_room(self, group: _Group) -> bool:
        victim = group.oldest_idle()
        if victim is None:
            return False
        self.count_turned_away(EVICTED, "%d connections are open; the oldest idle ones make room", len(self))
        self.remove(victim)
        victim.abort()
        return True

    def count_turned_away(self, reason: str, text: str, *arguments: object) -> None:
        """Count and log a connection that was turned away for `reason`.

        It was refused or closed. It is logged only now and then.
        """
        self.turned_away[reason] += 1
        self._throttled_log.warning(
            reason,
            f"{text} (server.connections, server.peer_connections; chips_connections_turned_away_total)",
            *arguments,
        )

    # -- from the connections

    def add(self, connection: OpenConnection) -> None:
        self._all.strangers[connection] = None
        self._by_peer.setdefault(_holder(connection.peer), _Group()).strangers[connection] = None
        if self.draining:
            connection.due = time.monotonic() + self.linger_s
        if self._alarm is None:
            self._alarm = self._loop.call_later(_DRAIN_TICK_S if self.draining else _TICK_S, self._tick)

    def mark_authenticated(self, connection: OpenConnection) -> None:
        """Mark a connection as authenticated, as a request on it was. To make room, others are closed first."""
        connection.recognized = True
        self._all.mark_authenticated(connection)
        if (its_own := self._by_peer.get(_holder(connection.peer))) is not None:
            its_own.mark_authenticated(connection)

    def remove(self, connection: OpenConnection) -> None:
        self._all.remove(connection)
        holder = _holder(connection.peer)
        its_own = self._by_peer.get(holder)
        if its_own is not None:
            its_own.remove(connection)
            if not its_own:
                del self._by_peer[holder]
        if self._empty is not None and not len(self) and not self._empty.done():
            self._empty.set_result(None)

    # -- time

    def _tick(self) -> None:
        now = time.monotonic()

        def look(connection: OpenConnection) -> None:
            if now >= connection.due:
                connection.expire()
            elif now - connection.stalled_at > SEND_TIMEOUT_S:
                connection.abort()

        self._timer.each(self, look)
        again_s = _DRAIN_TICK_S if self.draining else _TICK_S
        self._alarm = self._loop.call_later(again_s, self._tick) if len(self) else None

    def begin_drain(self) -> None:
        """Let each connection end with its answer, also those that are still accepted.

        Idle ones stay open for `linger_s`, because a request may be on its way.
        """
        self.draining = True
        due = time.monotonic() + self.linger_s
        for connection in self:
            if not connection.busy:
                connection.due = min(connection.due, due)
        if self._alarm is not None:
            self._alarm.cancel()
            self._tick()

    async def wait_until_all_closed(self, timeout_s: float) -> None:
        """Wait until no connection is open. What is open after `timeout_s` stays open: the server's shutdown closes it."""
        if not len(self):
            return
        self._empty = self._loop.create_future()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._empty

    def stop_timers(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None


def _holder(peer: str) -> str:
    """Whose address it is: with IPv6 one caller has a /64, and may come from any address in it."""
    if ":" not in peer:
        return peer
    address = IPv6Address(peer)
    return str(address.ipv4_mapped or IPv6Address(int(address) >> 64 << 64))


def has_unread_bytes(transport: asyncio.BaseTransport | None) -> bool:
    """Whether the socket holds bytes that have not been read. They come from the caller."""
    sock = None if transport is None else transport.get_extra_info("socket")
    if sock is None:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))
