"""What a backend adds to a prediction: the model called in a process of its language, and by HTTP, one caller after the other."""

import contextlib
import http.client
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.backends.languages import Language, call
from benchmarks.backends.start import running

ROWS = (1, 100, 1000)


def measure(language: Language, artifact: Path, *, seconds: float) -> list[dict[str, Any]]:
    direct = json.loads(call(language, str(artifact), str(seconds), *map(str, ROWS)))
    found = []
    with tempfile.TemporaryDirectory() as cache, running(language, str(artifact), Path(cache)) as backend:
        for rows, alone_ms in zip(ROWS, direct, strict=True):
            taken, parts = asked(backend.port, rows, seconds)
            p50, p99 = statistics.median(taken), statistics.quantiles(taken, n=100)[-1]
            found.append(
                {
                    "language": language.name,
                    "rows": rows,
                    "direct_ms": round(alone_ms, 3),
                    "http_ms": round(p50, 3),
                    "http_p99_ms": round(p99, 3),
                    "overhead_ms": round(p50 - alone_ms, 3),
                    "server_timing_ms": parts,
                }
            )
    return found


def asked(port: int, rows: int, seconds: float) -> tuple[list[float], dict[str, float]]:
    """How long each request took, and the medians of what the backend says about it; on one connection, where it stays open."""
    body = json.dumps({"instances": [[1.5, 2, 3]] * rows})
    taken: list[float] = []
    parts: dict[str, list[float]] = {}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        end = time.perf_counter() + seconds
        warming = 30
        while warming or time.perf_counter() < end:
            began = time.perf_counter()
            connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            took = (time.perf_counter() - began) * 1000
            if answer.status != 200 or (warming and json.loads(content)["predictions"] != [12.0] * rows):
                raise RuntimeError(content[:300])
            if warming:
                warming -= 1
                end = time.perf_counter() + seconds
                continue
            taken.append(took)
            for part in (answer.headers["Server-Timing"] or "").split(","):
                name, _, duration = part.strip().partition(";dur=")
                parts.setdefault(name, []).append(float(duration))
    return taken, {name: round(statistics.median(durations), 3) for name, durations in parts.items()}
