"""What one request costs in this process alone: no socket, no system call, the best of many batches.

`python -m benchmarks.micro` prints microseconds; `--profile` says where they go.
"""

import argparse
import asyncio
import cProfile
import pstats
import time

from benchmarks.one_request import requests_in_process


async def run(batches: int, size: int, name: str, *, profile: bool) -> None:
    async with requests_in_process() as requests:
        once = requests[name].once
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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.micro", description=__doc__)
    parser.add_argument("--batches", type=int, default=400)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--request", default="accepted", help="such as 'bad key'; benchmarks/one_request.py")
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    asyncio.run(run(given.batches, given.size, given.request, profile=given.profile))


if __name__ == "__main__":
    main()
