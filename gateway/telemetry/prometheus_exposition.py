"""Renders metrics in the Prometheus text format (0.0.4)."""

from collections.abc import Mapping, Sequence

from gateway.telemetry.metric_catalog import BY_NAME, LATENCY_BOUNDS, METRICS, OVERHEAD_BOUNDS
from gateway.telemetry.metrics import MetricsState, usage_by_caller

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

Labels = dict[str, str]
Sample = tuple[Labels, float]
Distribution = tuple[Labels, Sequence[int], Sequence[float], float]  # labels, buckets, bounds, sum


def render_exposition(state: MetricsState) -> bytes:
    """Render all metrics in the Prometheus text format."""
    flat = scalar_samples(state)
    distributions = histograms(state)
    lines = []
    for metric in METRICS:
        samples = flat.get(metric.name, [])
        found = distributions.get(metric.name, [])
        if not samples and not found:
            continue
        lines.append(f"# HELP {metric.name} {metric.text}")
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        lines += [f"{metric.name}{_text(by)} {value:.10g}" for by, value in samples]
        for by, buckets, bounds, total in found:
            lines += _histogram(metric.name, by, buckets, bounds, total)
    return ("\n".join(lines) + "\n").encode()


def scalar_samples(state: MetricsState) -> dict[str, list[Sample]]:
    """The samples of counters and gauges by metric name."""
    samples = _by_version(state) | _by_caller(state)
    samples["chips_traces_kept_total"] = [({"why": why}, n) for why, n in sorted(state.kept.items())]
    for read in (state.counters, state.gauges):
        for name, by_label in read.items():
            (label, *_) = (*BY_NAME[name].labels, "")
            samples[name] = [({label: value} if label else {}, number) for value, number in by_label.items()]
    return samples


def _by_version(state: MetricsState) -> dict[str, list[Sample]]:
    every = [series for versions in state.series.values() for series in versions.values()]

    def each(field: str) -> list[Sample]:
        return [({"model": s.model, "version": s.version}, getattr(s, field)) for s in every]

    return {
        "chips_requests_total": [
            ({"model": s.model, "version": s.version, "status": str(status)}, count)
            for s in every
            for status, count in sorted(s.statuses.items())
        ],
        "chips_errors_total": [
            ({"model": s.model, "version": s.version, "side": side, "code": code}, count)
            for s in every
            for (side, _, code), count in sorted((label.partition(" "), n) for label, n in s.errors.items())
        ],
        "chips_queue_total": each("queued"),
        "chips_queue_seconds_total": each("queued_s"),
        "chips_retries_total": each("retries"),
        "chips_cold_starts_total": each("cold_starts"),
        "chips_request_bytes_total": each("bytes_in"),
        "chips_response_bytes_total": each("bytes_out"),
        "chips_objective_misses_total": [
            sample
            for model, versions in state.series.items()
            if model
            for sample in (
                (
                    {"model": model, "objective": "availability"},
                    float(sum(s.failed for s in versions.values())),
                ),
                ({"model": model, "objective": "latency"}, float(sum(s.late for s in versions.values()))),
            )
        ],
    }


def _by_caller(state: MetricsState) -> dict[str, list[Sample]]:
    callers = usage_by_caller(state)
    return {
        "chips_caller_requests_total": [
            ({"caller": caller, "model": model}, usage.requests)
            for caller, usages in callers.items()
            for model, usage in usages.items()
        ],
        "chips_caller_backend_seconds_total": [
            ({"caller": caller, "model": model}, usage.backend_s)
            for caller, usages in callers.items()
            for model, usage in usages.items()
        ],
    }


def histograms(state: MetricsState) -> dict[str, list[Distribution]]:
    """The histograms by metric name."""
    every = [series for versions in state.series.values() for series in versions.values()]
    return {
        "chips_request_seconds": [
            ({"model": s.model, "version": s.version}, s.request, LATENCY_BOUNDS, s.request_s) for s in every
        ],
        "chips_backend_seconds": [
            ({"model": s.model, "version": s.version}, s.backend, LATENCY_BOUNDS, s.backend_s)
            for s in every
            if s.model
        ],
        "chips_overhead_seconds": [({}, state.overhead, OVERHEAD_BOUNDS, state.overhead_s)],
    }


def _histogram(
    name: str, by: Labels, buckets: Sequence[int], bounds: Sequence[float], total: float
) -> list[str]:
    lines = []
    count = 0
    for bound, in_bucket in zip((*bounds, None), buckets, strict=True):
        count += in_bucket
        le = "+Inf" if bound is None else f"{bound:g}"
        lines.append(f"{name}_bucket{_text({**by, 'le': le})} {count}")
    return [*lines, f"{name}_sum{_text(by)} {total:.10g}", f"{name}_count{_text(by)} {count}"]


_ESCAPES: Mapping[int, str] = {ord("\\"): r"\\", ord('"'): r"\"", ord("\n"): r"\n"}


def _text(by: Labels) -> str:
    if not by:
        return ""
    return "{" + ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in by.items()) + "}"
