"""Exports sampled traces to Cloud Trace or an OTLP collector. It is imported only in an export queue's thread."""

import logging
import time
import warnings
from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from gateway import __version__
from gateway.telemetry.recorded_request_queue import TraceSink
from gateway.telemetry.recorded_request_summary import RequestSummary
from gateway.telemetry.spans_of_request import Span, spans_of

_KINDS = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT, "internal": SpanKind.INTERNAL}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_SCOPE = InstrumentationScope("chips", __version__)
_NS = 1_000_000_000


def otel_spans(summary: RequestSummary, resource: Resource) -> list[ReadableSpan]:
    """Convert a request summary to OpenTelemetry spans."""
    return [_otel_span(span, summary, resource) for span in spans_of(summary)]


def _otel_span(span: Span, summary: RequestSummary, resource: Resource) -> ReadableSpan:
    trace_id = int(summary.trace_id, 16)
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
        start_time=int((summary.at + span.start_s) * _NS),
        end_time=int((summary.at + span.end_s) * _NS),
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

    def write(self, batch: Sequence[RequestSummary], timeout_s: float) -> None:
        spans = [span for summary in batch for span in otel_spans(summary, self._resource)]
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

    def write(self, batch: Sequence[RequestSummary], timeout_s: float) -> None:
        self._post(self._message(batch, self._resource), timeout_s)

    def close(self) -> None:
        self._post.close()


class OtlpClient:
    """An HTTP client that posts OTLP messages. OpenTelemetry's exporters would retry for longer than a stop may take."""

    def __init__(self, url: str) -> None:
        import requests

        self._url = url
        self._session: Any = requests.Session()
        if url.startswith("https://telemetry.googleapis.com/"):
            import google.auth
            from google.auth.transport.requests import AuthorizedSession

            credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
            self._session = AuthorizedSession(credentials)

    def __call__(self, message: bytes, timeout_s: float) -> None:
        began = time.monotonic()
        answer = self._session.post(
            self._url, data=message, headers={"Content-Type": "application/x-protobuf"}, timeout=timeout_s
        )
        if (
            answer.status_code in {429, 502, 503, 504}
            and (left_s := timeout_s - (time.monotonic() - began)) > 0.5
        ):
            time.sleep(0.2)  # once: a collector that restarts
            answer = self._session.post(
                self._url, data=message, headers={"Content-Type": "application/x-protobuf"}, timeout=left_s
            )
        answer.raise_for_status()

    def close(self) -> None:
        self._session.close()


def open_trace_sink(kind: str, *, project: str, endpoint: str, service: str, instance: str) -> TraceSink:
    """Open the trace sink of this kind. The kinds are `cloud-trace` and `otlp`."""
    resource = otel_resource(service, instance, project)
    return CloudTraceSink(project, resource) if kind == "cloud-trace" else OtlpTraceSink(endpoint, resource)
