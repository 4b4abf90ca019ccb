"""The sinks that export traces: to Cloud Trace, or to an OTLP collector. Imported only in an export queue's thread."""

import logging
import warnings
from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from gateway import __version__
from gateway.telemetry.otlp_client import OtlpClient
from gateway.telemetry.recorded_request import RecordedRequest
from gateway.telemetry.recorded_request_queue import TraceSink
from gateway.telemetry.spans_of_request import Span, spans_of

_KINDS = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT, "internal": SpanKind.INTERNAL}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_SCOPE = InstrumentationScope("chips", __version__)
_NS = 1_000_000_000


def otel_spans(request: RecordedRequest, resource: Resource) -> list[ReadableSpan]:
    """Convert a recorded request to OpenTelemetry spans."""
    return [_otel_span(span, request, resource) for span in spans_of(request)]


def _otel_span(span: Span, request: RecordedRequest, resource: Resource) -> ReadableSpan:
    trace_id = int(request.trace_id, 16)
    parent = None
    if span.parent_id is not None:
        parent = SpanContext(
            trace_id, int(span.parent_id, 16), is_remote=span.kind == "server", trace_flags=_SAMPLED
        )
    return ReadableSpan(
        name=span.name,
        context=SpanContext(
            trace_id, int(span.span_id, 16), is_remote=False, trace_flags=_SAMPLED, trace_state=TraceState()
        ),
        parent=parent,
        resource=resource,
        attributes=span.attributes,
        kind=_KINDS[span.kind],
        status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
        start_time=int((request.at + span.start_s) * _NS),
        end_time=int((request.at + span.end_s) * _NS),
        instrumentation_scope=_SCOPE,
    )


def otel_resource(service: str, instance: str, project: str = "") -> Resource:
    """The OpenTelemetry resource of this process. It has service, instance and project."""
    attributes = {"service.name": service, "service.version": __version__, "service.instance.id": instance}
    if project:
        attributes["gcp.project_id"] = project  # Google's OTLP endpoint wants it
    return Resource(attributes)


class CloudTraceSink:
    """Sends traces to Cloud Trace. Each call is bounded in time.

    It uses opentelemetry-exporter-gcp-trace. By itself that exporter retries without end, ignores the time allowed for a
    flush, and delays a shutdown by thirty seconds.
    """

    def __init__(self, project: str, resource: Resource, *, client: Any = None) -> None:
        logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it still uses a deprecated class of the SDK
            from google.cloud.trace_v2 import BatchWriteSpansRequest
            from opentelemetry.exporter.cloud_trace import CloudTraceSpanExporter

            self._exporter = CloudTraceSpanExporter(
                project_id=project, client=client, resource_regex=r"service\..*"
            )
        self._request = BatchWriteSpansRequest
        self._project = project
        self._resource = resource

    def write(self, batch: Sequence[RecordedRequest], timeout_s: float) -> None:
        spans = [span for request in batch for span in otel_spans(request, self._resource)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            translated = self._exporter._translate_to_cloud_trace(spans)
        self._exporter.client.batch_write_spans(
            request=self._request(name=f"projects/{self._project}", spans=translated),
            retry=None,
            timeout=timeout_s,
        )

    def close(self) -> None:
        self._exporter.client.transport.close()


class OtlpTraceSink:
    """Sends traces to an OTLP collector.

    It posts them over HTTP. At Google's own endpoint it uses our service account's token.
    """

    def __init__(self, endpoint: str, resource: Resource) -> None:
        from gateway.telemetry.otlp_trace_encoding import encode_otlp_traces

        self._message = encode_otlp_traces
        self._post = OtlpClient(endpoint.rstrip("/") + "/v1/traces")
        self._resource = resource

    def write(self, batch: Sequence[RecordedRequest], timeout_s: float) -> None:
        self._post(self._message(batch, self._resource), timeout_s)

    def close(self) -> None:
        self._post.close()


def open_trace_sink(kind: str, *, project: str, endpoint: str, service: str, instance: str) -> TraceSink:
    """Open the trace sink of this kind. The kinds are `cloud-trace` and `otlp`."""
    resource = otel_resource(service, instance, project)
    return CloudTraceSink(project, resource) if kind == "cloud-trace" else OtlpTraceSink(endpoint, resource)
