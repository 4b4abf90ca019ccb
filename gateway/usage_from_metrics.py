"""Derive the usage of this process from its metrics.

It is for cost and budgets. Every request that named a model is in it.
"""

from gateway.cost.usage_documents import Usage, UsageKey
from gateway.telemetry.metrics import CallerUsage, RequestMetrics, Series


def usage_from_metrics(metrics: RequestMetrics) -> dict[UsageKey, Usage]:
    """The usage since the start of the process, by key. Call it in the event loop: nothing is counted meanwhile."""
    found: dict[UsageKey, Usage] = {}
    for series in metrics.all_series():
        if not series.model:
            continue
        rest = _of_series(series)
        for caller, counted in series.callers.items():
            usage = _of_caller(counted)
            found[UsageKey(series.model, series.version, caller, counted.team)] = usage
            rest = rest - usage
        if rest.requests:
            found[UsageKey(series.model, series.version, "", "")] = rest
    return found


def _of_caller(counted: CallerUsage) -> Usage:
    return Usage(
        counted.requests,
        counted.refused,
        counted.failed,
        round(counted.backend_s * 1e6),
        counted.bytes_in,
        counted.bytes_out,
        counted.reached,
    )


def _of_series(series: Series) -> Usage:
    statuses = series.statuses
    return Usage(
        sum(statuses.values()),
        sum(count for status, count in statuses.items() if 400 <= status < 500),
        sum(count for status, count in statuses.items() if status >= 500),
        # Who is refused before authentication reaches no backend.
        sum(round(usage.backend_s * 1e6) for usage in series.callers.values()),
        series.bytes_in,
        series.bytes_out,
        sum(usage.reached for usage in series.callers.values()),
    )
