"""The server under the app: it listens, knows its connections, and lets what runs finish at the end."""

import asyncio
import errno
import socket
import time
from email.utils import formatdate
from typing import Any, Final

from chips_backend.connection import Application, Connection

_ABORT_S: Final = 0.5  # for what is cut off at the end to say so in the log


class Server:
    """A listening socket and the connections that it has accepted."""

    def __init__(self, app: Application, *, stop_grace_s: float) -> None:
        self._app = app
        self._stop_grace_s = stop_grace_s
        self._open: set[Connection] = set()
        self._all_closed: asyncio.Future[None] | None = None
        self._listener: asyncio.Server | None = None
        self._second = 0
        self._date = ""
        self.draining = False

    async def listen(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: Connection(self._app, self, loop), sock=sock, backlog=128
        )

    @property
    def addresses(self) -> list[Any]:
        return [each.getsockname() for each in self._listener.sockets] if self._listener else []

    def date(self) -> str:
        now = int(time.time())
        if now != self._second:
            self._second, self._date = now, formatdate(now, usegmt=True)
        return self._date

    def opened(self, connection: Connection) -> None:
        self._open.add(connection)
        if self.draining:  # it was accepted before, and nobody would close it
            connection.close()

    def closed(self, connection: Connection) -> None:
        self._open.discard(connection)
        if not self._open and self._all_closed is not None and not self._all_closed.done():
            self._all_closed.set_result(None)

    async def cleanup(self) -> None:
        """Accept nothing more; let what runs finish, but for no longer than the grace."""
        self.draining = True
        if self._listener is not None:
            self._listener.close()
        if not self._open:
            return
        self._all_closed = asyncio.get_running_loop().create_future()
        for connection in list(self._open):
            connection.close()
        await asyncio.wait({self._all_closed}, timeout=self._stop_grace_s)
        for connection in list(self._open):
            connection.abort()
        await asyncio.wait({self._all_closed}, timeout=_ABORT_S)


async def listen(app: Application, port: int, *, stop_grace_s: float) -> Server:
    """Serve `app` on all interfaces; `cleanup()` of what is returned stops accepting and lets what runs finish."""
    server = Server(app, stop_grace_s=stop_grace_s)
    await server.listen(_socket(port))
    return server


def _socket(port: int) -> socket.socket:
    """One socket for all interfaces of both families, so that port 0 means one port."""
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError as error:
            if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                raise
    return socket.create_server(("", port))
