"""What the registry costs: how fast a change is seen, how long a cold start takes, what it holds in memory.

    python -m benchmarks.registry visible --registry sqlite     # or firestore: Google's emulator on this machine
    python -m benchmarks.registry cold --models 10000
    python -m benchmarks.registry stall --models 10000

Each prints one line of JSON per measurement. The figures in docs/scale.md come from it.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import uvloop

from gateway.registry.base import MODELS, Document, Listing, Put, Registry
from gateway.registry.fallback import FileFallback, encode
from gateway.registry.mirror import Mirror
from gateway.registry.schemes import open_registry
from gateway.registry.snapshot import compile_snapshot
from tests.firestore.emulator import Emulator

_BATCH = 500


def body(number: int, **changes: Any) -> dict[str, Any]:
    """A model as a backend describes itself: ten inputs, one output, a digest; about 1.3 KB as JSON."""
    inputs = [{"name": f"feature_{n}", "datatype": "FP64", "shape": [-1]} for n in range(10)]
    backend = {
        "version": "1",
        "url": f"https://model-{number}-abcdefghij-ew.a.run.app",
        "concurrency": 8,
        "platform": "sklearn 1.7.2, python 3.12",
        "artifact": f"gs://artifacts/models/model-{number}/1",
        "artifact_digest": "sha256:" + "0123456789abcdef" * 4,
        "inputs": inputs,
        "outputs": [{"name": "predictions", "datatype": "FP64", "shape": [-1, 1]}],
    }
    return {
        "name": f"model-{number}",
        "description": f"Model number {number} of a large registry",
        "owner": "team-a@example.com",
        "policy": {"timeout_s": 30.0, "max_in_flight": 64},
        "backends": [backend],
        "traffic": {"1": 100},
        **changes,
    }


async def fill(registry: Registry, models: int) -> None:
    for first in range(0, models, _BATCH):
        numbers = range(first, min(first + _BATCH, models))
        puts = [Put(kind=MODELS, name=f"model-{n}", body=body(n), expected=0) for n in numbers]
        await registry.write(*puts, author="benchmark")


async def measure_visible(url: str, *, watchers: int, writes: int, models: int) -> dict[str, Any]:
    """From the start of a write to the new snapshot in every one of `watchers` mirrors."""
    writer = open_registry(url)
    await fill(writer, models)
    # The emulator tells every stream everything of the watched generations anew with each change; the cloud does not.
    await writer.write(Put(kind=MODELS, name="last", body=body(0, name="last"), expected=0), author="b")
    registries = [open_registry(url) for _ in range(watchers)]
    mirrors = [Mirror(registry, first_load_timeout_s=60) for registry in registries]
    await asyncio.gather(*(mirror.start() for mirror in mirrors))
    delays: list[float] = []

    async def seen(mirror: Mirror, generation: int, began: float) -> None:
        if not await mirror.wait_for(generation, timeout_s=30):
            raise TimeoutError(f"generation {generation} was not seen in 30 s")
        delays.append(time.perf_counter() - began)

    next_generation = (await writer.load()).generation + 1
    for n in range(writes):
        began = time.perf_counter()
        waiting = [asyncio.ensure_future(seen(mirror, next_generation + n, began)) for mirror in mirrors]
        await writer.write(
            Put(kind=MODELS, name=f"new-{n}", body=body(n, name=f"new-{n}"), expected=0), author="b"
        )
        await asyncio.gather(*waiting)
    for mirror in mirrors:
        await mirror.stop()
    for registry in (writer, *registries):
        await registry.close()
    return {"watchers": watchers, "writes": writes, "models": models, **spread(delays)}


def spread(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)

    def at(share: float) -> float:
        return round(ordered[min(int(len(ordered) * share), len(ordered) - 1)], 4)

    return {"p50_s": at(0.5), "p99_s": at(0.99), "max_s": round(ordered[-1], 4)}


async def measure_start(url: str, fallback: Path | None = None) -> dict[str, Any]:
    """A cold start, from nothing to a snapshot; the process should do nothing else."""
    before = resident_mb()
    began, cpu = time.perf_counter(), time.process_time()
    registry = open_registry(url)
    mirror = Mirror(
        registry, fallback=FileFallback(fallback) if fallback is not None else None, first_load_timeout_s=120
    )
    longest = asyncio.create_task(longest_stall())
    starting = asyncio.create_task(mirror.start())
    while mirror.snapshot is None:  # noqa: ASYNC110  (what is measured must not tell)
        await asyncio.sleep(0.001)
    found = {
        "models": len(mirror.snapshot.entries),
        "source": mirror.source,
        "seconds": round(time.perf_counter() - began, 3),
        "cpu_s": round(time.process_time() - cpu, 3),
    }
    await starting
    found["confirmed_s"] = round(time.perf_counter() - began, 3) if mirror.connected else None
    longest.cancel()
    found["longest_stall_ms"] = round(1000 * (await asyncio.gather(longest, return_exceptions=False))[0], 1)
    found["rss_mb"] = round(resident_mb() - before, 1)
    await mirror.stop()
    await registry.close()
    return found


async def longest_stall() -> float:
    longest, last = 0.0, time.perf_counter()
    try:
        while True:
            await asyncio.sleep(0.0005)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
    except asyncio.CancelledError:
        return longest


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure_compile(models: int) -> dict[str, Any]:
    documents = [Document(kind=MODELS, name=f"model-{n}", revision=1, body=body(n)) for n in range(models)]
    listing = Listing(registry_id="b", generation=1, documents=tuple(documents))
    began = time.perf_counter()
    snapshot = compile_snapshot(listing)
    first = time.perf_counter() - began
    documents[0] = Document(kind=MODELS, name="model-0", revision=2, body=body(0, owner="b"))
    began = time.perf_counter()
    compile_snapshot(Listing(registry_id="b", generation=2, documents=tuple(documents)), snapshot)
    return {
        "models": models,
        "first_s": round(first, 4),
        "next_s": round(time.perf_counter() - began, 4),
        "fallback_bytes": len(encode(listing)),
        "json_bytes": len(json.dumps(body(0))),
    }


def tell(what: str, found: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"measure": what, **found}) + "\n")
    sys.stdout.flush()


def run(work: Any) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def in_a_process_of_its_own(*arguments: str) -> None:
    import subprocess

    subprocess.run([sys.executable, "-m", "benchmarks.registry", *arguments], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("measure", choices=["visible", "cold", "stall", "start"])
    parser.add_argument("--registry", choices=["sqlite", "firestore"], default="sqlite")
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--watchers", type=int, default=20)
    parser.add_argument("--writes", type=int, default=100)
    parser.add_argument("--url")
    parser.add_argument("--fallback", type=Path)
    given = parser.parse_args()
    if given.measure == "start":
        tell("start " + given.url.partition(":")[0], run(measure_start(given.url, given.fallback)))
        return
    if given.measure == "stall":
        tell("compile", measure_compile(given.models))
        return
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        sqlite = f"sqlite://{folder}/registry.db"
        emulator = Emulator()
        stack.callback(emulator.stop)
        if given.measure == "cold" or given.registry == "firestore":
            emulator.start()
        firestore = f"firestore://bench-{uuid4().hex[:8]}?emulator={emulator.host}"
        if given.measure == "visible":
            url = sqlite if given.registry == "sqlite" else firestore
            found = run(
                measure_visible(url, watchers=given.watchers, writes=given.writes, models=given.models)
            )
            tell(f"visible {given.registry}", found)
            return
        fallback = Path(folder) / "fallback.gz"

        async def prepare() -> None:
            for url in (sqlite, firestore):
                registry = open_registry(url)
                await fill(registry, given.models)
                if url == firestore:
                    await FileFallback(fallback).save(await registry.load())
                await registry.close()

        run(prepare())
        for url in (sqlite, firestore):
            in_a_process_of_its_own("start", "--url", url)
        in_a_process_of_its_own("start", "--url", firestore, "--fallback", str(fallback))
        emulator.kill()
        in_a_process_of_its_own("start", "--url", firestore, "--fallback", str(fallback))


if __name__ == "__main__":
    main()
