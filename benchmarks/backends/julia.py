"""What the Julia backend takes to start, to answer and to hold: `python -m benchmarks.backends.julia`, two minutes.

Prints Markdown. All of it is measured in one run, so that its parts can be compared on a machine that is busy.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from gateway.free_ports import claim_free_port
from tests.contract.backends.languages import JULIA_LINEAR, Julia, genie_manifests, make_julia
from tests.contract.backends.linear import publish
from tests.contract.backends.process import JULIA_PREDICT, Backend

SECONDS = 3.0
LARGE_BYTES = 31 * 1024 * 1024 - 100


def percentile(values: Sequence[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)]


def body_of(rows: int, **parameters: Any) -> bytes:
    return json.dumps({"instances": [[1.5, 2, 3]] * rows, "parameters": parameters}).encode()


class Client:
    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url, self._session = url, session

    async def post(self, body: bytes) -> int:
        headers = {"Content-Type": "application/json"}
        async with self._session.post(self._url + "/predict", data=body, headers=headers) as answer:
            await answer.read()
            return answer.status

    async def live(self) -> float:
        began = time.monotonic()
        async with self._session.get(self._url + "/v2/health/live") as answer:
            await answer.read()
        return (time.monotonic() - began) * 1000

    async def latencies(self, rows: int, callers: int) -> list[float]:
        body, taken, ends = body_of(rows), [], time.monotonic() + SECONDS

        async def call() -> None:
            while time.monotonic() < ends:
                began = time.monotonic()
                if await self.post(body) == 200:
                    taken.append((time.monotonic() - began) * 1000)

        await asyncio.gather(*(call() for _ in range(callers)))
        return taken

    async def health_while(self, *bodies: bytes) -> list[float]:
        """How long health takes while these are answered."""
        work = [asyncio.ensure_future(self.post(body)) for body in bodies]
        taken = []
        while not all(task.done() for task in work):
            taken.append(await self.live())
            await asyncio.sleep(0.005)
        assert {task.result() for task in work} == {200}
        return taken


def memory_mib(pid: int, field: str) -> int:
    found = 0
    for process in [
        pid,
        *map(
            int,
            subprocess.run(
                ["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False
            ).stdout.split(),
        ),
    ]:
        status = Path(f"/proc/{process}/status").read_text()
        found = max(found, int(re.search(rf"{field}:\s+(\d+)", status)[1]) // 1024)  # type: ignore[index]
    return found


def row(*cells: Any) -> None:
    print("| " + " | ".join(f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in cells) + " |")


async def measure(julia: Julia, folder: Path) -> None:
    model = folder / "model.jls"
    julia.run("-e", f'using Serialization; serialize("{model}", [2.0, 3.0, 1.0])')
    publish(str(folder / "store"), model)
    environ = {**julia.environ, "PREDICT": JULIA_LINEAR, "CHIPS_CONCURRENCY": "2"}
    began = time.monotonic()
    backend = Backend(JULIA_PREDICT, {**environ, "CHIPS_ARTIFACT": str(folder / "store/linear/1")})
    try:
        url = backend.url
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            client = Client(url, session)
            await client.live()
            live = time.monotonic() - began
            await asyncio.to_thread(backend.ready)
            ready = time.monotonic() - began
            at_ready = memory_mib(backend.pid, "VmRSS")
            first = time.monotonic()
            await client.post(body_of(1))
            row("live s", "ready s", "first request ms", "MiB at ready")
            row(live, ready, (time.monotonic() - first) * 1000, at_ready)
            row("rows", "callers", "p50 ms", "p99 ms", "requests/s")
            for rows in (1, 100, 1000):
                for callers in (1, 8, 64):
                    taken = await client.latencies(rows, callers)
                    row(rows, callers, percentile(taken, 50), percentile(taken, 99), len(taken) / SECONDS)
            row("health ms while", "p50", "longest")
            idle = [await client.live() for _ in range(200)]
            row("nothing else runs", percentile(idle, 50), max(idle))
            computing = await client.health_while(body_of(1, compute_s=3), body_of(1, compute_s=3))
            row("all slots compute", percentile(computing, 50), max(computing))
            large = body_of(LARGE_BYTES // len("[1.5, 2, 3], "))
            reading = await client.health_while(large)
            row(f"{len(large) >> 20} MiB are read", percentile(reading, 50), max(reading))
            row("MiB at most, after that", memory_mib(backend.pid, "VmHWM"), "")
            await beside_plain(julia, client, session)
    finally:
        backend.kill()


async def beside_plain(julia: Julia, client: Client, session: aiohttp.ClientSession) -> None:
    port = claim_free_port()
    program = str(Path(__file__).with_name("plain.jl"))
    plain = await asyncio.create_subprocess_exec(
        *(julia.program, "--startup-file=no", "--threads=2,1", program, str(port)),
        env={**os.environ, **julia.environ},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert plain.stdout is not None
        await plain.stdout.readline()
        other = Client(f"http://127.0.0.1:{port}", session)
        row("rows", "backend p50 ms", "p99", "HTTP.jl alone p50 ms", "p99")
        for rows in (1, 100, 1000):
            await other.latencies(rows, 1)
            ours, theirs = await client.latencies(rows, 1), await other.latencies(rows, 1)
            row(rows, *(percentile(taken, percent) for taken in (ours, theirs) for percent in (50, 99)))
    finally:
        plain.kill()
        await plain.wait()


def main() -> None:
    program = shutil.which(os.environ.get("JULIA", "julia"))
    assert program is not None, "there is no julia, and JULIA names none"
    for manifest in genie_manifests():
        with tempfile.TemporaryDirectory() as name:
            (Path(name) / "project").mkdir()
            print(f"\n{manifest}\n")
            asyncio.run(measure(make_julia(program, manifest, Path(name) / "project"), Path(name)))


if __name__ == "__main__":
    main()
