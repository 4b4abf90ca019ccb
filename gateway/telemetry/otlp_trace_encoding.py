"""Encodes recorded requests as an OTLP trace message (protobuf).

OpenTelemetry's own way, SDK spans and then its encoder, makes the same message at many times the cost. Most of that cost
remains when the messages are built with the protobuf library: a gateway that sends every trace would work more for its
traces than for its callers. So spans are put together as bytes (protobuf.dev/programming-guides/encoding), from attributes
that the library has encoded and that are mostly the same. A test compares the result with OpenTelemetry's.
"""

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, SpanFlags, Status
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan
from opentelemetry.sdk.resources import Resource as SdkResource

from gateway import __version__
from gateway.telemetry.recorded_request import RecordedRequest
from gateway.telemetry.spans_of_request import Span, Value, spans_of

_KINDS = {
    "server": OtlpSpan.SPAN_KIND_SERVER,
    "client": OtlpSpan.SPAN_KIND_CLIENT,
    "internal": OtlpSpan.SPAN_KIND_INTERNAL,
}
_OF_HERE = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_OF_CALLER = _OF_HERE | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
_SCOPE = InstrumentationScope(name="chips", version=__version__)
_NS = 1_000_000_000

# Tags of the fields that are encoded here: a field's number and how its value is written.
_TRACE_ID, _SPAN_ID, _PARENT_ID = b"\x0a\x10", b"\x12\x08", b"\x22\x08"  # with their lengths
_NAME, _ATTRIBUTE, _STATUS = b"\x2a", b"\x4a", b"\x7a"
_kind_and_times = Struct("<BBBQBQ").pack  # 6 as a number, 7 and 8 as 64 bits
_KIND, _START, _END = 0x30, 0x39, 0x41
_FLAGS = {flags: Struct("<BBI").pack(0x85, 0x01, flags) for flags in (_OF_HERE, _OF_CALLER)}  # 16, as 32 bits
_SPANS, _SCOPE_SPANS, _RESOURCE_SPANS = b"\x12", b"\x12", b"\x0a"


def encode_otlp_traces(batch: Sequence[RecordedRequest], resource: SdkResource) -> bytes:
    """Encode the spans of recorded requests as one OTLP ExportTraceServiceRequest."""
    parts = [ScopeSpans(scope=_SCOPE).SerializeToString()]
    for request in batch:
        trace_id = _TRACE_ID + bytes.fromhex(request.trace_id)
        parts += [_field(_SPANS, _span(span, request.at, trace_id)) for span in spans_of(request)]
    attributes = [_key_value(name, value) for name, value in resource.attributes.items()]
    described = ResourceSpans(resource=Resource(attributes=attributes)).SerializeToString()
    return _field(_RESOURCE_SPANS, described + _field(_SCOPE_SPANS, b"".join(parts)))


def _span(span: Span, at: float, trace_id: bytes) -> bytes:
    parent_id, kind = span.parent_id, span.kind
    parts = [
        trace_id,
        _SPAN_ID,
        bytes.fromhex(span.span_id),
        _field(_NAME, span.name.encode("utf-8", "replace")),
        _kind_and_times(
            _KIND,
            _KINDS[kind],
            _START,
            int((at + span.start_s) * _NS),
            _END,
            int((at + span.end_s) * _NS),
        ),
        *[_attribute(name, value, type(value).__name__) for name, value in span.attributes.items()],
        _status(span.error),
        _FLAGS[_OF_CALLER if parent_id is not None and kind == "server" else _OF_HERE],
    ]
    if parent_id is not None:
        parts += (_PARENT_ID, bytes.fromhex(parent_id))
    return b"".join(parts)


@lru_cache(maxsize=1024)
def _status(error: str) -> bytes:
    status = Status(code=Status.STATUS_CODE_ERROR, message=_text(error)) if error else Status()
    return _field(_STATUS, status.SerializeToString())


@lru_cache(maxsize=4096)
def _attribute(name: str, value: Value, kind: str) -> bytes:  # noqa: ARG001
    """Most are the same in many spans. `kind` is there because 1, 1.0 and True would be one to the memory."""
    return _field(_ATTRIBUTE, _key_value(name, value).SerializeToString())


def _key_value(name: str, value: object) -> KeyValue:
    if isinstance(value, bool):
        return KeyValue(key=name, value=AnyValue(bool_value=value))
    if isinstance(value, int):
        return KeyValue(key=name, value=AnyValue(int_value=value))
    if isinstance(value, float):
        return KeyValue(key=name, value=AnyValue(double_value=value))
    return KeyValue(key=name, value=AnyValue(string_value=_text(str(value))))


def _text(text: str) -> str:
    """Without the surrogates that stand for bytes that are not UTF-8: protobuf has no place for them."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _field(tag: bytes, content: bytes) -> bytes:
    """A field whose value is bytes: its tag, its length, the bytes."""
    length = len(content)
    if length < 0x80:
        return b"%b%c%b" % (tag, length, content)
    size = bytearray()
    while length >= 0x80:
        size.append(length & 0x7F | 0x80)
        length >>= 7
    size.append(length)
    return b"%b%b%b" % (tag, bytes(size), content)
