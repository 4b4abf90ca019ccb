"""The bounded pool of connections to one backend, with a waiting queue and a circuit breaker.

The queue is first come, first served. The circuit breaker spares a backend that lets connections time out.
"""

import asyncio
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Final

import aiohappyeyeballs

from gateway.core.errors import GatewayError, UpstreamUnavailable, UpstreamUnreachable
from gateway.core.inline_wakeup_future import InlineWakeupFuture
from gateway.thread_and_task_supervisor import Supervisor
from gateway.upstream.backend_connection import BackendConnection
from gateway.upstream.backend_tls import SessionResumingContext

if TYPE_CHECKING:
    from gateway.upstream.base import EgressCheck

_HAPPY_EYEBALLS_S: Final = 0.25  # RFC 8305 section 8
_RESOLVED_FOR_S: Final = 30.0
_CONNECT_TIMEOUTS_TO_OPEN: Final = 5
_CIRCUIT_OPEN_S: Final = 2.0

AddressInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]


class _Waiter:
    __slots__ = ("completion", "connection", "deadline")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.completion = InlineWakeupFuture()
        self.connection: BackendConnection | None = None


class Pool:
    """The pool of connections to one backend.

    `acquire_idle` one, or `acquire` to wait for one; `release` or `remove` it afterwards.

    The connection used last is taken first, so that a burst's connections grow old and close; requests that wait are
    served in order of arrival. `opens`, `reuses`, `waits`, `failures`, `refusals` and `repeats` only ever grow.

    A backend that lets connections time out, one after another, is not connected to for a moment: a request that needs a new
    connection is refused at once, and then one is tried. A backend that refuses a connection does so at once itself.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        limit: int,
        connect_timeout_s: float,
        idle_s: float,
        tunnel_idle_s: float = 3600.0,
        tls: SessionResumingContext | None = None,
        egress_policy: "EgressCheck | None" = None,
        supervisor: Supervisor | None = None,
    ) -> None:
        self._supervisor = supervisor or Supervisor()
        self.host = host
        self.port = port
        self.tunnel_idle_s = tunnel_idle_s
        self.idle: list[BackendConnection] = []
        self.busy: set[BackendConnection] = set()
        self.opens = 0
        self.reuses = 0
        self.waits = 0
        self.failures = 0
        self.refusals = 0
        self.repeats = 0  # requests sent again because a pooled connection was already closed
        self._limit = limit
        self._connect_timeout_s = connect_timeout_s
        self._idle_s = idle_s
        self._tls = tls
        self._egress_policy = egress_policy
        self._waiters: deque[_Waiter] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._resolved: list[AddressInfo] = []
        self._resolved_at = 0.0
        self._connect_timeouts = 0  # connections that timed out, with nothing else in between
        self._circuit_open_until = 0.0
        self._now = time.monotonic()  # as of the last `close_idle`: good enough to say what has been idle

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    @property
    def circuit_open(self) -> bool:
        """Whether the circuit breaker is open. If it is, only a trial connection is opened now and then."""
        return self._connect_timeouts >= _CONNECT_TIMEOUTS_TO_OPEN

    @property
    def has_requests(self) -> bool:
        """Whether any request is on a connection of the pool, or waits for one. Each has a deadline."""
        return bool(self.busy or self._waiters)

    @property
    def is_empty(self) -> bool:
        """Whether the pool is empty. It has no connection and no waiting request, so it can be removed."""
        return not (self.idle or self.busy or self._waiters or self._opening)

    def acquire_idle(self) -> BackendConnection | None:
        idle = self.idle
        while idle:
            connection = idle.pop()
            transport = connection.transport
            if transport is not None and not transport.is_closing():
                self.busy.add(connection)
                self.reuses += 1
                return connection
        return None

    async def acquire(self, deadline: float) -> BackendConnection:
        """Acquire a connection from the pool before `deadline`.

        It opens one, or takes one that becomes free first. Raises UpstreamUnreachable or UpstreamUnavailable.
        """
        if (
            self.circuit_open
            and not self.busy
            and (self._opening or time.monotonic() < self._circuit_open_until)
        ):
            self.refusals += 1
            raise _circuit_open_error()
        waiter = _Waiter(deadline)
        self._waiters.append(waiter)
        self.waits += 1
        self._grow()
        try:
            await waiter.completion
        except BaseException:
            if waiter.connection is not None:  # it came at the very moment the caller left
                self.release(waiter.connection)
            elif waiter in self._waiters:
                self._waiters.remove(waiter)
            raise
        connection = waiter.connection
        assert connection is not None  # noqa: S101
        return connection

    def release(self, connection: BackendConnection) -> None:
        """Take a reusable connection back into the pool. `remove` one that cannot carry another request."""
        if self._tls is not None and connection.uses == 1:
            self._tls.remember_session(connection.transport)
        transport = connection.transport
        if transport is None or transport.is_closing():
            self.remove(connection)
        elif self._waiters:
            waiter = self._waiters.popleft()
            self.reuses += 1
            waiter.connection = connection
            waiter.completion.complete()
        else:
            self.busy.discard(connection)
            connection.idle_since = self._now
            self.idle.append(connection)

    def remove(self, connection: BackendConnection) -> None:
        """Remove the connection from the pool, without closing it: it is closed, or closes itself."""
        if connection in self.busy:
            self.busy.remove(connection)
            if self._waiters:
                self._grow()
        elif connection in self.idle:
            self.idle.remove(connection)

    def close_idle(self, now: float) -> None:
        """Close the connections that have been idle for longer than `idle_s`."""
        self._now = now
        idle = self.idle
        while idle and now - idle[0].idle_since > self._idle_s:
            connection = idle.pop(0)
            if connection.transport is not None:
                connection.transport.close()

    def overdue_connections(self, now: float) -> list[BackendConnection]:
        """The connections whose request has passed its deadline."""
        return [connection for connection in self.busy if now >= connection.deadline]

    def expire_waiters(self, now: float) -> None:
        for waiter in [waiter for waiter in self._waiters if now >= waiter.deadline]:
            self._waiters.remove(waiter)
            waiter.completion.complete(TimeoutError())

    async def close(self) -> None:
        for task in tuple(self._opening):
            task.cancel()
        if self._opening:
            await asyncio.gather(*self._opening, return_exceptions=True)
        for connection in (*self.idle, *self.busy):
            connection.abort()
        self.idle.clear()

    # -- opening

    def _grow(self) -> None:
        while len(self._opening) < len(self._waiters) and (
            len(self.busy) + len(self.idle) + len(self._opening) < self._limit
        ):
            task = self._supervisor.start_one_off_task("connections to backends", self._open())
            self._opening.add(task)

    async def _open(self) -> None:
        task = asyncio.current_task()
        error: GatewayError | None = None
        connection: BackendConnection | None = None
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                connection = await self._connect()
            self._connect_timeouts = 0
        except GatewayError as refused:
            error = refused
        except TimeoutError as silence:
            error = UpstreamUnreachable("The backend cannot be reached.")
            error.__cause__ = silence
            self._connect_timeouts += 1
            self._circuit_open_until = time.monotonic() + _CIRCUIT_OPEN_S
        except OSError as failure:  # an ssl.SSLError is one
            error = UpstreamUnreachable("The backend cannot be reached.")
            error.__cause__ = failure
            self._connect_timeouts = 0
        finally:
            if task is not None:
                self._opening.discard(task)
        if connection is not None:
            self.opens += 1
            if connection.usable:
                self.busy.add(connection)
                self._serve(connection)
                return
            error = UpstreamUnreachable("The backend closed the connection at once.")
        self.failures += 1
        self._resolved = []  # the name may lead elsewhere by now
        if self._waiters:
            self._waiters.popleft().completion.complete(error)
        if self.circuit_open and not self.busy:  # nor does anybody else find out by waiting
            waiters, self._waiters = self._waiters, deque()
            self.refusals += len(waiters)
            for waiter in waiters:
                waiter.completion.complete(_circuit_open_error())
        self._grow()  # a place is free again for the next waiter

    def _serve(self, connection: BackendConnection) -> None:
        if self._waiters:
            waiter = self._waiters.popleft()
            waiter.connection = connection
            waiter.completion.complete()
        else:
            self.release(connection)

    async def _connect(self) -> BackendConnection:
        addresses = await self._resolve()
        if self._egress_policy is not None:
            self._egress_policy(self.host, [str(info[4][0]) for info in addresses])
        loop = asyncio.get_running_loop()
        sock = await aiohappyeyeballs.start_connection(
            addresses,
            happy_eyeballs_delay=_HAPPY_EYEBALLS_S,
            interleave=1,
            loop=loop,
        )
        dialed = None if self._tls is None else time.monotonic()
        try:
            _, connection = await loop.create_connection(
                lambda: BackendConnection(self, dialed),
                sock=sock,
                ssl=self._tls,
                server_hostname=self.host if self._tls is not None else None,
            )
        except BaseException:
            sock.close()
            raise
        return connection

    async def _resolve(self) -> list[AddressInfo]:
        now = time.monotonic()
        if not self._resolved or now - self._resolved_at > _RESOLVED_FOR_S:
            found = await asyncio.get_running_loop().getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
            )
            self._resolved = found  # type: ignore[assignment]
            self._resolved_at = now
        return self._resolved


def _circuit_open_error() -> UpstreamUnavailable:
    return UpstreamUnavailable("The backend could not be reached just now. Try again in a moment.")
