"""The two protocol adapters on wires that lead nowhere, with an oracle: what may be answered, and what may not."""

import asyncio
from collections.abc import Sequence
from typing import Any

from gateway.core.direct_response import Response
from gateway.core.exchange import Exchange
from gateway.core.head_template_cache import HeadTemplateCache
from gateway.core.inline_wakeup_future import InlineWakeupFuture
from gateway.core.trace_context import continue_trace
from gateway.server.caller_connection import CallerConnection
from gateway.server.caller_connection_factory import CallerConnectionFactory
from gateway.server.open_connections import OpenConnections
from gateway.upstream.backend_connection import BackendConnection
from gateway.upstream.connection_pool import Pool


class Wire(asyncio.Transport):
    """A transport that remembers what was written, and refuses to be written to once it was cut."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.cut = False

    def write(self, data: Any) -> None:
        assert not self.cut, "bytes after a cut"
        if not self.closed:
            self.written += bytes(data)

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self.closed or self.cut

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.cut = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.closed = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default


class Callers:
    """A caller's connection whose pipeline answers each request with its target and body, and notes them down.

    `late`: not before `release`. `flowing`: it takes the body as it comes. `blind`: it answers without a look at the body.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        late: bool = False,
        flowing: bool = False,
        blind: bool = False,
    ) -> None:
        self._late = late
        self._flowing = flowing
        self._blind = blind
        self._gate: InlineWakeupFuture | None = None
        self.seen: list[tuple[str, bytes]] = []  # requests that were answered well
        self.methods: list[str] = []  # of all requests, in their order
        self.wire = Wire()
        asyncio.set_event_loop(loop)
        self.server = CallerConnectionFactory.__new__(CallerConnectionFactory)
        self.server._loop = loop
        self.server.open = OpenConnections(loop)
        self.server.open._alarm = loop.call_later(3600, lambda: None)
        self.server._date, self.server._date_second = "", 0
        self.server.heads = HeadTemplateCache(longest_head_bytes=8192)
        self.server.requests_count = 0
        self.server.pipeline = self.pipeline
        self.server.keepalive_timeout_s = self.server.head_timeout_s = self.server.body_timeout_s = 60
        self.server.field_limit_bytes, self.server.head_limit_bytes = 8192, 65536
        self.connection = CallerConnection(self.server, loop)
        self.connection.connection_made(self.wire)

    async def pipeline(self, exchange: Exchange) -> None:
        exchange.trace = continue_trace(None)
        exchange.request_id = "r"
        body: Any = exchange.body
        self.methods.append(exchange.method)
        if self._late:
            self._gate = InlineWakeupFuture()
            await self._gate
        try:
            if self._blind:
                whole = b""
            elif self._flowing:
                sink = _Sink()
                body.pipe_to(sink, 1 << 20)
                await sink.completion
                whole = sink.taken
            else:
                whole = await body.read_small_body()
        except Exception as error:  # noqa: BLE001
            exchange.error = error  # type: ignore[assignment]
            await exchange.response.send(Response(400, (), b"bad"))
            return
        self.seen.append((exchange.raw_target, whole))
        await exchange.response.send(Response(200, (), exchange.raw_target.encode() + b" " + whole))

    def feed(self, data: bytes, step: int) -> None:
        """Raises where the adapter does."""
        for i in range(0, len(data), step):
            if self.wire.closed or self.wire.cut:
                break
            self.connection.data_received(data[i : i + step])

    def release(self) -> None:
        """Let every request that waits be answered."""
        while self._gate is not None:
            gate, self._gate = self._gate, None
            gate.complete()

    def leave(self) -> None:
        self.connection.connection_lost(None)
        self.server.open.stop_timers()


class _Sink:
    def __init__(self) -> None:
        self.completion = InlineWakeupFuture()
        self.taken = b""

    def upload(self, piece: bytes) -> None:
        self.taken += piece

    def upload_end(self, trailers: bytes) -> None:
        self.completion.complete()

    def upload_failed(self, error: BaseException) -> None:
        self.completion.complete(error)


def answers_in(raw: bytes, methods: Sequence[str] = ()) -> list[tuple[int, bytes]]:
    """The answers on a caller's wire, each with a length; `methods` say which of them have no body all the same."""
    found: list[tuple[int, bytes]] = []
    while raw:
        head, _, rest = raw.partition(b"\r\n\r\n")
        if head == b"HTTP/1.1 100 Continue":
            raw = rest
            continue
        length = next(
            int(line[16:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length: ")
        )
        if len(found) < len(methods) and methods[len(found)] == "HEAD":
            length = 0
        assert len(rest) >= length, "an answer that is not whole"
        found.append((int(head[9:12]), rest[:length]))
        raw = rest[length:]
    return found


class Relayed:
    """A reply that takes down what is relayed to it."""

    def __init__(self, *, upgrading: bool = False) -> None:
        self.upgrading = upgrading
        self.status = 0
        self.body = b""
        self.ended = False
        self.started = False

    def relay(self, head: Any, body: bytes, *, complete: bool, source: Any, trailers: bytes = b"") -> None:
        assert not self.started, "two answers to one request"
        self.started = True
        self.status = head.status
        self.body = body
        self.ended = complete

    def relay_piece(self, piece: bytes) -> None:
        assert self.started, "a body before its head"
        assert not self.ended, "bytes after the end"
        self.body += piece

    def relay_end(self, trailers: bytes) -> None:
        assert not self.ended, "two ends"
        self.ended = True

    def relay_interim(self, head: Any) -> None:
        assert 102 <= head.status <= 199
        assert not self.started

    def relay_tunnel(self, head: Any, first: bytes, source: Any) -> None:
        assert self.upgrading, "a tunnel that nobody asked for"
        assert not self.started, "two answers to one request"
        self.started = True
        self.body = first


class _Exchange:
    def __init__(self, reply: Relayed, method: str) -> None:
        self.response = reply
        self.method = method
        self.deadline = float("inf")
        self.backend_server_timing: bytes | None = None
        self.bytes_in = 0


class _Attempt:
    answered: float | None = None
    status: int | None = None
    sent: float | None = None


class Backends:
    """A connection to a backend with one request under way."""

    def __init__(self, method: str = "POST", *, upgrading: bool = False) -> None:
        self.pool = Pool(host="b", port=1, limit=1, connect_timeout_s=1, idle_s=1)
        self.wire = Wire()
        self.connection = BackendConnection(self.pool)
        self.connection.connection_made(self.wire)
        self.pool.busy.add(self.connection)
        self.error: BaseException | None = None
        self.came = 0
        self.start(method, upgrading=upgrading)

    def start(self, method: str, *, upgrading: bool = False) -> None:
        self.error = None
        self.came = 0
        self.response = Relayed(upgrading=upgrading)
        exchange: Any = _Exchange(self.response, method)
        attempt: Any = _Attempt()
        self.completion: InlineWakeupFuture = self.connection.start_exchange(
            exchange, attempt, b"request", upgrading=upgrading
        )
        self.completion.wake = self._come

    def _come(self) -> None:
        self.came += 1
        self.error = self.completion._error

    def feed(self, data: bytes, step: int) -> None:
        for i in range(0, len(data), step):
            if self.wire.closed or self.wire.cut:
                break
            self.connection.data_received(data[i : i + step])

    def end(self) -> None:
        """The backend closes."""
        if not self.wire.cut:
            self.connection.connection_lost(None)

    def check(self) -> None:
        """What must hold whatever the backend sent."""
        assert self.came <= 1
        if self.connection in self.pool.idle:
            assert self.came == 1
            assert self.error is None
            assert self.response.ended
            assert not self.wire.is_closing()
        if self.error is not None:
            assert not self.response.ended, "a failed answer that looks complete"
            assert self.wire.cut or self.connection.transport is None
        if self.came and self.error is None:
            assert self.response.ended
