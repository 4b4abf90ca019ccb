"""Merge the metrics of several worker processes. Quantiles of merged histograms are computed here, too."""

from collections.abc import Iterable, Sequence
from typing import Any

from gateway.telemetry.metrics import CallerUsage, MetricsState, Series, add_usage

# Of these, the sum over processes would mean nothing.
_LARGEST = frozenset(
    {
        "chips_audit_unanchored_seconds",
        "chips_budget_spent_ratio",
        "chips_emergencies",
        "chips_objective_availability_ratio",
        "chips_objective_latency_seconds",
        "chips_registry_age_seconds",
        "chips_registry_fallback",
        "chips_registry_held",
        "chips_registry_models",
        "chips_registry_problems",
        "chips_rollout_held",
        "chips_rollout_percent",
        "chips_rollout_returned",
        "chips_rollout_unattended",
    }
)
_SMALLEST = frozenset({"chips_registry_generation", "chips_registry_connected"})


def merge_states(states: Iterable[MetricsState]) -> MetricsState:
    """Merge the metrics states of several processes. The result is their sum."""
    total = MetricsState()
    for state in states:
        total.at = max(total.at, state.at)
        for model, versions in list(state.series.items()):
            into = total.series.setdefault(model, {})
            for version, series in list(versions.items()):
                add_series(into.setdefault(version, Series(model, version)), series)
        total.labels |= state.labels
        _add_list(total.overhead, state.overhead)
        total.overhead_s += state.overhead_s
        _add_counts(total.kept, state.kept)
        for name, labels in state.counters.items():
            into_labels = total.counters.setdefault(name, {})
            for label, value in labels.items():
                into_labels[label] = into_labels.get(label, 0.0) + value
        for name, labels in state.gauges.items():
            _add_gauge(total.gauges.setdefault(name, {}), name, labels)
    return total


def add_series(total: Series, series: Series) -> None:
    """Add the counts of `series` to `total`."""
    _add_counts(total.statuses, series.statuses)
    _add_counts(total.errors, series.errors)
    _add_list(total.request, series.request)
    _add_list(total.backend, series.backend)
    total.request_s += series.request_s
    total.backend_s += series.backend_s
    total.queued += series.queued
    total.queued_s += series.queued_s
    total.retries += series.retries
    total.cold_starts += series.cold_starts
    total.bytes_in += series.bytes_in
    total.bytes_out += series.bytes_out
    total.failed += series.failed
    total.late += series.late
    total.slow_s = min(total.slow_s, series.slow_s)
    for caller, usage in list(series.callers.items()):
        add_usage(total.callers.setdefault(caller, CallerUsage(usage.team)), usage)


def _add_counts(total: dict[Any, int], more: dict[Any, int]) -> None:
    for label, count in list(more.items()):
        total[label] = total.get(label, 0) + count


def _add_list(total: list[int], more: Sequence[int]) -> None:
    for i, count in enumerate(more):
        total[i] += count


def _add_gauge(total: dict[str, float], name: str, labels: dict[str, float]) -> None:
    for label, value in labels.items():
        if label not in total:
            total[label] = value
        elif name in _LARGEST:
            total[label] = max(total[label], value)
        elif name in _SMALLEST:
            total[label] = min(total[label], value)
        else:
            total[label] += value


def quantile(share: float, buckets: Sequence[float], bounds: Sequence[float]) -> float | None:
    """A quantile of a histogram; None where it is empty.

    It is the value below which `share` of the histogram lies. It is interpolated within its bucket.
    """
    total = sum(buckets)
    if not total:
        return None
    wanted = share * total
    seen = 0.0
    for i, count in enumerate(buckets):
        if seen + count >= wanted and count:
            low = bounds[i - 1] if i else 0.0
            high = bounds[i] if i < len(bounds) else bounds[-1]
            return low + (high - low) * (wanted - seen) / count
        seen += count
    return bounds[-1]
