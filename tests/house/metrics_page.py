"""The reference page of the metrics, made from the metric table."""

from gateway.telemetry.metric_catalog import LATENCY_BOUNDS, METRICS, OVERHEAD_BOUNDS

HEAD = """\
# Metrics

<!-- Made from gateway/telemetry/metric_catalog.py: `make docs` writes this page. -->

`GET /-/metrics` gives them as Prometheus text, summed over the workers of one gateway, to callers that may operate it (a
scraper sends its key as `Authorization: Bearer …`). The settings `metrics.*` also send them to Cloud Monitoring or to
an OTLP collector. The cost for each request is in [How traces are kept, and why](../explanation/tracing.md).

Labels are bounded: a name that a caller made up never becomes one, and beyond 5 000 pairs of model and version, or of
caller and model, or 500 backends, everything further is counted as `other`. Counters begin at zero when a gateway starts.

| metric | kind | unit | labels | meaning |
|---|---|---|---|---|
"""


def render() -> str:
    rows = [
        f"| `{m.name}` | {m.kind} | {m.unit or '-'} | {', '.join(f'`{label}`' for label in m.labels) or '-'} | {m.text} |"
        for m in METRICS
    ]
    latency = ", ".join(f"{bound:g}" for bound in LATENCY_BOUNDS)
    overhead = ", ".join(f"{bound:g}" for bound in OVERHEAD_BOUNDS)
    return (
        HEAD
        + "\n".join(rows)
        + f"\n\nUpper bounds of the buckets, in seconds: {latency}; of `chips_overhead_seconds`: {overhead}.\n"
    )
