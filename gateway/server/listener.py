"""Open listening sockets, and accept callers' connections from them in place of the event loop.

libuv, under uvloop, accepts one connection in each round of the loop. When a round serves hundreds of requests, hundreds of
new callers would wait for seconds; and when no file descriptor is left, libuv accepts and closes all that wait. So the
gateway accepts connections itself, on both paths: as many as wait, as far as there is room for them.
"""

import asyncio
import ctypes
import errno
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from gateway.core.errors import Overloaded
from gateway.core.trace_context import new_trace_id
from gateway.server.open_connections import FILES, OpenConnections
from gateway.server.response_before_pipeline import render_refusal
from gateway.thread_and_task_supervisor import Supervisor

BACKLOG: Final = 2048  # callers that wait to be accepted; those beyond try again a second later
_AT_ONCE: Final = 64  # so that a storm of callers does not keep those away who are served already
_REST_S: Final = 0.1  # where no file is left
_SETTLE_S: Final = 0.2  # at a stop: how long handshakes that have begun may take to end
_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def listen(host: str, port: int, *, shared: bool) -> list[socket.socket]:
    """Open listening sockets on `host` and `port`.

    There is one for each address of the host. Raises OSError where one is taken. With `shared`, several processes may
    listen on the same port (SO_REUSEPORT).
    """
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
        for listener in sockets:
            listener.listen(BACKLOG)
    except BaseException:
        for listener in sockets:
            listener.close()
        raise
    return sockets


class Listener:
    """Accepts connections from listening sockets. It makes a protocol for each connection, until `stop_accepting`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sockets: Sequence[socket.socket],
        factory: Callable[[], asyncio.BaseProtocol],
        connections: OpenConnections,
        *,
        supervisor: Supervisor | None = None,
    ) -> None:
        self._supervisor = supervisor or Supervisor()
        self._loop = loop
        self._sockets = sockets
        self._factory = factory
        self._connections = connections
        self._tasks: set[asyncio.Task[None]] = set()
        self._rest: asyncio.TimerHandle | None = None

    @property
    def port(self) -> int:
        return int(self._sockets[0].getsockname()[1])

    def start(self) -> None:
        for listener in self._sockets:
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    async def stop_accepting(self, *, linger_s: float) -> None:
        """Stop accepting new connections.

        It loses none that the kernel has already accepted. A close resets what waits to be accepted. So no new
        handshake begins, those that have begun come to their end, all that wait are taken, and only then are the
        sockets closed.
        """
        if linger_s:
            for listener in self._sockets:
                _refuse_handshakes(listener)
            await asyncio.sleep(min(linger_s, _SETTLE_S))
        for listener in self._sockets:
            for _ in range(BACKLOG // _AT_ONCE + 1):
                if not self._accept(listener):
                    break
        if self._rest is not None:
            self._rest.cancel()
        for listener in self._sockets:
            self._loop.remove_reader(listener.fileno())
            listener.close()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _accept(self, listener: socket.socket) -> bool:
        """Take those who wait; False where nobody is left who could be taken."""
        for _ in range(_AT_ONCE):
            try:
                connection, address = listener.accept()
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    continue  # that one has left again
                self._connections.count_turned_away(
                    FILES, "no caller can be accepted: %s; raise ulimit -n", error.strerror
                )
                if not self._connections.make_room():
                    self._pause()
                return False
            if self._connections.make_room_for(address[0]):
                task = self._supervisor.start_one_off_task("accept", self._take(connection))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                _send_away(connection)
        return True

    async def _take(self, connection: socket.socket) -> None:
        connection.settimeout(0)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(self._factory, connection)
        except OSError:
            connection.close()

    def _pause(self) -> None:
        """Leave them in the system's queue for a moment: there is no file for anybody now."""
        if self._rest is not None:
            return
        for listener in self._sockets:
            self._loop.remove_reader(listener.fileno())
        self._rest = self._loop.call_later(_REST_S, self._go_on)

    def _go_on(self) -> None:
        self._rest = None
        self.start()


def _send_away(connection: socket.socket) -> None:
    with suppress(OSError), connection:
        connection.settimeout(0)
        with suppress(BlockingIOError):
            connection.recv(65536)  # a close with bytes unread would reset the connection under the answer
        connection.send(_too_many())


def _too_many() -> bytes:
    error = Overloaded("The gateway has no room for another connection. Try again in a moment.")
    return render_refusal(error, new_trace_id(), "")


# Classic BPF (linux/filter.h): drop a segment whose flags (byte 13 of the TCP header, RFC 9293 section 3.1) are SYN
# without ACK; take all others.
_NO_SYN: Final = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),
        (0x54, 0, 0, 0x12),
        (0x15, 0, 1, 0x02),
        (0x06, 0, 0, 0),
        (0x06, 0, 0, 0xFFFFFFFF),
    )
)
_SO_ATTACH_FILTER: Final = 26


def _refuse_handshakes(listener: socket.socket) -> None:
    """Let no handshake begin. A caller's system tries again a second later, when the socket is gone: refused, nothing sent.

    Where the system has no such filter (it is Linux's), the moment between the last accept and the close stays.
    """
    program = ctypes.create_string_buffer(_NO_SYN)
    filtered = struct.pack("HP", len(_NO_SYN) // 8, ctypes.addressof(program))
    with suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filtered)
