"""Starts each proxy on a CPU of its own, loads it from another, and counts what it spent.

The figure of record is CPU microseconds per request of the proxy's process tree, by the scheduler's accounting. Rounds are
interleaved, so that what the machine does meanwhile hits all alike; the tables show medians.
"""

import argparse
import asyncio
import datetime as dt
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import machine, report, resources, start
from benchmarks.load import (
    CASES,
    LIMITED_KEY,
    LOAD_CPU,
    Case,
    await_answer,
    check_answer,
    closed_loop,
    open_loop,
    rates_within,
)
from benchmarks.processes import pinned, stop, wait_for_port
from benchmarks.proxies import (
    BACKEND,
    HERE,
    NAMES,
    PORT,
    SECURE,
    Peer,
    RunFiles,
    absent,
    peers,
    render,
)

PROXY_CPU = 0


# -- what stands around the proxies


@contextmanager
def surroundings(envoy: str, routers: str, *, large: bool) -> Iterator[RunFiles]:
    """Tools built, certificate and registries made, backends running."""
    with tempfile.TemporaryDirectory(prefix="chips-bench-") as folder:
        work = Path(folder)
        work.chmod(0o755)
        for tool in ("backend", "openloop"):
            subprocess.run(["cc", "-O2", "-o", work / tool, HERE / "tools" / f"{tool}.c"], check=True)
        subprocess.run(
            [
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=DNS:localhost",
                "-keyout",
                work / "key.pem",
                "-out",
                work / "cert.pem",
            ],
            check=True,
            capture_output=True,
        )
        key = asyncio.run(make_registry(work / "small.db"))
        if large:
            asyncio.run(make_registry(work / "large.db", models=10_000, keys=100_000, key=key))
        place = RunFiles(work, key, envoy, routers)
        backend = pinned(LOAD_CPU, [str(work / "backend"), str(BACKEND)])
        secure = (
            pinned(LOAD_CPU, ["nginx", "-p", str(work), "-c", str(render(place, "secure.conf"))])
            if shutil.which("nginx")
            else None
        )
        try:
            wait_for_port(BACKEND, backend)
            if secure is not None:
                wait_for_port(SECURE, secure)
            yield place
        finally:
            stop(backend)
            if secure is not None:
                stop(secure)


async def make_registry(
    path: Path, *, models: int = 0, keys: int = 0, key: str = "", backend: str = f"http://127.0.0.1:{BACKEND}"
) -> str:
    """A registry with the models of the cases, a key that may call them, and as many others as asked for."""
    from gateway.core.api_key_document import Key
    from gateway.core.api_keys import digest_key, make_key
    from gateway.core.model import Backend, Model
    from gateway.core.model_updates import to_document
    from gateway.registry.base import KEYS, MODELS, Put
    from gateway.registry.open_by_url import open_registry

    registry = open_registry(f"sqlite://{path}")
    key = key or make_key()
    plain, secure = backend, f"https://localhost:{SECURE}"
    routes = {case.path[1:]: secure if case.path == "/tls" else plain for case in CASES.values()}
    changes = [
        Put(
            kind=MODELS,
            name=name,
            body=to_document(
                Model(
                    name=name,
                    backends=(Backend(version="1", url=url, predict_path=f"/{name}"),),
                    traffic={"1": 100},
                )
            ),
            expected=0,
        )
        for name, url in {**routes, **{f"other-{i}": plain for i in range(models)}}.items()
    ]
    entry = Key(label="bench", models=("*",), created="2026-01-01T00:00:00Z")
    limited = msgspec.structs.replace(entry, label="limited", requests_per_s=0.0001, burst=1)
    changes += [
        Put(kind=KEYS, name=name, body=to_document(entry), expected=0)
        for name in (digest_key(key), *(digest_key(f"other-{i}") for i in range(keys)))
    ]
    changes.append(Put(kind=KEYS, name=digest_key(LIMITED_KEY), body=to_document(limited), expected=0))
    for i in range(0, len(changes), 5000):
        await registry.write(*changes[i : i + 5000], author="bench")
    await registry.close()
    return key


# -- measuring


def measure(
    place: RunFiles, peer: Peer, cases: Sequence[str], seconds: int, open_cases: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Start `peer`, and give one result for each case; for `open_cases` an open-loop one, too, at half the rate that the closed loop reached."""
    log = (place.work / f"{peer.name.replace(' ', '-')}.out").open("wb")
    began = time.perf_counter()
    process = pinned(
        PROXY_CPU,
        peer.command,
        env={**os.environ, **peer.environment},
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=HERE.parent,
    )
    try:
        try:
            wait_for_port(PORT, process, peer.patience_s)
            await_answer(place, CASES[cases[0]], process, peer.patience_s)
            answered_s = time.perf_counter() - began
            idle_mb = machine.rss_mb(machine.tree(process.pid))
        except RuntimeError as error:
            yield {
                "peer": peer.name,
                "case": "start",
                "served": False,
                "error": f"{error}: {Path(log.name).read_text()[-500:]}",
            }
            return
        for name in cases:
            seconds = max(seconds, peer.least_s)
            result: dict[str, Any] = {"peer": peer.name, "case": name}
            try:
                result |= _closed_result(place, CASES[name], process.pid, peer.least_s, seconds)
            except (RuntimeError, OSError, subprocess.SubprocessError, StopIteration) as error:
                yield {**result, "served": False, "error": str(error)}
                continue
            yield {**result, "started_s": answered_s}
            if name in open_cases:
                yield from _open_results(place, peer.name, name, process.pid, result["per_s"], seconds)
        loaded_mb = machine.rss_mb(machine.tree(process.pid))
        resources.settle()
        recovered_mb = machine.rss_mb(machine.tree(process.pid))
        memory = {"idle_mb": idle_mb, "loaded_mb": loaded_mb, "recovered_mb": recovered_mb}
        yield {"peer": peer.name, "case": "memory", **memory}
    finally:
        stop(process)
        log.close()


def _open_results(
    place: RunFiles, peer: str, case: str, pid: int, per_s: float, seconds: int
) -> Iterator[dict[str, Any]]:
    """An open loop at half of `per_s`, the rate that the closed loop reached; and what else is counted under load."""
    opened = {"peer": peer, "case": case, "open_rate": per_s / 2}
    try:
        yield {**opened, **open_loop(place, CASES[case], per_s / 2, seconds)}
        yield {"peer": peer, "case": case, **_counts(place, CASES[case], pid, per_s, seconds)}
    except (RuntimeError, subprocess.SubprocessError) as error:
        yield {**opened, "served": False, "error": str(error)}


def _closed_result(place: RunFiles, case: Case, pid: int, warm_up_s: int, seconds: int) -> dict[str, Any]:
    """The figures of one closed loop on the process tree of `pid`."""
    check_answer(place, case)
    closed_loop(place, case, warm_up_s)
    pids = machine.tree(pid)
    before, faults, rss_mb = machine.cpu_us(pids), resources.minor_faults(pids), machine.rss_mb(pids)
    load = closed_loop(place, case, seconds)
    spent = machine.cpu_us(pids) - before
    return {
        "cpu_us": spent / load["requests"],
        "per_s": load["requests"] / (load["duration_us"] / 1e6),
        "p50_us": load["p50_us"],
        "p99_us": load["p99_us"],
        "failed": load["failed"],
        "busy": spent / load["duration_us"],
        "mb_per_cpu_s": load["requests"] * (case.up + case.down) / spent,
        "rss_mb": machine.rss_mb(pids),
        "faults": (resources.minor_faults(pids) - faults) / load["requests"],
        "growth_kb": (machine.rss_mb(pids) - rss_mb) * 1024 / (load["requests"] / 1000),
    }


def _counts(place: RunFiles, case: Case, pid: int, per_s: float, seconds: int) -> dict[str, float]:
    """What a request takes that needs another tool to be seen, and the rates that a bound on latency allows."""
    pids = machine.tree(pid)
    return {
        **resources.calls_per_request(pids, lambda: closed_loop(place, case, 1)),
        **resources.instructions_per_request(pids, lambda: closed_loop(place, case, 1)),
        **rates_within(place, case, per_s, seconds),
    }


def _arguments() -> tuple[argparse.Namespace, dict[str, str]]:
    """The command line, checked; and why a peer is left out, by its name."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", default="", help=f"comma-separated, of {', '.join(NAMES)}; all by default")
    parser.add_argument("--cases", default="", help=f"comma-separated, of {', '.join(CASES)}; all by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="of load per measurement")
    parser.add_argument(
        "--routers",
        default=".venv-bench",
        help="what the names of the virtual environments of LiteLLM, Ray Serve and BentoML begin with",
    )
    parser.add_argument("--envoy", default=os.environ.get("ENVOY", ""), help="Envoy's program")
    parser.add_argument(
        "--out", type=Path, default=None, help="folder for the results; none: only the terminal"
    )
    parser.add_argument("--add", action="store_true", help="to the results that are in that folder")
    given = parser.parse_args()
    cases = given.cases.split(",") if given.cases else list(CASES)
    reasons = absent(given.envoy, given.routers)
    chosen = given.peers.split(",") if given.peers else [name for name in NAMES if name not in reasons]
    for name in cases:
        if name not in CASES:
            parser.error(f"there is no case {name!r}; there are {', '.join(CASES)}")
    for name in chosen:
        if name not in NAMES:
            parser.error(f"there is no peer {name!r}; there are {', '.join(NAMES)}")
        if name in reasons:
            parser.error(f"{name} cannot be measured here: {reasons[name]}")
    for program, package in (
        ("wrk", "wrk"),
        ("cc", "gcc"),
        ("openssl", "openssl"),
        ("taskset", "util-linux"),
    ):
        if not shutil.which(program):
            parser.error(f"{program} is not installed (Debian: apt install {package})")
    given.cases, given.names = cases, chosen
    return given, reasons


def main() -> int:
    given, reasons = _arguments()
    cases, chosen = given.cases, given.names
    if not given.peers:
        for name, reason in reasons.items():
            print(f"left out: {name}, for {reason}", flush=True)
    before: dict[str, Any] = report.read(given.out) if given.add and given.out is not None else {}
    results: list[dict[str, Any]] = list(before.get("results", ()))
    with surroundings(given.envoy, given.routers, large="chips 10k" in chosen) as place:
        known = peers(place)
        about = {name: known[name].about for name in chosen}
        for number in range(given.rounds):
            for name in chosen:
                its = [case for case in cases if case in (known[name].cases or cases)]
                for result in measure(place, known[name], its, given.seconds, ["1k"]) if its else ():
                    results.append({"round": number, **result})
                    print(report.line(results[-1]), flush=True)
    document = {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "peers": {**before.get("peers", {}), **about},
        "cases": {name: case.about for name, case in CASES.items()},
        "left_out": {} if given.peers else reasons,
        "results": results,
    }
    if not given.peers or "start" in before:
        document["start"] = start.measure(5) if not given.peers else before["start"]
    print(report.table(document))
    if given.out is not None:
        report.write(document, given.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
