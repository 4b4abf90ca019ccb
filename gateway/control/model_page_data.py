"""The data of one model's page in the console. It shows the versions, the last hour, and the callers."""

from collections.abc import Iterable
from typing import Any

from gateway.control.window_totals import RequestTotals, WindowTotals, to_milliseconds
from gateway.core.model import Model
from gateway.telemetry.metrics import MetricsState, Series, usage_by_caller
from gateway.telemetry.recorded_request_store import Tick


def version_rows(
    model: Model, since_start: MetricsState, window: WindowTotals, last_hour: WindowTotals
) -> list[dict[str, Any]]:
    """A row for each version of a model.

    A row has the version's figures in the window, latency in the last hour, and counts since the start.
    """
    series_by_version = since_start.series.get(model.name, {})
    listed = {backend.version: backend for backend in model.backends}
    seen = [*series_by_version, *window.models.get(model.name, {}), *last_hour.models.get(model.name, {})]
    found = []
    for version in dict.fromkeys([*listed, *sorted(set(seen) - set(listed))]):
        series = series_by_version.get(version) or Series(model.name, version)
        found.append(
            {
                "version": version,
                "listed": version in listed,
                "backend": listed.get(version),
                "traffic": model.traffic.get(version, 0),
                "now": window.for_version(model.name, version).document(window.seconds),
                "hour": last_hour.for_version(model.name, version).document(last_hour.seconds),
                "buckets": last_hour.for_version(model.name, version).buckets,
                "statuses": {str(status): count for status, count in sorted(series.statuses.items())},
                "errors": series.errors,
                "backend_s": round(series.backend_s, 3),
                "retries": series.retries,
                "cold_starts": series.cold_starts,
                "queued": series.queued,
                "bytes_in": series.bytes_in,
                "bytes_out": series.bytes_out,
                "slow_ms": None if series.slow_s == float("inf") else to_milliseconds(series.slow_s),
            }
        )
    return found


def history_points(ticks: Iterable[Tick]) -> list[dict[str, Any]]:
    """The points of a history, one for each tick and version. They are added up over the workers, oldest first."""
    points: dict[tuple[int, int, str], RequestTotals] = {}
    for tick in ticks:
        points.setdefault((tick.at, tick.seconds, tick.version), RequestTotals()).add(tick)
    return [
        {
            "at": at,
            "seconds": seconds,
            "version": version,
            "requests": figures.requests,
            "failed": figures.failed,
            "p50_ms": figures.quantile_ms(0.5),
            "p99_ms": figures.quantile_ms(0.99),
        }
        for (at, seconds, version), figures in sorted(points.items())
    ]


def caller_rows(state: MetricsState, model: str | None = None) -> list[dict[str, Any]]:
    """The callers of one model, or of all, as rows.

    They are sorted by how much of the backends' time they used since the start.
    """
    found = []
    for caller, usages in usage_by_caller(state).items():
        ours = usages if model is None else {name: u for name, u in usages.items() if name == model}
        if ours:
            found.append(
                {
                    "caller": caller,
                    "label": state.labels.get(caller, ""),
                    "requests": sum(usage.requests for usage in ours.values()),
                    "backend_s": round(sum(usage.backend_s for usage in ours.values()), 3),
                    "models": {
                        name: {"requests": usage.requests, "backend_s": round(usage.backend_s, 3)}
                        for name, usage in sorted(ours.items(), key=lambda item: -item[1].requests)[:20]
                    },
                }
            )
    return sorted(found, key=lambda usage: (-usage["backend_s"], -usage["requests"]))
