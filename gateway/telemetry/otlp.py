"""Kept requests as an OTLP message, straight from our spans.

OpenTelemetry's own way there, SDK spans and then its encoder, makes the same message at several times the cost; a gateway that
keeps every trace pays for it with every request. A test holds that both make the same.
"""

from collections.abc import Sequence
from functools import lru_cache

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, SpanFlags, Status
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan
from opentelemetry.sdk.resources import Resource as SdkResource

from gateway import __version__
from gateway.telemetry.spans import Span, Value, spans_of
from gateway.telemetry.summary import Summary

_KINDS = {
    "server": OtlpSpan.SPAN_KIND_SERVER,
    "client": OtlpSpan.SPAN_KIND_CLIENT,
    "internal": OtlpSpan.SPAN_KIND_INTERNAL,
}
_OF_HERE = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_OF_CALLER = _OF_HERE | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
_SCOPE = InstrumentationScope(name="chips", version=__version__)
_UNSET = Status()
_NS = 1_000_000_000


def otlp_message(batch: Sequence[Summary], resource: SdkResource) -> ExportTraceServiceRequest:
    spans = [
        _otlp_span(span, summary, bytes.fromhex(summary.trace_id))
        for summary in batch
        for span in spans_of(summary)
    ]
    described = Resource(
        attributes=[_attribute(name, str(value), "str") for name, value in resource.attributes.items()]
    )
    scoped = ScopeSpans(scope=_SCOPE, spans=spans)
    return ExportTraceServiceRequest(resource_spans=[ResourceSpans(resource=described, scope_spans=[scoped])])


def _otlp_span(span: Span, summary: Summary, trace_id: bytes) -> OtlpSpan:
    parent_id = span.parent_id
    return OtlpSpan(
        trace_id=trace_id,
        span_id=bytes.fromhex(span.span_id),
        parent_span_id=bytes.fromhex(parent_id or ""),
        name=span.name,
        kind=_KINDS[span.kind],
        start_time_unix_nano=int((summary.at + span.start_s) * _NS),
        end_time_unix_nano=int((summary.at + span.end_s) * _NS),
        attributes=[_attribute(name, value, type(value).__name__) for name, value in span.attributes.items()],
        status=Status(code=Status.STATUS_CODE_ERROR, message=span.error) if span.error else _UNSET,
        flags=_OF_CALLER if parent_id is not None and span.kind == "server" else _OF_HERE,
    )


@lru_cache(maxsize=4096)
def _attribute(name: str, value: Value, kind: str) -> KeyValue:
    """Most are the same in many spans. `kind` is there because 1, 1.0 and True would be one to the memory."""
    if kind == "bool":
        return KeyValue(key=name, value=AnyValue(bool_value=bool(value)))
    if kind == "int":
        return KeyValue(key=name, value=AnyValue(int_value=int(value)))
    if kind == "float":
        return KeyValue(key=name, value=AnyValue(double_value=float(value)))
    return KeyValue(key=name, value=AnyValue(string_value=str(value)))
