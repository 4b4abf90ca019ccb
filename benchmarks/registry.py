# Long: one measurement, read from top to bottom.
"""What the registry costs: how fast a change is seen, how long a cold start takes, what it holds in memory.

    python -m benchmarks.registry                               # all of it, in about seven minutes, and a table at the end
    python -m benchmarks.registry visible --registry sqlite     # or firestore: Google's emulator on this machine
    python -m benchmarks.registry cold --models 10000
    python -m benchmarks.registry stall --models 10000
    python -m benchmarks.registry requests                      # CPU of a request with the registry there, and away

Each prints one line of JSON per measurement. The figures in docs/scale.md come from it. It needs Google's Firestore
emulator and java, and for `requests` nginx and wrk.
"""

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import uvloop

from benchmarks.machine import cpu_us, tree
from benchmarks.trace_cost import LUA, NGINX, process, wait_for
from gateway.core.api_keys import digest_key, make_key
from gateway.free_ports import claim_free_port
from gateway.registry.base import KEYS, MODELS, Document, MirroredListing, Put, Registry
from gateway.registry.fallback_copy import FileFallback, encode_fallback
from gateway.registry.mirror import Mirror
from gateway.registry.open_by_url import open_registry
from gateway.registry.snapshot import compile_snapshot
from tests.firestore.cable import Cable
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
    # The emulator tells every stream everything of the watched generations again with each change; the cloud does not.
    await writer.write(Put(kind=MODELS, name="last", body=body(0, name="last"), expected=0), author="b")
    registries = [open_registry(url) for _ in range(watchers)]
    mirrors = [Mirror(registry, first_load_timeout_s=60) for registry in registries]
    await asyncio.gather(*(mirror.start() for mirror in mirrors))
    delays: list[float] = []

    async def seen(mirror: Mirror, generation: int, began: float) -> None:
        if not await mirror.wait_for_generation(generation, timeout_s=30):
            raise TimeoutError(f"generation {generation} was not seen in 30 s")
        delays.append(time.perf_counter() - began)

    next_generation = (await writer.load_mirrored()).generation + 1
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
    listing = MirroredListing(registry_id="b", generation=1, documents=tuple(documents))
    began = time.perf_counter()
    snapshot = compile_snapshot(listing)
    first = time.perf_counter() - began
    documents[0] = Document(kind=MODELS, name="model-0", revision=2, body=body(0, owner="b"))
    changed = MirroredListing(registry_id="b", generation=2, documents=tuple(documents))
    later = []
    for _ in range(11):
        began = time.perf_counter()
        compile_snapshot(changed, snapshot)
        later.append(time.perf_counter() - began)
    return {
        "models": models,
        "first_s": round(first, 4),
        "next_s": round(statistics.median(later), 4),
        "fallback_bytes": len(encode_fallback(listing)),
        "json_bytes": len(json.dumps(body(0))),
    }


def tell(what: str, found: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"measure": what, **found}) + "\n")
    sys.stdout.flush()


def run(work: Any) -> Any:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


async def measure_requests(folder: Path, emulator: Emulator, *, rounds: int, seconds: int) -> dict[str, Any]:
    """CPU of a gateway for each request, the registry there and away in turns: one process, one network cable."""
    cable, backend_port, port = Cable(emulator.port), claim_free_port(), claim_free_port()
    project = f"bench-{uuid4().hex[:8]}"
    key = make_key()
    registry = open_registry(f"firestore://{project}?emulator={emulator.host}")
    model = body(0, name="bench")
    model["backends"][0]["url"] = f"http://127.0.0.1:{backend_port}"
    entry = {"label": "bench", "models": ["*"], "created": "2026-01-01T00:00:00Z"}
    await registry.write(
        Put(kind=MODELS, name="bench", body=model, expected=0),
        Put(kind=KEYS, name=digest_key(key), body=entry, expected=0),
        author="benchmark",
    )
    await fill(registry, 200)
    registry_id = (await registry.load_mirrored()).registry_id
    await registry.close()
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=backend_port, body="y" * 1024))
    (folder / "post.lua").write_text(LUA)
    found: dict[str, list[float]] = {"there": [], "away": []}
    address = f"http://127.0.0.1:{port}"
    load = [
        "wrk",
        "-t1",
        "-c32",
        "-s",
        str(folder / "post.lua"),
        "-H",
        f"X-Api-Key: {key}",
        f"{address}/bench",
    ]
    gateway_environment = {
        "CHIPS_REGISTRY": f"firestore://{project}?emulator={await cable.plug_in()}",
        "CHIPS_SERVER__HOST": "127.0.0.1",
        "CHIPS_SERVER__PORT": str(port),
        "CHIPS_SERVER__WORKERS": "1",
        "CHIPS_TRACE__STORE": str(folder / "requests.db"),
    }
    with (
        process("nginx", "-c", str(folder / "nginx.conf")),
        process(sys.executable, "-m", "gateway", **gateway_environment) as gateway,
    ):
        await asyncio.to_thread(wait_for, f"{address}/-/ready")
        await wrk(load, 2)  # warm, and the key is known
        for number in range(2 * rounds):
            state = ("there", "away")[number % 2]
            cable.mend() if state == "there" else cable.cut()
            connected = state == "there"
            while (await asyncio.to_thread(_registry_state, address, registry_id))["connected"] != connected:  # noqa: ASYNC110  (another process tells)
                await asyncio.sleep(0.1)
            before = cpu_us(tree(gateway.pid))
            requests = await wrk(load, seconds)
            found[state].append((cpu_us(tree(gateway.pid)) - before) / requests)
    await cable.unplug()
    there, away = (statistics.median(found[state]) for state in ("there", "away"))
    return {
        "there_us": round(there, 2),
        "away_us": round(away, 2),
        "away_to_there": round(away / there, 4),
        "rounds": {state: [round(value, 1) for value in values] for state, values in found.items()},
    }


async def wrk(load: list[str], seconds: int) -> int:
    """Requests answered with 2xx in `seconds`."""
    running = await asyncio.create_subprocess_exec(*load, f"-d{seconds}s", stdout=asyncio.subprocess.PIPE)
    out = (await running.communicate())[0].decode()
    match = re.search(r"(\d+) requests in", out)
    if "Non-2xx" in out or match is None:
        raise RuntimeError(out)
    return int(match[1])


def _registry_state(address: str, registry_id: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{address}/-/ready?registry={registry_id}", timeout=5) as answer:
        state: dict[str, Any] = json.load(answer)["registry"]
        return state


def in_a_process_of_its_own(*arguments: str) -> list[dict[str, Any]]:
    """Its measurements, which are also told."""
    command = [sys.executable, "-m", "benchmarks.registry", *arguments]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    sys.stdout.write(told)
    sys.stdout.flush()
    return [json.loads(line) for line in told.splitlines()]


_VISIBLE: Final = (  # registry, models, runs
    ("firestore", 200, 3),
    ("sqlite", 10_000, 2),
)
_STARTS: Final = 3


def measure_all() -> None:
    """Everything that docs/scale.md says was measured; the table at the end is for it."""
    rows = []
    for registry, models, runs in _VISIBLE:
        measured = [
            in_a_process_of_its_own("visible", "--registry", registry, "--models", str(models))[0]
            for _ in range(runs)
        ]
        p50, p99 = (", ".join(f"{found[name]:.2f}" for found in measured) for name in ("p50_s", "p99_s"))
        rows.append(f"| {registry}, 20 watchers, {models} models | p50 {p50} s | p99 {p99} s |")
    starts: dict[str, list[dict[str, Any]]] = {}
    for _ in range(_STARTS):
        for found in in_a_process_of_its_own("cold"):
            starts.setdefault(found["measure"], []).append(found)
    for name, measured in starts.items():
        wall, cpu, rss = (
            statistics.median(found[field] for found in measured) for field in ("seconds", "cpu_s", "rss_mb")
        )
        rows.append(
            f"| {name}, {measured[0]['models']} models | {wall:.2f} s | CPU {cpu:.2f} s, {rss:.0f} MB |"
        )
    (compiled,) = in_a_process_of_its_own("stall")
    rows.append(f"| one change among {compiled['models']} models | {1000 * compiled['next_s']:.1f} ms | |")
    (requests,) = in_a_process_of_its_own("requests")
    rows.append(
        f"| a request | registry there {requests['there_us']:.1f} us | away {requests['away_us']:.1f} us "
        f"({100 * (requests['away_to_there'] - 1):+.1f} %) |"
    )
    sys.stdout.write("\n".join(["", *rows, ""]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "measure", nargs="?", default="all", choices=["all", "visible", "cold", "stall", "start", "requests"]
    )
    parser.add_argument("--registry", choices=["sqlite", "firestore"], default="sqlite")
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--watchers", type=int, default=20)
    parser.add_argument("--writes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=6, help="of `requests`, in each state")
    parser.add_argument("--seconds", type=int, default=5, help="that each of them lasts")
    parser.add_argument("--url")
    parser.add_argument("--fallback", type=Path)
    parser.add_argument("--name", help="of a start")
    given = parser.parse_args()
    if given.measure == "all":
        measure_all()
    elif given.measure == "start":
        name = given.name or f"start {given.url.partition(':')[0]}"
        tell(name, run(measure_start(given.url, given.fallback)))
    elif given.measure == "stall":
        tell("compile", measure_compile(given.models))
    else:
        with ExitStack() as stack:
            _measure_with_registries(given, stack)


def _measure_with_registries(given: argparse.Namespace, stack: ExitStack) -> None:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    sqlite = f"sqlite://{folder}/registry.db"
    emulator = Emulator()
    stack.callback(emulator.stop)
    if given.measure != "visible" or given.registry == "firestore":
        emulator.start()
    firestore = f"firestore://bench-{uuid4().hex[:8]}?emulator={emulator.host}"
    if given.measure == "requests":
        work = measure_requests(folder, emulator, rounds=given.rounds, seconds=given.seconds)
        tell("requests", run(work))
        return
    if given.measure == "visible":
        url = sqlite if given.registry == "sqlite" else firestore
        found = run(measure_visible(url, watchers=given.watchers, writes=given.writes, models=given.models))
        tell(f"visible {given.registry}", found)
        return
    fallback = folder / "fallback.gz"

    async def prepare() -> None:
        for url in (sqlite, firestore):
            registry = open_registry(url)
            await fill(registry, given.models)
            if url == firestore:
                await FileFallback(fallback).save_if_newer(await registry.load_mirrored())
            await registry.close()

    run(prepare())
    copy = ("--fallback", str(fallback))
    in_a_process_of_its_own("start", "--url", sqlite)
    in_a_process_of_its_own("start", "--url", firestore)
    in_a_process_of_its_own(
        "start", "--url", firestore, *copy, "--name", "start from the fallback, Firestore there"
    )
    emulator.kill()
    in_a_process_of_its_own(
        "start", "--url", firestore, *copy, "--name", "start from the fallback, Firestore away"
    )


if __name__ == "__main__":
    main()
