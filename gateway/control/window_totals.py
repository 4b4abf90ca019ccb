"""The totals of every model version's requests in a window of time.

The windows are 10 s, 1 min and 1 h. The totals are the sum of all workers' ticks.
"""

import threading
import time
from collections.abc import Iterable, Mapping
from operator import add
from typing import Any, Final

import msgspec

from gateway.core.errors import BadRequest
from gateway.telemetry.merge_metrics import quantile
from gateway.telemetry.metric_catalog import LATENCY_BOUNDS
from gateway.telemetry.recorded_request_store import COARSE_S, FINE_S, RequestAndTickReader, Tick

WINDOWS: Final = {"10s": 10, "1m": 60, "1h": 3600}
DEFAULT_WINDOW: Final = "1m"
_WRITTEN_S: Final = 1.5  # by then, all workers have written a tick that is over
_BUCKETS: Final = len(LATENCY_BOUNDS) + 1


class RequestTotals(msgspec.Struct):
    """Totals of requests: their counts and latency histograms. Each is a sum over ticks."""

    requests: int = 0
    failed: int = 0
    late: int = 0
    buckets: list[int] = msgspec.field(default_factory=lambda: [0] * _BUCKETS)
    backend: list[int] = msgspec.field(default_factory=lambda: [0] * _BUCKETS)
    errors: dict[str, int] = {}

    def add(self, more: "RequestTotals | Tick") -> None:
        self.requests += more.requests
        self.failed += more.failed
        self.late += more.late
        self.buckets = list(map(add, self.buckets, more.buckets))
        self.backend = list(map(add, self.backend, more.backend))
        for label, count in more.errors.items():
            self.errors[label] = self.errors.get(label, 0) + count

    def failures_by_side(self) -> dict[str, int]:
        """How many requests failed, by the side that can fix it. The sides are `gateway`, `backend` and `caller`."""
        sides = {"gateway": 0, "backend": 0, "caller": 0}
        for label, count in self.errors.items():
            sides[label.partition(" ")[0]] += count
        return sides

    def quantile_ms(self, share: float) -> float | None:
        return to_milliseconds(quantile(share, self.buckets, LATENCY_BOUNDS))

    def document(self, seconds: float) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "rps": round(self.requests / seconds, 2),
            "failed": self.failed,
            "failed_share": round(self.failed / self.requests, 4) if self.requests else 0.0,
            "failing": self.failures_by_side(),
            "errors": self.errors,
            "p50_ms": self.quantile_ms(0.5),
            "p99_ms": self.quantile_ms(0.99),
            "backend_p99_ms": to_milliseconds(quantile(0.99, self.backend, LATENCY_BOUNDS)),
        }


class WindowTotals(msgspec.Struct, frozen=True):
    """The totals of all models and versions in one window of time.

    The window is the `seconds` that end at `ends` (seconds since the epoch).
    """

    name: str
    seconds: float
    ends: int
    models: Mapping[str, Mapping[str, RequestTotals]]

    def for_version(self, model: str, version: str) -> RequestTotals:
        return self.models.get(model, {}).get(version) or RequestTotals()

    def for_model(self, model: str) -> RequestTotals:
        return sum_totals(self.models.get(model, {}).values())

    def totals_with_unrouted_failures(self) -> RequestTotals:
        """The totals of all models, with the requests that failed before they reached one.

        Requests to the gateway's own pages do not count, nor do their failures.
        """
        found = sum_totals(f for name in self.models if name for f in self.models[name].values())
        elsewhere = self.for_version("", "")
        failed = sum(elsewhere.errors.values())
        found.add(RequestTotals(requests=failed, failed=elsewhere.failed, errors=elsewhere.errors))
        return found


class WindowTotalsReader:
    """Reads the totals of a time window from the stored ticks. Thread-safe; each window is read once for each tick."""

    def __init__(self, tick_reader: RequestAndTickReader) -> None:
        self._reader = tick_reader
        self._known: dict[str, WindowTotals] = {}
        self._lock = threading.Lock()

    def read(self, name: str) -> WindowTotals:
        ends = last_complete_tick_end()
        with self._lock:
            known = self._known.get(name)
            if known is None or known.ends != ends:
                known = self._known[name] = self._read(name, ends)
            return known

    def _read(self, name: str, ends: int) -> WindowTotals:
        seconds = WINDOWS[name]
        oldest = self._reader.oldest_tick_end(FINE_S)
        if seconds > COARSE_S:
            oldest = min(filter(None, (self._reader.oldest_tick_end(COARSE_S), oldest)), default=None)
            begins = ends - ends % COARSE_S - seconds
            coarse_ends = end_of_coarse_ticks(ends)
            ticks = self._reader.worker_ticks(COARSE_S, after=begins, until=coarse_ends)
            ticks += self._reader.worker_ticks(FINE_S, after=coarse_ends, until=ends)
            seconds = ends - begins
        else:
            ticks = self._reader.worker_ticks(FINE_S, after=ends - seconds, until=ends)
        models: dict[str, dict[str, RequestTotals]] = {}
        for tick in ticks:
            models.setdefault(tick.model, {}).setdefault(tick.version, RequestTotals()).add(tick)
        covered = seconds if oldest is None else min(seconds, ends - oldest + FINE_S)
        return WindowTotals(name, max(covered, FINE_S), ends, models)


def last_complete_tick_end() -> int:
    """The end of the last tick that all workers have written. It is in seconds since the epoch."""
    return int((time.time() - _WRITTEN_S) // FINE_S) * FINE_S


def end_of_coarse_ticks(ends: int) -> int:
    """Until when the minutes of a window that ends at `ends` are read; what follows is read as ticks of 5 s.

    The last whole minute is among these: its own tick may be late, and all of it would be missing.
    """
    return ends - ends % COARSE_S - COARSE_S


def sum_totals(figures: "Iterable[RequestTotals | Tick]") -> RequestTotals:
    found = RequestTotals()
    for one in figures:
        found.add(one)
    return found


def parse_window(name: str) -> str:
    if name not in WINDOWS:
        raise BadRequest(f"window must be one of {', '.join(WINDOWS)}.")
    return name


def to_milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
