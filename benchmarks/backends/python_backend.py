"""What the Python backend adds to a prediction: the model called in this process, and by HTTP, one caller after the other.

    python -m benchmarks.backends.python_backend [--seconds 3] [--json]

Each figure is of one kept-alive connection on loopback; the throughput is of 16 connections. The models are small on
purpose: what is left is overhead. `start` is the time from the process's start until it answers, and until it is ready.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from chips_backend.testing import Backend, running, start, write_artifact

WIDTH = 13
CONNECTIONS = 16


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="for each figure")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    results = [result for model in models() for result in measured(*model, seconds=arguments.seconds)]
    report: dict[str, Any] = {
        "machine": machine(),
        "latency": results,
        "throughput": throughput(arguments.seconds),
        "start": start_times(),
    }
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    print(f"{report['machine']}\n")
    print(
        "| model | rows | in process ms | over HTTP ms (p50) | p99 | overhead ms |\n|---|--:|--:|--:|--:|--:|"
    )
    for r in results:
        print(
            f"| {r['model']} | {r['rows']} | {r['direct_ms']} | {r['http_ms']} | {r['http_p99_ms']} | {r['overhead_ms']} |"
        )
    print(f"\n| {CONNECTIONS} connections, one row each | requests/s | p50 ms | p99 ms |\n|---|--:|--:|--:|")
    for t in report["throughput"]:
        print(f"| {t['how']} | {t['per_s']} | {t['p50_ms']} | {t['p99_ms']} |")
    print(f"\nstart: {report['start']}")


def models() -> Iterator[tuple[str, Any]]:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    table, labels = training()
    yield "logistic regression", make_pipeline(StandardScaler(), LogisticRegression()).fit(table, labels)
    yield "random forest, 50 trees", RandomForestClassifier(50, random_state=7).fit(table, labels)


def training() -> tuple[Any, Any]:
    table = np.random.default_rng(7).normal(size=(500, WIDTH))
    return table, (table[:, 0] + table[:, 1] > 0).astype(int)


@contextlib.contextmanager
def served(model: Any, **environ: str) -> Iterator[Backend]:
    with (
        tempfile.TemporaryDirectory() as folder,
        running({"CHIPS_ARTIFACT": str(written(Path(folder), model)), **environ}) as backend,
    ):
        yield backend


def written(folder: Path, model: Any) -> Path:
    joblib.dump(model, folder / "model.joblib")
    inputs = [{"name": f"x{column}", "datatype": "FP64"} for column in range(WIDTH)]
    files = {"model.joblib": (folder / "model.joblib").read_bytes()}
    return write_artifact(folder / "artifact", files, signature={"inputs": inputs})


def measured(name: str, model: Any, *, seconds: float) -> Iterator[dict[str, Any]]:
    with served(model) as backend, contextlib.closing(backend.connect()) as connection:
        for count in (1, 100):
            rows = training()[0][:count]
            body = json.dumps({"instances": rows.tolist()})

            def ask(body: str = body) -> None:
                connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                response.read()
                if response.status != 200:
                    raise RuntimeError(response.status)

            direct = times(lambda rows=rows: model.predict(rows), seconds)  # type: ignore[misc]
            http = times(ask, seconds)
            p50, p99 = statistics.median(http), statistics.quantiles(http, n=100)[-1]
            yield {
                "model": name,
                "rows": count,
                "direct_ms": round(statistics.median(direct), 3),
                "http_ms": round(p50, 3),
                "http_p99_ms": round(p99, 3),
                "overhead_ms": round(p50 - statistics.median(direct), 3),
            }


def times(call: Callable[[], Any], seconds: float) -> list[float]:
    """How long each call took, in milliseconds, after some that warm it up."""
    for _ in range(20):
        call()
    taken = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        call()
        taken.append((time.perf_counter() - began) * 1000)
    return taken


def throughput(seconds: float) -> list[dict[str, Any]]:
    """With and without micro-batching, of the model for which it pays: each call costs much, each row little."""
    _, (_, forest) = models()
    found = []
    for how, target in (("each request by itself", "0"), ("micro-batching, target 50 ms", "50")):
        with served(forest, CHIPS_BATCH_TARGET_MS=target) as backend:
            body = json.dumps({"instances": training()[0][:1].tolist()})
            end = time.perf_counter() + seconds
            taken: list[float] = []

            def caller(
                backend: Backend = backend, body: str = body, end: float = end, taken: list[float] = taken
            ) -> None:
                with contextlib.closing(backend.connect()) as connection:
                    while time.perf_counter() < end:
                        began = time.perf_counter()
                        connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
                        response = connection.getresponse()
                        response.read()
                        if response.status == 200:
                            taken.append((time.perf_counter() - began) * 1000)

            threads = [threading.Thread(target=caller) for _ in range(CONNECTIONS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            p50, p99 = statistics.median(taken), statistics.quantiles(taken, n=100)[-1]
            found.append(
                {
                    "how": how,
                    "per_s": round(len(taken) / seconds),
                    "p50_ms": round(p50, 1),
                    "p99_ms": round(p99, 1),
                }
            )
    return found


def start_times() -> dict[str, float]:
    """From the process's start until it listens, and until it is ready, in seconds; the artifact is a local folder."""
    _, (_, forest) = models()
    with tempfile.TemporaryDirectory() as folder:
        artifact = written(Path(folder), forest)
        began = time.perf_counter()
        backend = start({"CHIPS_ARTIFACT": str(artifact)}).listen()
        live = time.perf_counter() - began
        backend.wait_for("ready")
        ready = time.perf_counter() - began
        backend.process.terminate()
        backend.end()
    return {"listens_s": round(live, 2), "ready_s": round(ready, 2)}


def machine() -> str:
    return (
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPUs, {platform.system()} {platform.machine()}, "
        f"Python {sys.version.split()[0]}"
    )


if __name__ == "__main__":
    main()
