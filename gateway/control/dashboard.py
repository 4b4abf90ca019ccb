"""The dashboard's data: requests, errors and latency of every model, from the metrics of all workers."""

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import msgspec

from gateway.core.model import Model
from gateway.registry.mirror import Mirror
from gateway.supervisor import Supervisor
from gateway.telemetry.aggregator import WorkerMetrics
from gateway.telemetry.merge import add_series, quantile
from gateway.telemetry.metric_catalog import LATENCY_BOUNDS, OVERHEAD_BOUNDS
from gateway.telemetry.metrics import Series, State
from gateway.telemetry.trace_store import TraceStoreReader

_FRESH_S = 1.0  # who asks more often gets the same answer
_WINDOW_S = 10.0  # rates and percentiles are those of about this time
CURVE_S = 30 * 60
CURVE_POINTS = 40


class SeriesDelta(msgspec.Struct):
    """What was new in one series."""

    requests: int
    failed: int
    buckets: list[int]
    backend: list[int]

    def figures(self, seconds: float) -> dict[str, Any]:
        p50, p99 = (_ms(quantile(share, self.buckets, LATENCY_BOUNDS)) for share in (0.5, 0.99))
        return {
            "rps": round(self.requests / seconds, 2),
            "failed_share": round(self.failed / self.requests, 4) if self.requests else 0.0,
            "p50_ms": p50,
            "p99_ms": p99,
            "backend_p99_ms": _ms(quantile(0.99, self.backend, LATENCY_BOUNDS)),
        }


class Dashboard:
    """Computes the dashboard's JSON from the metrics of all workers and the trace store."""

    def __init__(
        self,
        mirror: Mirror,
        shared: WorkerMetrics,
        reader: TraceStoreReader | None,
        *,
        supervisor: Supervisor | None = None,
    ) -> None:
        self._supervisor = supervisor or Supervisor()
        self._mirror = mirror
        self._shared = shared
        self._reader = reader
        self._started = time.time()
        self._past: list[State] = []  # oldest first; the last is the present
        self._reading: asyncio.Task[State] | None = None

    async def present(self) -> State:
        """The figures of all workers, at most a second old."""
        if not self._past or time.time() - self._past[-1].at > _FRESH_S:
            if self._reading is None:
                self._reading = self._supervisor.job("dashboard", self._read())
            await asyncio.shield(self._reading)
        return self._past[-1]

    async def _read(self) -> State:
        try:
            state = await asyncio.to_thread(self._shared.total)  # merging a thousand models takes a while
            self._past.append(state)
            while len(self._past) > 2 and self._past[1].at < state.at - _WINDOW_S:
                del self._past[0]
            return state
        finally:
            self._reading = None

    async def document(self) -> dict[str, Any]:
        """Every model with its figures, and the gateway's own."""
        state = await self.present()
        return await asyncio.to_thread(self._document, state, self._past[0])

    def _document(self, state: State, before: State) -> dict[str, Any]:
        seconds = state.at - before.at
        if seconds < 1.0:  # nobody looked lately
            before, seconds = State(), max(state.at - self._started, 1.0)
        snapshot = self._mirror.snapshot
        listed = {} if snapshot is None else snapshot.entries
        models = [self._model(entry.model, state, before, seconds) for entry in listed.values()]
        overhead = [n - b for n, b in zip(state.overhead, before.overhead, strict=True)]
        total = _window(all_series(state), all_series(before))
        return {
            "at": round(state.at, 3),
            "window_s": round(seconds, 1),
            "gateway": {
                **total.figures(seconds),
                "overhead_p50_ms": _ms(quantile(0.5, overhead, OVERHEAD_BOUNDS)),
                "overhead_p99_ms": _ms(quantile(0.99, overhead, OVERHEAD_BOUNDS)),
                "in_flight": _gauge(state, "chips_in_flight_requests"),
                "workers": _gauge(state, "chips_workers"),
                "memory_bytes": _gauge(state, "chips_process_memory_bytes"),
            },
            "registry": {
                "generation": None if snapshot is None else snapshot.generation,
                "age_s": round(self._mirror.age_s, 2),
                "connected": self._mirror.connected,
                "held": self._mirror.held,
                "problems": [] if snapshot is None else list(snapshot.problems)[:20],
                "error": self._mirror.last_error[:500],
            },
            "models": sorted(models, key=lambda model: model["name"]),
        }

    def _model(self, model: Model, state: State, before: State, seconds: float) -> dict[str, Any]:
        now, then = state.series.get(model.name, {}), before.series.get(model.name, {})
        seen = {backend.version for backend in model.backends}
        versions = [
            {
                "version": version,
                "traffic": model.traffic.get(version, 0),
                "listed": version in seen,
                **_window(_one(now, version), _one(then, version)).figures(seconds),
            }
            for version in [*(backend.version for backend in model.backends), *sorted(set(now) - seen)]
        ]
        series = list(now.values())
        return {
            "name": model.name,
            "description": model.description[:200],
            "enabled": model.enabled,
            "requests": sum(sum(s.request) for s in series),
            "failed": sum(s.failed for s in series),
            "in_flight": int(state.gauges.get("chips_model_in_flight_requests", {}).get(model.name, 0)),
            **_window(series, list(then.values())).figures(seconds),
            "availability": model.policy.availability,
            "latency_s": model.policy.latency_s,
            "versions": versions,
        }

    async def model(self, name: str) -> dict[str, Any] | None:
        """One model in depth: its distribution, errors, callers and the last half hour by version."""
        snapshot = self._mirror.snapshot
        entry = snapshot.entries.get(name) if snapshot is not None else None
        if entry is None:
            return None
        state = await self.present()
        since = time.time() - CURVE_S
        ticks = (
            []
            if self._reader is None
            else await asyncio.to_thread(self._reader.ticks, since=since, model=name)
        )
        recent: dict[str, SeriesDelta] = {}
        for tick in ticks:
            window = recent.setdefault(tick.version, _empty())
            window.requests += tick.requests
            window.failed += tick.failed
            window.buckets = [a + b for a, b in zip(window.buckets, tick.buckets, strict=True)]
        series = state.series.get(name, {})
        return {
            "model": entry.model,
            "revision": entry.revision,
            "bounds_ms": [bound * 1000 for bound in LATENCY_BOUNDS],
            "versions": {
                version: {
                    **_totals(one),
                    "buckets": recent[version].buckets if version in recent else one.request,
                    **_window([one], []).figures(max(state.at - self._started, 1.0)),
                }
                for version, one in series.items()
            },
            "history": [
                {
                    "at": tick.at,
                    "version": tick.version,
                    "requests": tick.requests,
                    "failed": tick.failed,
                    "p50_ms": _ms(quantile(0.5, tick.buckets, LATENCY_BOUNDS)),
                    "p99_ms": _ms(quantile(0.99, tick.buckets, LATENCY_BOUNDS)),
                }
                for tick in ticks
            ],
            "callers": _callers_of(name, state)[:50],
        }

    async def recent_history(self) -> dict[str, Any]:
        """Requests and failures of each model over the last half hour, in `CURVE_POINTS` steps."""
        now = time.time()
        step = CURVE_S / CURVE_POINTS
        since = now - CURVE_S
        rows = [] if self._reader is None else await asyncio.to_thread(self._reader.counts, since=since)
        curves: dict[str, list[list[int]]] = {}
        for model, at, requests, failed in rows:
            curve = curves.setdefault(model, [[0] * CURVE_POINTS, [0] * CURVE_POINTS])
            point = min(int((at - since) / step), CURVE_POINTS - 1)
            curve[0][point] += requests
            curve[1][point] += failed
        return {"at": round(now, 3), "step_s": step, "models": curves}

    async def callers(self) -> list[dict[str, Any]]:
        state = await self.present()
        return sorted(
            (
                {
                    "caller": caller,
                    "requests": sum(usage.requests for usage in usages.values()),
                    "backend_s": round(sum(usage.backend_s for usage in usages.values()), 3),
                    "models": {
                        model: {"requests": usage.requests, "backend_s": round(usage.backend_s, 3)}
                        for model, usage in sorted(usages.items(), key=lambda item: -item[1].requests)[:20]
                    },
                }
                for caller, usages in state.callers.items()
            ),
            key=lambda usage: -float(usage["backend_s"]),  # type: ignore[arg-type]
        )[:500]


def _totals(series: Series) -> dict[str, Any]:
    return {
        "statuses": {str(status): count for status, count in sorted(series.statuses.items())},
        "errors": series.errors,
        "backend_s": round(series.backend_s, 3),
        "retries": series.retries,
        "cold_starts": series.cold_starts,
        "queued": series.queued,
        "bytes_in": series.bytes_in,
        "bytes_out": series.bytes_out,
        "slow_ms": None if series.slow_s == float("inf") else _ms(series.slow_s),
    }


def _callers_of(model: str, state: State) -> list[dict[str, Any]]:
    """The callers of `model`, those with the most requests first."""
    usages = ((caller, by_model[model]) for caller, by_model in state.callers.items() if model in by_model)
    return [
        {"caller": caller, "requests": usage.requests, "backend_s": round(usage.backend_s, 3)}
        for caller, usage in sorted(usages, key=lambda pair: -pair[1].requests)
    ]


def all_series(state: State) -> list[Series]:
    """The series of every model and version in `state`."""
    return [series for versions in state.series.values() for series in versions.values()]


def _one(versions: dict[str, Series], version: str) -> list[Series]:
    return [versions[version]] if version in versions else []


def _empty() -> SeriesDelta:
    zeros = [0] * (len(LATENCY_BOUNDS) + 1)
    return SeriesDelta(0, 0, zeros, list(zeros))


def _window(now: Iterable[Series], before: Iterable[Series]) -> SeriesDelta:
    total, earlier = Series("", ""), Series("", "")
    for series in now:
        add_series(total, series)
    for series in before:
        add_series(earlier, series)
    buckets = [n - b for n, b in zip(total.request, earlier.request, strict=True)]
    backend = [n - b for n, b in zip(total.backend, earlier.backend, strict=True)]
    return SeriesDelta(sum(buckets), total.failed - earlier.failed, buckets, backend)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _gauge(state: State, name: str) -> float:
    return state.gauges.get(name, {}).get("", 0.0)
