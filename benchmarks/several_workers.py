"""Several workers: requests/s and p99 from one worker to the machine's cores, with few connections and with many.

    python -m benchmarks.several_workers [--workers 1,2,4] [--connections 4,8,32,128] [--seconds 3]

A connection stays with the worker that accepted it, so few connections may be spread unevenly. `busiest` is the share of the
workers' CPU time that the busiest one took: 1/workers where all took the same. Nothing is pinned but the load and the backend, to
the last CPU, so the figures of as many workers as there are cores include what the load took from one of them.
"""

import argparse
import os
import subprocess
from collections.abc import Iterator
from typing import Any

from benchmarks import machine
from benchmarks.bench import surroundings
from benchmarks.load import CASES, await_answer, check_answer, closed_loop
from benchmarks.processes import stop, wait_for_port
from benchmarks.proxies import HERE, PORT, RunFiles, gateway


def counts_up_to(cores: int) -> list[int]:
    """1, 2, 4 … and the number of cores itself."""
    counts = [2**power for power in range(cores.bit_length()) if 2**power <= cores]
    return counts if counts[-1] == cores else [*counts, cores]


def measure(place: RunFiles, workers: int, connections: list[int], seconds: int) -> Iterator[dict[str, Any]]:
    """One result for each number of connections."""
    peer = gateway(place, f"workers-{workers}", "", **{"server.workers": str(workers)})
    process = subprocess.Popen(
        peer.command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=HERE.parent,
        start_new_session=True,
    )
    try:
        wait_for_port(PORT, process)
        await_answer(place, CASES["1k"], process, 30)
        for count in connections:
            case = CASES["1k"]._replace(connections=count)
            check_answer(place, case)
            closed_loop(place, case, 1)
            pids = machine.tree(process.pid)
            before = {pid: machine.cpu_us([pid]) for pid in pids}
            load = closed_loop(place, case, seconds)
            spent = [machine.cpu_us([pid]) - before[pid] for pid in pids]
            yield {
                "workers": workers,
                "connections": count,
                "per_s": load["requests"] / (load["duration_us"] / 1e6),
                "p99_ms": load["p99_us"] / 1000,
                "cpu_us": sum(spent) / load["requests"],
                "busiest": max(spent) / max(1, sum(spent)),
                "failed": load["failed"],
            }
    finally:
        stop(process)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.several_workers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--workers", default=",".join(map(str, counts_up_to(cores))))
    parser.add_argument("--connections", default="4,8,32,128")
    parser.add_argument("--seconds", type=int, default=3)
    given = parser.parse_args()
    connections = [int(count) for count in given.connections.split(",")]
    print("| workers | connections | requests/s | p99 ms | CPU µs/request | busiest | failed |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    with surroundings("", "", large=False) as place:
        for workers in map(int, given.workers.split(",")):
            for found in measure(place, workers, connections, given.seconds):
                print(
                    f"| {found['workers']} | {found['connections']} | {found['per_s']:.0f} | {found['p99_ms']:.1f}"
                    f" | {found['cpu_us']:.0f} | {found['busiest']:.2f} | {found['failed']} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
