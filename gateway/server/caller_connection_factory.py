"""The factory of callers' connections.

It makes a `CallerConnection` for each one on the fast path, and holds what all of them share.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from email.utils import formatdate
from typing import Any

from aiohttp import web

from gateway.core.exchange import Exchange
from gateway.core.head_template_cache import HeadTemplateCache
from gateway.server.caller_connection import CallerConnection
from gateway.server.open_connections import OpenConnections


class CallerConnectionFactory(web.Server):
    """Makes a `CallerConnection` for each new connection.

    It is a protocol factory, and an aiohttp server so that aiohttp's runner can stop it.
    """

    def __init__(
        self,
        pipeline: Callable[[Exchange], Coroutine[Any, Any, None]],
        *,
        keepalive_timeout_s: float,
        head_timeout_s: float,
        body_timeout_s: float,
        field_limit_bytes: int,
        connections: OpenConnections,
    ) -> None:
        super().__init__(_not_called)
        self.pipeline = pipeline
        self.keepalive_timeout_s = keepalive_timeout_s
        self.head_timeout_s = head_timeout_s
        self.body_timeout_s = body_timeout_s
        self.field_limit_bytes = field_limit_bytes
        self.head_limit_bytes = max(64 * 1024, 2 * field_limit_bytes)
        self.heads = HeadTemplateCache(longest_head_bytes=field_limit_bytes)
        self.open = connections
        self._date = ""
        self._date_second = 0

    def __call__(self) -> CallerConnection:  # type: ignore[override]
        return CallerConnection(self, self._loop)

    @property
    def connections(self) -> list[CallerConnection]:  # type: ignore[override]
        return list(self.open)  # type: ignore[arg-type]  # nothing else is in there

    def connection_made(self, connection: CallerConnection, transport: asyncio.Transport) -> None:  # type: ignore[override]  # noqa: ARG002
        self.open.add(connection)

    def connection_lost(self, connection: CallerConnection, exc: BaseException | None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        self.open.remove(connection)

    def pre_shutdown(self) -> None:
        for connection in self.connections:
            connection.close_when_idle()

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  (aiohttp's signature)
        await asyncio.gather(*(connection.shutdown(timeout) for connection in self.connections))
        self.open.stop_timers()

    def date_line(self) -> str:
        now = time.time()
        if not 0.0 <= now - self._date_second < 1.0:
            second = self._date_second = int(now)
            self._date = f"Date: {formatdate(second, usegmt=True)}\r\n"
        return self._date


async def _not_called(request: web.BaseRequest) -> web.StreamResponse:
    raise NotImplementedError
