"""Metrics to an OTLP collector and to a Cloud Monitoring server on this machine."""

import warnings
from concurrent import futures

import pytest

from gateway.telemetry.metrics import RequestMetrics
from gateway.telemetry.metrics_push import MetricsPusher
from tests.patience import patience
from tests.unit.telemetry.exchanges import make_exchange
from tests.unit.telemetry.test_trace_sinks import RESOURCE, Collector, collector

__all__ = ["collector"]

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import grpc
    from google.cloud.monitoring_v3 import (
        CreateMetricDescriptorRequest,
        CreateTimeSeriesRequest,
        MetricServiceClient,
    )
    from google.cloud.monitoring_v3.services.metric_service.transports import MetricServiceGrpcTransport
    from google.protobuf.empty_pb2 import Empty
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    from gateway.telemetry.metrics_sinks import CloudMonitoringSink, OtlpMetricsSink


@pytest.fixture
def metrics() -> RequestMetrics:
    metrics = RequestMetrics()
    metrics.observe(make_exchange(took_s=0.1), 200)
    metrics.observe(make_exchange(took_s=0.1), 502)
    return metrics


def send(metrics: RequestMetrics, sink) -> MetricsPusher:
    sender = MetricsPusher(metrics, sink, every_s=600)
    sender.start()
    sender.stop(patience(20))
    return sender


def test_otlp(metrics: RequestMetrics, collector: Collector):
    assert send(metrics, lambda: OtlpMetricsSink(collector.url, RESOURCE)).failures_in_a_row == 0
    ((path, body),) = collector.posts
    assert path == "/v1/metrics"
    sent = {
        metric.name: metric
        for scope in ExportMetricsServiceRequest.FromString(body).resource_metrics[0].scope_metrics
        for metric in scope.metrics
    }
    requests = {
        (next(a.value.string_value for a in p.attributes if a.key == "status"), p.as_double)
        for p in sent["chips_requests_total"].sum.data_points
    }
    assert requests == {("200", 1.0), ("502", 1.0)}
    assert sent["chips_requests_total"].sum.is_monotonic
    (point,) = sent["chips_request_seconds"].histogram.data_points
    assert (point.count, round(point.sum, 6)) == (2, 0.2)
    assert sum(point.bucket_counts) == 2


def test_a_collector_that_is_away_costs_nothing_but_a_count(metrics: RequestMetrics, collector: Collector):
    collector.statuses = [500]
    assert send(metrics, lambda: OtlpMetricsSink(collector.url, RESOURCE)).failures_in_a_row == 1


def test_cloud_monitoring(metrics: RequestMetrics):
    series: list[CreateTimeSeriesRequest] = []

    def create_series(request, context):
        series.append(request)
        return Empty()

    def create_descriptor(request, context):
        return request.metric_descriptor

    from google.api.metric_pb2 import MetricDescriptor  # type: ignore[import-untyped]

    handlers = {
        "CreateTimeSeries": grpc.unary_unary_rpc_method_handler(
            create_series,
            request_deserializer=CreateTimeSeriesRequest.deserialize,
            response_serializer=Empty.SerializeToString,
        ),
        "CreateMetricDescriptor": grpc.unary_unary_rpc_method_handler(
            create_descriptor,
            request_deserializer=CreateMetricDescriptorRequest.deserialize,
            response_serializer=MetricDescriptor.SerializeToString,
        ),
    }
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("google.monitoring.v3.MetricService", handlers),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    def sink() -> CloudMonitoringSink:
        channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        client = MetricServiceClient(transport=MetricServiceGrpcTransport(channel=channel))
        return CloudMonitoringSink("proj", RESOURCE, client=client)

    assert send(metrics, sink).failures_in_a_row == 0
    server.stop(0).wait()
    sent = {s.metric.type: s for request in series for s in request.time_series}
    assert "workload.googleapis.com/chips_requests_total" in sent
    histogram = sent["workload.googleapis.com/chips_request_seconds"].points[0].value.distribution_value
    assert histogram.count == 2
