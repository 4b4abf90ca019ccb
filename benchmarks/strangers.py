"""What thousands of strangers cost a known caller: p99 with and without them, in alternating rounds of one run.

`python -m benchmarks.strangers` prints a line for each pair of rounds and the median of the ratios.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.strangers import many_files, strangers
from tests.e2e.test_strangers import answer_at_once
from tests.e2e.test_workers import Running
from tests.flow.background_servers import BackgroundServers
from tests.flow.scripted import read_message, request
from tests.flow.test_process import register


async def p99_ms(port: int, requests: int) -> float:
    """Of a known caller with four kept connections."""
    took: list[float] = []

    async def call() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(requests // 4):
            began = time.perf_counter()
            writer.write(request("POST", "/slow", body=b"{}"))
            answer = await read_message(reader, request=False)
            took.append((time.perf_counter() - began) * 1000)
            assert answer.status == 200, answer
        writer.close()

    await asyncio.gather(*(call() for _ in range(4)))
    return statistics.quantiles(took, n=100)[98]


@contextmanager
def holding(port: int, count: int) -> Iterator[None]:
    """Strangers in a process of their own, so that they do not slow the known caller's clock."""
    command = [sys.executable, "-m", "benchmarks.strangers", f"--hold={port}", f"--strangers={count}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # all are there
        yield
        process.communicate()


async def hold(port: int, count: int) -> None:
    async with strangers(port, count):
        await asyncio.sleep(1)  # the gateway has accepted them all
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def rounds(port: int, *, count: int, number: int, requests: int) -> None:
    ratios = []
    for _ in range(number):
        alone = await p99_ms(port, requests)
        with holding(port, count):
            crowded = await p99_ms(port, requests)
        ratios.append(crowded / alone)
        print(f"p99 {alone:.2f} ms alone, {crowded:.2f} ms with {count} strangers: x {ratios[-1]:.2f}")
    print(f"median ratio x {statistics.median(ratios):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.strangers", description=__doc__)
    parser.add_argument("--strangers", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--path", choices=["fast", "plain"], default="fast")
    parser.add_argument("--hold", type=int, default=0, metavar="PORT", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.hold:
        with many_files():
            asyncio.run(hold(given.hold, given.strangers))
        return
    background = BackgroundServers()
    with tempfile.TemporaryDirectory() as folder, many_files() as files:
        register(Path(folder), background.backend(answer_at_once).url)
        running = Running(Path(folder), "--server.workers=1", f"--server.path={given.path}", "--log.ratio=0")
        try:
            port = int(running.wait_for("listens on").split(":")[-1].split()[0])
            count = min(given.strangers, files)
            asyncio.run(rounds(port, count=count, number=given.rounds, requests=given.requests))
        finally:
            running.close()
            background.close()


if __name__ == "__main__":
    main()
