"""Listening sockets, and taking more than one caller at a time from them.

libuv, under uvloop, accepts one connection in each round of the loop. When a round serves hundreds of requests, hundreds of
new callers would wait for seconds. So each accepted connection is followed by whatever else waits, in the same round.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import Final

BACKLOG: Final = 2048  # callers that wait to be accepted; those beyond try again a second later
_AT_ONCE: Final = 64  # so that a storm of callers does not keep those away who are served already


def listen(host: str, port: int, *, shared: bool) -> list[socket.socket]:
    """A socket for each address that `host` stands for. Raises OSError where one is taken."""
    sockets: list[socket.socket] = []
    try:
        infos = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(infos):
            # All on one port, also where that is any free one.
            bound = address if not sockets else (address[0], sockets[0].getsockname()[1], *address[2:])
            listener = socket.socket(family, kind, protocol)
            sockets.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.settimeout(0)
            listener.bind(bound)
    except BaseException:
        for listener in sockets:
            listener.close()
        raise
    return sockets


class Acceptor:
    """Takes the callers that wait beside the one that has just been accepted."""

    def __init__(self, loop: asyncio.AbstractEventLoop, factory: Callable[[], asyncio.Protocol]) -> None:
        self._loop = loop
        self._factory = factory
        self._listeners: Sequence[socket.socket] = ()
        self._due = False
        self._tasks: set[asyncio.Task[None]] = set()

    def watch(self, listeners: Sequence[socket.socket]) -> None:
        self._listeners = listeners

    def accepted(self) -> None:
        """A connection was accepted; there may be more."""
        if not self._due and self._listeners:
            self._due = True
            self._loop.call_soon(self._accept)

    def stop(self) -> None:
        self._listeners = ()

    def _accept(self) -> None:
        self._due = False
        for listener in self._listeners:
            for _ in range(_AT_ONCE):
                try:
                    connection, _address = listener.accept()
                except OSError:  # nobody waits, or we may hold no more
                    break
                connection.settimeout(0)
                task = self._loop.create_task(self._take(connection), name="accept")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _take(self, connection: socket.socket) -> None:
        if not self._listeners:  # stopped meanwhile
            connection.close()
            return
        with contextlib.suppress(OSError):
            await self._loop.connect_accepted_socket(self._factory, connection)
