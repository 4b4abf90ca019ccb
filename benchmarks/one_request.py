"""One request through a gateway in this process: no socket, no thread that wakes, no system call."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, cast

from benchmarks.bench import make_registry
from benchmarks.load import CASES, LIMITED_KEY, request_bytes
from benchmarks.proxies import RunFiles
from gateway.app import Gateway
from gateway.server.caller_connection import CallerConnection
from gateway.server.caller_connection_factory import CallerConnectionFactory
from gateway.server.open_connections import OpenConnections
from gateway.settings import load_settings
from gateway.telemetry.logs import LogWriter
from gateway.upstream.backend_connection import BackendConnection
from gateway.upstream.pooled_client import PooledUpstream

BACKEND = "http://127.0.0.1:18090"
ANSWER = (
    b"HTTP/1.1 200 OK\r\ndate: Tue, 24 Nov 2026 03:00:00 GMT\r\nserver: uvicorn\r\ncontent-type: application/json\r\n"
    b"server-timing: predict;dur=1.2\r\nx-chips-model: m@1\r\ncontent-length: 1024\r\n\r\n" + b"x" * 1024
)


class Wire(asyncio.Transport):
    """A transport that leads nowhere."""

    last: bytes = b""

    def write(self, data: Any) -> None:
        self.last = data

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None: ...

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ARG002
        return ("127.0.0.1", 1) if name == "peername" else None


class Request(NamedTuple):
    """A request, the status that it is to be answered with, and a call that takes it through the gateway once."""

    raw: bytes
    status: int
    once: Callable[[], None]


@asynccontextmanager
async def gateway_in(
    folder: Path, *, backend: str = BACKEND, **flags: str
) -> AsyncIterator[tuple[Gateway, bytes]]:
    """A gateway with every duty on, and the bytes of a request that it accepts."""
    key = await make_registry(folder / "small.db", backend=backend)
    settings = {
        "registry": f"sqlite://{folder}/small.db",
        "server.port": "0",
        "server.host": "127.0.0.1",
        "edge.networks": "127.0.0.0/8,203.0.113.0/24",
        "edge.trusted_hops": "1",
        "log.format": "json",
        "trace.store": f"{folder}/store.db",
        **flags,
    }
    logs = LogWriter(io.TextIOWrapper(io.BytesIO()), limit_lines=10**9)  # its thread is never started
    gateway = Gateway(load_settings(flags=settings, environ={}), logs)
    await gateway.start()
    try:
        yield gateway, request_bytes(RunFiles(folder, key, ""), CASES["1k"])
    finally:
        await gateway.stop()


@asynccontextmanager
async def requests_in_process(**flags: str) -> AsyncIterator[dict[str, Request]]:
    """Requests by name: one that is accepted, and those that strangers cause."""
    with TemporaryDirectory() as folder:
        async with gateway_in(Path(folder), **flags) as (gateway, accepted):
            upstream = cast("PooledUpstream", gateway.upstream)
            origin = upstream._open_origin(BACKEND)
            backend = BackendConnection(origin.pool)
            backend.connection_made(Wire())
            origin.pool.busy.add(backend)
            origin.pool.release(backend)
            server = CallerConnectionFactory(
                gateway.pipeline.__call__,
                keepalive_timeout_s=3600,
                head_timeout_s=3600,
                body_timeout_s=3600,
                field_limit_bytes=16384,
                connections=OpenConnections(asyncio.get_running_loop()),
            )
            key = accepted.partition(b"X-Api-Key: ")[2].partition(b"\r\n")[0]
            variants = {
                "accepted": (accepted, 200),
                "bad key": (accepted.replace(key, b"x" * len(key)), 401),
                "not on the allow-list": (accepted.replace(b"203.0.113.7", b"198.51.100.7"), 403),
                "over its rate": (accepted.replace(key, LIMITED_KEY.encode()), 429),
            }
            callers = []
            made = {}
            for name, (raw, status) in variants.items():
                caller = CallerConnection(server, asyncio.get_running_loop())
                wire = Wire()
                caller.connection_made(wire)
                callers.append(caller)

                def once(caller: CallerConnection = caller, raw: bytes = raw) -> None:
                    caller.data_received(raw)
                    if backend._completion is not None:
                        backend.data_received(ANSWER)

                caller.data_received(raw)
                while not wire.last:  # the key is read from the registry once
                    if backend._completion is not None:
                        backend.data_received(ANSWER)
                    await asyncio.sleep(0.01)
                once()
                if not wire.last.startswith(b"HTTP/1.1 %d " % status):
                    raise RuntimeError(f"{name}: answered {wire.last[:60]!r} instead of {status}")
                made[name] = Request(raw, status, once)
            yield made
            for caller in callers:
                caller.connection_lost(None)
            origin.pool.remove(backend)
