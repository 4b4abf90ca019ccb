"""The fast server side: aiohttp's server, runner and head parser, with connections of our own."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from email.utils import formatdate
from typing import Any, Final

from aiohttp import web

from gateway.core.exchange import Exchange
from gateway.core.known import KnownHeads
from gateway.server.caller import CallerConnection
from gateway.server.linger import SEND_TIMEOUT_S
from gateway.server.listen import Acceptor

_TICK_S: Final = 0.5


class FastServer(web.Server):
    """Makes and keeps the connections. One timer closes all that are due."""

    def __init__(
        self,
        pipeline: Callable[[Exchange], Coroutine[Any, Any, None]],
        *,
        keepalive_timeout_s: float,
        head_timeout_s: float,
        body_timeout_s: float,
        field_limit_bytes: int,
    ) -> None:
        super().__init__(_not_called)
        self.pipeline = pipeline
        self.keepalive_timeout_s = keepalive_timeout_s
        self.head_timeout_s = head_timeout_s
        self.body_timeout_s = body_timeout_s
        self.field_limit_bytes = field_limit_bytes
        self.head_limit_bytes = max(64 * 1024, 2 * field_limit_bytes)
        self.heads = KnownHeads(field_limit_bytes=field_limit_bytes)
        self._open: set[CallerConnection] = set()
        self.acceptor = Acceptor(self._loop, self)
        self._alarm: asyncio.TimerHandle | None = None
        self._date = b""
        self._date_second = 0

    def __call__(self) -> CallerConnection:  # type: ignore[override]
        return CallerConnection(self, self._loop)

    @property
    def connections(self) -> list[CallerConnection]:  # type: ignore[override]
        return list(self._open)

    def connection_made(self, connection: CallerConnection, transport: asyncio.Transport) -> None:  # type: ignore[override]  # noqa: ARG002
        self._open.add(connection)
        self.acceptor.accepted()
        if self._alarm is None:
            self._alarm = self._loop.call_later(_TICK_S, self._tick)

    def connection_lost(self, connection: CallerConnection, exc: BaseException | None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        self._open.discard(connection)

    def pre_shutdown(self) -> None:
        self.acceptor.stop()
        for connection in tuple(self._open):
            connection.close()

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  (aiohttp's signature)
        await asyncio.gather(*(connection.shutdown(timeout) for connection in tuple(self._open)))
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def date_line(self) -> bytes:
        second = int(time.time())
        if second != self._date_second:
            self._date_second = second
            self._date = f"Date: {formatdate(second, usegmt=True)}\r\n".encode("ascii")
        return self._date

    def _tick(self) -> None:
        now = time.monotonic()
        for connection in tuple(self._open):
            if now >= connection.due:
                connection.expire()
            elif now - connection.stalled_at > SEND_TIMEOUT_S:
                connection.cut()
        self._alarm = self._loop.call_later(_TICK_S, self._tick) if self._open else None


async def _not_called(request: web.BaseRequest) -> web.StreamResponse:
    raise NotImplementedError
