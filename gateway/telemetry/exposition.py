"""Metrics as Prometheus text (format 0.0.4)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from gateway.core.model import Model
from gateway.telemetry.metrics import State
from gateway.telemetry.table import BY_NAME, LATENCY_BOUNDS, METRICS, OVERHEAD_BOUNDS

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[str, float]  # labels as text, and the value


def exposition(state: State, models: Iterable[Model] = ()) -> bytes:
    """All of `state`, and the objectives of `models`."""
    values = _values(state, list(models))
    lines = []
    for metric in METRICS:
        samples = list(values.get(metric.name, ()))
        if not samples:
            continue
        lines.append(f"# HELP {metric.name} {metric.text}")
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        for suffix_labels, value in samples:
            lines.append(f"{metric.name}{suffix_labels} {value:.10g}")
    return ("\n".join(lines) + "\n").encode()


def _values(state: State, models: list[Model]) -> dict[str, Iterator[Sample] | list[Sample]]:
    every = [series for versions in state.series.values() for series in versions.values()]

    def each(field: str) -> list[Sample]:
        return [(labels(model=s.model, version=s.version), getattr(s, field)) for s in every]

    values: dict[str, Iterator[Sample] | list[Sample]] = {
        "chips_requests_total": [
            (labels(model=s.model, version=s.version, status=str(status)), count)
            for s in every
            for status, count in sorted(s.statuses.items())
        ],
        "chips_errors_total": [
            (labels(model=s.model, version=s.version, side=side, code=code), count)
            for s in every
            for (side, _, code), count in sorted((label.partition(" "), n) for label, n in s.errors.items())
        ],
        "chips_request_seconds": [
            sample
            for s in every
            for sample in _histogram(s.request, LATENCY_BOUNDS, s.request_s, model=s.model, version=s.version)
        ],
        "chips_backend_seconds": [
            sample
            for s in every
            if s.model
            for sample in _histogram(s.backend, LATENCY_BOUNDS, s.backend_s, model=s.model, version=s.version)
        ],
        "chips_overhead_seconds": _histogram(state.overhead, OVERHEAD_BOUNDS, state.overhead_s),
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
                (labels(model=model, objective="availability"), sum(s.failed for s in versions.values())),
                (labels(model=model, objective="latency"), sum(s.late for s in versions.values())),
            )
        ],
        "chips_objective_availability_ratio": [
            (labels(model=m.name), m.policy.availability) for m in models if m.policy.availability is not None
        ],
        "chips_objective_latency_seconds": [
            (labels(model=m.name), m.policy.latency_s) for m in models if m.policy.latency_s is not None
        ],
        "chips_caller_requests_total": [
            (labels(caller=caller, model=model), usage.requests)
            for caller, usages in state.callers.items()
            for model, usage in usages.items()
        ],
        "chips_caller_backend_seconds_total": [
            (labels(caller=caller, model=model), usage.backend_s)
            for caller, usages in state.callers.items()
            for model, usage in usages.items()
        ],
        "chips_traces_kept_total": [(labels(why=why), n) for why, n in sorted(state.kept.items())],
    }
    for read in (state.counters, state.gauges):
        for name, by_label in read.items():
            (label, *_) = (*BY_NAME[name].labels, "")
            values[name] = [
                (labels(**{label: value}) if label else "", number) for value, number in by_label.items()
            ]
    return values


def _histogram(buckets: Sequence[int], bounds: Sequence[float], total: float, **by: str) -> list[Sample]:
    samples: list[Sample] = []
    count = 0
    for bound, in_bucket in zip((*bounds, None), buckets, strict=True):
        count += in_bucket
        le = "+Inf" if bound is None else f"{bound:g}"
        samples.append(("_bucket" + labels(**by, le=le), count))
    samples.append(("_sum" + labels(**by), total))
    samples.append(("_count" + labels(**by), count))
    return samples


_ESCAPES: Mapping[int, str] = {ord("\\"): r"\\", ord('"'): r"\"", ord("\n"): r"\n"}


def labels(**by: str) -> str:
    if not by:
        return ""
    return "{" + ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in by.items()) + "}"
