"""What telemetry costs a request: CPU time of each part, without a socket. `python -m benchmarks.telemetry`"""

import argparse
import gc
import io
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gateway.core.exchange import Attempt, Exchange
from gateway.core.ip_network_set import parse_address
from gateway.core.model import Backend, Model
from gateway.core.principal import Principal
from gateway.core.trace_context import continue_trace, new_trace_id
from gateway.telemetry.access_log import JsonAccessLogFormatter
from gateway.telemetry.logs import LogWriter
from gateway.telemetry.metrics import RequestMetrics
from gateway.telemetry.recorded_request import recorded_request_of
from gateway.telemetry.recorded_request_queue import RecordedRequestQueue
from gateway.telemetry.recorded_request_store import RequestAndTickWriter
from gateway.telemetry.request_recorder import RequestRecorder
from gateway.telemetry.spans_of_request import spans_of

_MODEL = Model(name="wine", backends=(Backend(version="3", url="http://127.0.0.1:1"),), traffic={"3": 100})
_CALLER = Principal(id="key-5f0c2a", label="bench", models=("*",))
_ADDRESS = parse_address("127.0.0.1")


class _NoBody:
    length = 0


def finished(kept: str | None = None) -> Exchange:
    """An exchange as a good request of 1 KB leaves it."""
    arrived = time.monotonic() - 0.0032
    exchange = Exchange(
        method="POST",
        raw_target="/wine",
        headers=(),
        peer="127.0.0.1",
        scheme="http",
        body=_NoBody(),  # type: ignore[arg-type]
        response=None,  # type: ignore[arg-type]
        arrived=arrived,
    )
    exchange.request_id = new_trace_id()
    exchange.trace = continue_trace(None)
    exchange.address = _ADDRESS
    exchange.model, exchange.backend, exchange.generation = _MODEL, _MODEL.backends[0], 7
    exchange.principal = _CALLER
    exchange.routed = exchange.authenticated = exchange.permitted = arrived + 0.00001
    attempt = Attempt(arrived + 0.00002)
    attempt.connected, attempt.reused, attempt.sent = arrived + 0.00003, True, arrived + 0.00004
    attempt.answered, attempt.ended, attempt.status = arrived + 0.003, arrived + 0.0031, 200
    exchange.attempts.append(attempt)
    exchange.backend_server_timing = b"queue;dur=0.2, parse;dur=0.1, predict;dur=2.3, render;dur=0.1"
    exchange.bytes_in = exchange.bytes_out = 1024
    exchange.status = 200
    exchange.keep_trace_because = kept
    exchange.ended = arrived + 0.0032
    return exchange


def measure(
    work: Callable[[], object], *, after: Callable[[], object] = lambda: None, count: int, rounds: int
) -> float:
    """Microseconds of CPU (all threads of this process) a call, the best of `rounds`."""
    best = float("inf")
    for _ in range(rounds):
        gc.collect()
        began = time.process_time()
        for _ in range(count):
            work()
        after()
        best = min(best, (time.process_time() - began) / count * 1e6)
    return best


def run(*, count: int, rounds: int) -> dict[str, float]:
    exchange, kept = finished(), finished("sampled")
    metrics, line = RequestMetrics(), JsonAccessLogFormatter("my-project")
    results: dict[str, float] = {}

    def part(
        name: str, work: Callable[[], object], after: Callable[[], object] = lambda: None, n: int = count
    ) -> None:
        results[name] = round(measure(work, after=after, count=n, rounds=rounds), 2)

    part("metrics", lambda: metrics.observe(exchange, 200))
    part("log line", lambda: line(exchange, 200))
    part("a span id for an attempt", lambda: Attempt(0.0))
    writer = LogWriter(io.TextIOWrapper(io.BytesIO()), limit_lines=0)
    quiet = RequestRecorder(writer, metrics, json=True, recent_per_s=0)
    part("record, nothing kept", lambda: quiet(exchange))
    recorded = recorded_request_of(kept, status=200, kept="sampled", side="", code="", gateway="bench")
    part(
        "recorded request",
        lambda: recorded_request_of(kept, status=200, kept="sampled", side="", code="", gateway="bench"),
    )
    part("spans of a request (off the path)", lambda: spans_of(recorded))
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "requests.db"

        def with_store() -> tuple[RequestRecorder, RecordedRequestQueue]:
            export_queue = RecordedRequestQueue(
                "store", lambda: RequestAndTickWriter(store, limit=20_000), limit=count, interval_s=0.05
            )
            export_queue.start()
            return RequestRecorder(
                writer, metrics, json=True, store=export_queue, recent_per_s=0
            ), export_queue

        best = float("inf")
        for _ in range(rounds):
            record, export_queue = with_store()
            best = min(
                best,
                measure(lambda: record(kept), after=lambda: export_queue.stop(60), count=count, rounds=1),  # noqa: B023
            )
        results["record, everything kept, with the store's thread"] = round(best, 2)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    results = run(count=options.count, rounds=options.rounds)
    print(json.dumps({"python": platform.python_version(), "us_per_request": results}, indent=2))


if __name__ == "__main__":
    main()
