"""How long a health check waits while the Python backend reads a large body: `python -m benchmarks.large_body`, a minute.

A process of its own asks `/v2/health/live` again and again over one connection, first with nothing else going on, then while 31 MiB of
instances, and then of tensors, are sent, read, predicted and answered. Prints Markdown: milliseconds, median, p99 and longest.
"""

import contextlib
import http.client
import json
import multiprocessing
import multiprocessing.synchronize
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from chips_backend.testing import Backend, running, write_artifact

BYTES = 31 * 1024 * 1024
QUIET_S = 3.0
PAUSE_S = 0.002

MODEL = b"""
def load(folder):
    return None

def predict(model, rows, parameters):
    return [row[0] for row in rows]
"""


def instances() -> bytes:
    numbers = np.random.default_rng(1).normal(size=(BYTES // 24, 2)).round(6).tolist()
    body = json.dumps({"instances": numbers}).encode()
    return json.dumps({"instances": numbers[: int(len(numbers) * BYTES / len(body))]}).encode()


def tensors() -> bytes:
    numbers = np.random.default_rng(1).normal(size=BYTES // 11).round(6).tolist()
    numbers = numbers[: len(numbers) // 2 * 2]
    half = len(numbers) // 2

    def body(count: int) -> bytes:
        inputs = [
            {
                "name": name,
                "datatype": "FP64",
                "shape": [count],
                "data": numbers[at * half : at * half + count],
            }
            for at, name in enumerate("ab")
        ]
        return json.dumps({"inputs": inputs}).encode()

    whole = body(half)
    return body(int(half * min(1.0, BYTES / len(whole)) * 0.999))


def poll(
    port: int, stop: multiprocessing.synchronize.Event, waits: "multiprocessing.Queue[list[float]]"
) -> None:
    taken = []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while not stop.is_set():
        began = time.perf_counter()
        connection.request("GET", "/v2/health/live")
        connection.getresponse().read()
        taken.append(time.perf_counter() - began)
        time.sleep(PAUSE_S)
    waits.put(taken)


def measure(backend: Backend, path: str, body: bytes | None) -> Sequence[float]:
    stop = multiprocessing.Event()
    waits: multiprocessing.Queue[list[float]] = multiprocessing.Queue()
    poller = multiprocessing.Process(target=poll, args=(backend.port, stop, waits))
    poller.start()
    time.sleep(0.5)
    if body is None:
        time.sleep(QUIET_S)
    else:
        answer = backend.post(path, body)
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status}: {answer.body[:300]!r}")
    stop.set()
    taken = waits.get(timeout=60)
    poller.join()
    return taken


def main() -> None:
    signature = {
        "inputs": [{"name": name, "datatype": "FP64", "shape": [-1]} for name in "ab"],
        "outputs": [{"name": "y", "datatype": "FP64", "shape": [-1]}],
    }
    print("| meanwhile | checks | median ms | p99 ms | longest ms |\n|---|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        artifact = write_artifact(
            Path(folder) / "a", {"model.py": MODEL}, format="python", signature=signature
        )
        backend = stack.enter_context(running({"CHIPS_ARTIFACT": str(artifact)}))
        for what, path, body in (
            ("nothing", "", None),
            ("31 MiB of instances", "/predict", instances()),
            ("31 MiB of tensors", "/v2/models/test/infer", tensors()),
        ):
            taken = sorted(measure(backend, path, body))
            p99 = taken[int(len(taken) * 0.99)]
            print(
                f"| {what} | {len(taken)} | {statistics.median(taken) * 1000:.1f} | {p99 * 1000:.1f} | {taken[-1] * 1000:.1f} |"
            )


if __name__ == "__main__":
    main()
