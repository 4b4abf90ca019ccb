"""The sinks that export metrics: to Cloud Monitoring, or to an OTLP collector. Imported only in the sender's thread."""

import time
import warnings
from collections.abc import Iterator
from typing import Any

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from gateway import __version__
from gateway.telemetry.metric_catalog import METRICS
from gateway.telemetry.metric_catalog import Metric as Described
from gateway.telemetry.metrics import MetricsState
from gateway.telemetry.metrics_push import MetricsSink
from gateway.telemetry.otlp_client import OtlpClient
from gateway.telemetry.prometheus_exposition import histograms, scalar_samples
from gateway.telemetry.trace_sinks import otel_resource

_SCOPE = InstrumentationScope("chips", __version__)
_CUMULATIVE = AggregationTemporality.CUMULATIVE
_UNITS = {"seconds": "s", "bytes": "By", "ratio": "1", "": "1"}


def metrics_data(state: MetricsState, resource: Resource, began_ns: int) -> MetricsData:
    """Convert a metrics state to OpenTelemetry MetricsData."""
    now_ns = time.time_ns()
    metrics = list(_metrics(state, began_ns, now_ns))
    return MetricsData([ResourceMetrics(resource, [ScopeMetrics(_SCOPE, metrics, "")], "")])


def _metrics(state: MetricsState, began_ns: int, now_ns: int) -> Iterator[Metric]:
    flat = scalar_samples(state)
    distributions = histograms(state)
    for described in METRICS:
        data: Any
        if described.kind == "histogram":
            points = [
                HistogramDataPoint(
                    attributes=by,
                    start_time_unix_nano=began_ns,
                    time_unix_nano=now_ns,
                    count=sum(buckets),
                    sum=total,
                    bucket_counts=list(buckets),
                    explicit_bounds=list(bounds),
                    min=0.0,
                    max=0.0,
                )
                for by, buckets, bounds, total in distributions.get(described.name, ())
            ]
            data = Histogram(points, _CUMULATIVE)
        else:
            numbers = [
                NumberDataPoint(
                    attributes=by, start_time_unix_nano=began_ns, time_unix_nano=now_ns, value=float(value)
                )
                for by, value in flat.get(described.name, ())
            ]
            data = (
                Gauge(numbers) if described.kind == "gauge" else Sum(numbers, _CUMULATIVE, is_monotonic=True)
            )
        if data.data_points:
            yield _metric(described, data)


def _metric(described: Described, data: Any) -> Metric:
    return Metric(described.name, described.text, _UNITS[described.unit], data)


class OtlpMetricsSink:
    """Sends metrics to an OTLP collector over HTTP."""

    def __init__(self, endpoint: str, resource: Resource) -> None:
        from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics

        self._encode = encode_metrics
        self._post = OtlpClient(endpoint.rstrip("/") + "/v1/metrics")
        self._resource = resource
        self._began_ns = time.time_ns()

    def write(self, state: MetricsState, timeout_s: float) -> None:
        data = metrics_data(state, self._resource, self._began_ns)
        self._post(self._encode(data).SerializeToString(), timeout_s)

    def close(self) -> None:
        self._post.close()


class CloudMonitoringSink:
    """Sends metrics to Cloud Monitoring. There they are named `workload.googleapis.com/chips_…`."""

    def __init__(self, project: str, resource: Resource, *, client: Any = None) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from opentelemetry.exporter.cloud_monitoring import CloudMonitoringMetricsExporter

            self._exporter = CloudMonitoringMetricsExporter(
                project_id=project, client=client, add_unique_identifier=True
            )
        self._resource = resource
        self._began_ns = time.time_ns()

    def write(self, state: MetricsState, timeout_s: float) -> None:
        data = metrics_data(state, self._resource, self._began_ns)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = self._exporter.export(data, timeout_millis=timeout_s * 1000)
        if result.name != "SUCCESS":
            raise ConnectionError("Cloud Monitoring did not take them; its own log line says why")

    def close(self) -> None:
        self._exporter.client.transport.close()


def open_metrics_sink(kind: str, *, project: str, endpoint: str, service: str, instance: str) -> MetricsSink:
    """Open the metrics sink of this kind: `cloud-monitoring` or `otlp`."""
    resource = otel_resource(service, instance, project)
    return (
        CloudMonitoringSink(project, resource)
        if kind == "cloud-monitoring"
        else OtlpMetricsSink(endpoint, resource)
    )
