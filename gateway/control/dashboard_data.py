"""Compute the data that the dashboard shows.

They are issues, each model's requests, errors and latency by the clock, and the counts since the start.
"""

import asyncio
import time
from typing import Any

from gateway.control.find_issues import Issue, find_issues, set_issue_start
from gateway.control.model_page_data import caller_rows, history_points, version_rows
from gateway.control.window_totals import (
    DEFAULT_WINDOW,
    RequestTotals,
    WindowTotals,
    WindowTotalsReader,
    end_of_coarse_ticks,
    last_complete_tick_end,
    to_milliseconds,
)
from gateway.core.model import Model
from gateway.registry.mirror import Mirror
from gateway.telemetry.merge_metrics import quantile
from gateway.telemetry.metric_catalog import LATENCY_BOUNDS, OVERHEAD_BOUNDS
from gateway.telemetry.metrics import MetricsState
from gateway.telemetry.recorded_request_store import COARSE_S, FINE_S, KEPT_S, RequestAndTickReader
from gateway.telemetry.worker_metrics_aggregation import SharedWorkerMetrics
from gateway.thread_and_task_supervisor import Supervisor

_FRESH_S = 1.0  # who asks more often gets the same answer
_ISSUES = 50  # shown; more are counted
_DATED = 20  # of them, those that are shown first
HOUR_S = 3600
_Curves = dict[str | None, dict[int, list[int]]]
ORDERS = ("name", "rps", "failed", "p50", "p99", "in_flight")


class Dashboard:
    """Computes the dashboard's JSON from the metrics of all workers and the store of recorded requests."""

    def __init__(
        self,
        mirror: Mirror,
        shared: SharedWorkerMetrics,
        figures: RequestAndTickReader,
        *,
        supervisor: Supervisor | None = None,
    ) -> None:
        self._supervisor = supervisor or Supervisor()
        self._mirror = mirror
        self._shared = shared
        self._figures = figures
        self._windows = WindowTotalsReader(figures)
        self._state: MetricsState | None = None
        self._reading: asyncio.Task[MetricsState] | None = None
        self._issues: tuple[tuple[Any, ...], list[Issue]] | None = None
        self._started = time.time()

    async def totals_since_start(self) -> MetricsState:
        """The metrics of all workers since the start. They are at most a second old."""
        if self._state is None or time.time() - self._state.at > _FRESH_S:
            if self._reading is None:
                self._reading = self._supervisor.start_one_off_task("dashboard", self._read())
            return await asyncio.shield(self._reading)
        return self._state

    async def _read(self) -> MetricsState:
        try:
            # Merging a thousand models takes a while.
            self._state = await asyncio.to_thread(self._shared.total)
            return self._state
        finally:
            self._reading = None

    async def document(self, window: str = DEFAULT_WINDOW) -> dict[str, Any]:
        """The dashboard's document: the figures of every model and of the gateway. They cover `window`."""
        state = await self.totals_since_start()
        return await asyncio.to_thread(self._document, state, window)

    def _document(self, state: MetricsState, name: str) -> dict[str, Any]:
        window = self._windows.read(name)
        models = [_row(model, state, window) for model in self._listed().values()]
        return {**self._head(state, window), "models": sorted(models, key=lambda model: model["name"])}

    async def models_page(
        self, window: str, *, find: str, order: str, skip: int, limit: int
    ) -> dict[str, Any]:
        """A page of the list of models, with their totals in `window`.

        It has those whose name or description contains `find`, sorted by `order`, `limit` of them after the first `skip`.
        """
        state = await self.totals_since_start()
        return await asyncio.to_thread(self._page, state, window, find.lower(), order, skip, limit)

    def _page(
        self, state: MetricsState, name: str, find: str, order: str, skip: int, limit: int
    ) -> dict[str, Any]:
        window = self._windows.read(name)
        listed = self._listed()
        found = [m for m in listed.values() if find in m.name or find in m.description.lower()]
        ranked = sorted(found, key=lambda model: (_rank(order, model.name, state, window), model.name))
        shown = ranked[skip : skip + limit]
        curves = self._curves(window.ends, {model.name for model in shown})
        return {
            **self._head(state, window),
            "listed": len(listed),
            "found": len(found),
            "models": [
                {**_row(model, state, window), "curve": _curve(curves, model.name)} for model in shown
            ],
        }

    async def overview_with_issues(self, window: str) -> dict[str, Any]:
        """The overview of the gateway, with its issues of now. It has the gateway's totals; the worst issue comes first."""
        state = await self.totals_since_start()
        return await asyncio.to_thread(self._overview, state, window)

    def _overview(self, state: MetricsState, name: str) -> dict[str, Any]:
        window = self._windows.read(name)
        listed = self._listed()
        issues = self._found(window, listed)
        return {
            **self._head(state, window),
            "listed": len(listed),
            "disabled": sum(not model.enabled for model in listed.values()),
            "called": sum(name in listed for name in window.models),
            "issues": issues[:_ISSUES],
            "issues_found": len(issues),
            "curve": _curve(self._curves(window.ends, None), None),
        }

    def _curves(self, ends: int, wanted: set[str] | None) -> _Curves:
        """Requests and failures by minute of the last hour, of the models in `wanted`; None: all, added up under None."""
        coarse_ends = end_of_coarse_ticks(ends)
        begins = ends - ends % COARSE_S - HOUR_S
        rows = self._figures.requests_and_failures_by_tick(COARSE_S, after=begins, until=coarse_ends)
        rows += self._figures.requests_and_failures_by_tick(FINE_S, after=coarse_ends, until=ends)
        found: _Curves = {}
        for model, at, requests, failed in rows:
            if wanted is None or model in wanted:
                points = found.setdefault(None if wanted is None else model, {})
                point = points.setdefault(-(-at // COARSE_S) * COARSE_S, [0, 0])
                point[0] += requests
                point[1] += failed
        return found

    def _found(self, window: WindowTotals, listed: dict[str, Model]) -> list[Issue]:
        """The issues of a window, found once for each tick and state of the registry."""
        key = (window.name, window.ends, self._mirror.snapshot)
        if self._issues is not None and self._issues[0] == key:
            return self._issues[1]
        issues = find_issues(listed, window, self._windows.read("10s"))
        fine_from = window.ends - KEPT_S[FINE_S]
        oldest = self._figures.oldest_tick_end(COARSE_S)
        for issue in issues[:_DATED]:
            fine = self._figures.worker_ticks(FINE_S, after=fine_from, until=window.ends, model=issue.model)
            coarse = self._figures.worker_ticks(COARSE_S, after=0, until=fine_from, model=issue.model)
            set_issue_start(issue, coarse, fine, oldest if coarse else None)
        self._issues = key, issues
        return issues

    def _listed(self) -> dict[str, Model]:
        snapshot = self._mirror.snapshot
        return {} if snapshot is None else {name: entry.model for name, entry in snapshot.entries.items()}

    def _head(self, state: MetricsState, window: WindowTotals) -> dict[str, Any]:
        snapshot = self._mirror.snapshot
        everything = window.totals_with_unrouted_failures()
        return {
            "at": round(time.time(), 3),
            "started": round(self._started, 3),
            "window": window.name,
            "window_s": round(window.seconds, 1),
            "window_ends": window.ends,
            "gateway": {
                **everything.document(window.seconds),
                "overhead_p50_ms": to_milliseconds(quantile(0.5, state.overhead, OVERHEAD_BOUNDS)),
                "overhead_p99_ms": to_milliseconds(quantile(0.99, state.overhead, OVERHEAD_BOUNDS)),
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
        }

    async def model_document(self, name: str, window: str = DEFAULT_WINDOW) -> dict[str, Any] | None:
        """The dashboard's document of one model.

        It has the distribution, errors, callers and the last hour by version; None where there is no such model.
        """
        snapshot = self._mirror.snapshot
        entry = snapshot.entries.get(name) if snapshot is not None else None
        if entry is None:
            return None
        state = await self.totals_since_start()
        return await asyncio.to_thread(self._model, entry.model, entry.revision, state, window)

    def _model(self, model: Model, revision: int, state: MetricsState, name: str) -> dict[str, Any]:
        window = self._windows.read(name)
        hour = self._windows.read("1h")
        ends = last_complete_tick_end()
        coarse_ends = ends - ends % COARSE_S
        ticks = self._figures.worker_ticks(
            COARSE_S, after=coarse_ends - HOUR_S, until=coarse_ends, model=model.name
        )
        # What has no whole minute yet, so that the picture begins with the first requests.
        ticks += self._figures.worker_ticks(FINE_S, after=coarse_ends, until=ends, model=model.name)
        return {
            **self._head(state, window),
            "model": model,
            "revision": revision,
            "bounds_ms": [bound * 1000 for bound in LATENCY_BOUNDS],
            "figures": window.for_model(model.name).document(window.seconds),
            "in_flight": _in_flight(state, model.name),
            "issues": [i for i in self._found(window, self._listed()) if i.model == model.name],
            "versions": version_rows(model, state, window, hour),
            "history": history_points(ticks),
            "callers": caller_rows(state, model.name)[:50],
        }

    async def callers_since_start(self) -> dict[str, Any]:
        """The callers since the start. They are sorted by how much of the backends' time they used."""
        state = await self.totals_since_start()
        return {"started": round(self._started, 3), "callers": caller_rows(state)[:500]}


def _curve(curves: _Curves, name: str | None) -> list[list[int]]:
    """A point for each minute that had requests: when it ends, requests, failures."""
    return [[at, *point] for at, point in sorted(curves.get(name, {}).items())]


def _row(model: Model, state: MetricsState, window: WindowTotals) -> dict[str, Any]:
    series = state.series.get(model.name, {})
    in_window = window.models.get(model.name, {})
    listed = [backend.version for backend in model.backends]
    return {
        "name": model.name,
        "description": model.description[:200],
        "owner": model.owner,
        "enabled": model.enabled,
        "requests": sum(sum(s.request) for s in series.values()),
        "in_flight": _in_flight(state, model.name),
        **_named(window.for_model(model.name), window.seconds),
        "availability": model.policy.availability,
        "latency_s": model.policy.latency_s,
        "versions": [
            {
                "version": version,
                "traffic": model.traffic.get(version, 0),
                "listed": version in listed,
                **_named(window.for_version(model.name, version), window.seconds),
            }
            for version in [*listed, *sorted(set(in_window) - set(listed))]
        ],
    }


def _named(figures: RequestTotals, seconds: float) -> dict[str, Any]:
    """The figures of the window; their count has a name of its own where the count since the start is `requests`."""
    document = figures.document(seconds)
    document["requests_in_window"] = document.pop("requests")
    document["failed_in_window"] = document.pop("failed")
    return document


def _rank(order: str, name: str, state: MetricsState, window: WindowTotals) -> float:
    if order == "name":
        return 0.0
    if order == "in_flight":
        return -float(_in_flight(state, name))
    figures = window.for_model(name)
    if order == "failed":
        return -(figures.failed / figures.requests if figures.requests else 0.0)
    if order == "rps":
        return -float(figures.requests)
    return -(figures.quantile_ms(0.5 if order == "p50" else 0.99) or 0.0)


def _in_flight(state: MetricsState, model: str) -> int:
    return int(state.gauges.get("chips_model_in_flight_requests", {}).get(model, 0))


def _gauge(state: MetricsState, name: str) -> float:
    return state.gauges.get(name, {}).get("", 0.0)
