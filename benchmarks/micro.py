"""What one request costs in this process alone: no socket, no system call, the best of many batches.

`python -m benchmarks.micro` prints microseconds; `--profile` says where they go.
"""

import argparse
import asyncio
import cProfile
import io
import pstats
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from benchmarks.bench import CASES, FirestoreLocation, make_registry, request_bytes
from gateway.app import Gateway
from gateway.server.caller_connection import CallerConnection
from gateway.server.fast import FastServer
from gateway.server.open_connections import OpenConnections
from gateway.settings import load_settings
from gateway.telemetry.logs import LogWriter
from gateway.upstream.connection import Connection
from gateway.upstream.fast import FastUpstream

ANSWER = (
    b"HTTP/1.1 200 OK\r\ndate: Tue, 24 Nov 2026 03:00:00 GMT\r\nserver: uvicorn\r\ncontent-type: application/json\r\n"
    b"server-timing: predict;dur=1.2\r\nx-chips-model: m@1\r\ncontent-length: 1024\r\n\r\n" + b"x" * 1024
)


class Wire(asyncio.Transport):
    """A transport that leads nowhere."""

    def write(self, data: Any) -> None:
        self.last = data

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ARG002
        return ("127.0.0.1", 1) if name == "peername" else None


async def run(batches: int, size: int, *, profile: bool) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder)
        key = await make_registry(path / "small.db")
        flags = {
            "registry": f"sqlite://{path}/small.db",
            "server.port": "0",
            "server.host": "127.0.0.1",
            "edge.networks": "127.0.0.0/8,203.0.113.0/24",
            "edge.trusted_hops": "1",
            "log.format": "json",
            "trace.store": f"{path}/store.db",
        }
        logs = LogWriter(io.TextIOWrapper(io.BytesIO()))
        logs.write = lambda line: None  # type: ignore[method-assign]  # noqa: ARG005
        gateway = Gateway(load_settings(flags=flags, environ={}), logs)
        await gateway.start()
        upstream = cast("FastUpstream", gateway.upstream)
        request = request_bytes(FirestoreLocation(path, key, ""), CASES["1k"])
        origin = upstream._open_origin("http://127.0.0.1:18090")
        backend = Connection(origin.pool)
        backend.connection_made(Wire())
        origin.pool.busy.add(backend)
        origin.pool.release(backend)
        server = FastServer(
            gateway.pipeline,
            keepalive_timeout_s=60,
            head_timeout_s=20,
            body_timeout_s=15,
            field_limit_bytes=16384,
            connections=OpenConnections(asyncio.get_running_loop()),
        )
        caller = CallerConnection(server, asyncio.get_running_loop())
        wire = Wire()
        caller.connection_made(wire)

        def once() -> None:
            caller.data_received(request)
            backend.data_received(ANSWER)

        caller.data_received(request)
        await asyncio.sleep(0.1)  # the key is read from the registry once
        backend.data_received(ANSWER)
        await asyncio.sleep(0.1)
        assert wire.last.startswith(b"HTTP/1.1 200"), wire.last
        once()
        assert wire.last.startswith(b"HTTP/1.1 200"), wire.last
        if profile:
            profiler = cProfile.Profile()
            profiler.enable()
            for _ in range(size):
                once()
            profiler.disable()
            pstats.Stats(profiler).sort_stats("tottime").print_stats(45)
        best = float("inf")
        for _ in range(batches):
            began = time.process_time()
            for _ in range(size):
                once()
            best = min(best, (time.process_time() - began) / size * 1e6)
        print(f"{best:.2f} us a request, in Python alone")
        caller.connection_lost(None)
        origin.pool.discard(backend)
        await gateway.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.micro", description=__doc__)
    parser.add_argument("--batches", type=int, default=400)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    asyncio.run(run(given.batches, given.size, profile=given.profile))


if __name__ == "__main__":
    main()
