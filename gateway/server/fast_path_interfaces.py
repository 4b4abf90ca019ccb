"""The interfaces between the parts of a caller's connection on the fast path. They keep imports acyclic."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, Protocol

from gateway.core.exchange import Exchange
from gateway.core.head_template_cache import HeadTemplateCache
from gateway.core.inline_wakeup_future import InlineWakeupFuture
from gateway.server.open_connections import OpenConnections

if TYPE_CHECKING:
    from gateway.upstream.base import RelayingConnection

# Why reading from a caller pauses.
BODY: Final = 1  # nothing takes more of a request's body yet
PIPELINE: Final = 2  # enough later requests wait


class CallerTransport(Protocol):
    """The caller's connection, as the body and the response of a request use it."""

    body_timeout_s: float
    drained: InlineWakeupFuture | None
    last: bool
    source: "RelayingConnection | None"
    writing_paused: bool

    def write(self, raw: bytes) -> None: ...

    def write_two(self, head: bytes, body: bytes) -> None: ...

    def date_line(self) -> str: ...

    def closes_after_response(self) -> bool: ...

    def send_continue(self) -> None: ...

    def open_tunnel(self, source: "RelayingConnection") -> None: ...

    def pause_reading(self, why: int = BODY) -> None: ...

    def resume_reading(self, why: int = BODY) -> None: ...

    def abort(self) -> None: ...


class ServerState(Protocol):
    """The state that all connections of a server share. It has the pipeline, caches, limits and time-outs."""

    pipeline: Callable[[Exchange], Coroutine[Any, Any, None]]
    heads: HeadTemplateCache
    open: OpenConnections
    requests_count: int
    head_timeout_s: float
    body_timeout_s: float
    keepalive_timeout_s: float
    field_limit_bytes: int
    head_limit_bytes: int

    def connection_made(self, connection: Any, transport: asyncio.Transport) -> None: ...

    def connection_lost(self, connection: Any, exc: BaseException | None = None) -> None: ...

    def date_line(self) -> str: ...
