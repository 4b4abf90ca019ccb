"""One request through the plain path of a gateway in this process: real sockets, with caller and backend on the same loop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.one_request import ANSWER, gateway_in


@asynccontextmanager
async def plain_request(**flags: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """A function that sends the request and waits for its answer. Raises RuntimeError where that is not 200."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Backend, "127.0.0.1", 0)
    backend = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with TemporaryDirectory() as folder:
        async with gateway_in(Path(folder), backend=backend, **{"server.path": "plain", **flags}) as (
            gateway,
            request,
        ):
            _, caller = await loop.create_connection(_Caller, "127.0.0.1", gateway.port)

            async def ask() -> None:
                await caller.ask(request)

            yield ask
            caller.transport.close()
    server.close()


class _Backend(asyncio.Protocol):
    """Answers each request of 1 KB, which may come in two pieces."""

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received.endswith(b'"}'):
            self._received = b""
            self._transport.write(ANSWER)


class _Caller(asyncio.Protocol):
    _answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    async def ask(self, request: bytes) -> None:
        self._answered = asyncio.get_running_loop().create_future()
        self._answer = b""
        self.transport.write(request)
        await self._answered

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, end, body = self._answer.partition(b"\r\n\r\n")
        if end and not head.startswith(b"HTTP/1.1 200 "):
            self._answered.set_exception(RuntimeError(f"answered {head[:60]!r} instead of 200"))
        elif end and len(body) == 1024:
            self._answered.set_result(None)
