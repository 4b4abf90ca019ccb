"""Exporters against servers that speak the real protocols, on this machine."""

import threading
import time
import warnings
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec

import pytest

from gateway.core.errors import BrokenUpstreamResponse
from gateway.core.trace_context import continue_trace
from gateway.telemetry.recorded_request_queue import RecordedRequestQueue
from gateway.telemetry.spans_of_request import spans_of
from tests.conftest import require
from tests.patience import patience
from tests.unit.telemetry.test_recorded_request_store import recorded

require(
    "opentelemetry",
    available=find_spec("opentelemetry") is not None and find_spec("grpc") is not None,
    why="its packages are not installed: pip install -c constraints.txt -e '.[dev]'",
)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import grpc
    from google.cloud.trace_v2 import BatchWriteSpansRequest, TraceServiceClient
    from google.cloud.trace_v2.services.trace_service.transports import TraceServiceGrpcTransport
    from google.protobuf.empty_pb2 import Empty
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    from gateway.telemetry.otlp_trace_encoding import encode_otlp_traces
    from gateway.telemetry.trace_sinks import CloudTraceSink, OtlpTraceSink, otel_resource, otel_spans

CALLER = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
RESOURCE = otel_resource("chips", "test-1", "proj")


class CloudTraceServer:
    """Google's `TraceService.BatchWriteSpans`."""

    def __init__(self) -> None:
        self.requests: list[BatchWriteSpansRequest] = []
        self.refuse = False
        self.hang: threading.Event | None = None
        handler = grpc.unary_unary_rpc_method_handler(
            self._write,
            request_deserializer=BatchWriteSpansRequest.deserialize,
            response_serializer=Empty.SerializeToString,
        )
        self._threads = futures.ThreadPoolExecutor(2)
        self._server = grpc.server(self._threads)
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    "google.devtools.cloudtrace.v2.TraceService", {"BatchWriteSpans": handler}
                ),
            )
        )
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def _write(self, request, context):
        if self.hang is not None:
            self.hang.wait(patience(30))
        if self.refuse:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "scripted")
        self.requests.append(request)
        return Empty()

    def sink(self) -> CloudTraceSink:
        channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        client = TraceServiceClient(transport=TraceServiceGrpcTransport(channel=channel))
        return CloudTraceSink("proj", RESOURCE, client=client)

    def stop(self) -> None:
        if self.hang is not None:
            self.hang.set()
        self._server.stop(0).wait()
        self._threads.shutdown()


@pytest.fixture
def cloud_trace() -> Iterator[CloudTraceServer]:
    server = CloudTraceServer()
    yield server
    server.stop()


def test_cloud_trace_gets_the_waterfall(cloud_trace: CloudTraceServer):
    kept = recorded(attempts=2, status=502, server_timing=b"predict;dur=20", trace=continue_trace(CALLER))
    export_queue = RecordedRequestQueue(
        "cloud-trace", cloud_trace.sink, interval_s=60, timeout_s=patience(20)
    )
    export_queue.start()
    export_queue.enqueue(kept)
    export_queue.stop(patience(20))
    assert export_queue.dropped == 0
    (request,) = cloud_trace.requests
    assert request.name == "projects/proj"
    sent = {span.span_id: span for span in request.spans}
    expected = spans_of(kept)
    assert set(sent) == {span.span_id for span in expected}
    for span in expected:
        assert sent[span.span_id].name == f"projects/proj/traces/{kept.trace_id}/spans/{span.span_id}"
        assert sent[span.span_id].display_name.value == span.name
        assert sent[span.span_id].parent_span_id == (span.parent_id or "")
        took_s = (sent[span.span_id].end_time - sent[span.span_id].start_time).total_seconds()
        assert took_s == pytest.approx(span.end_s - span.start_s, abs=1e-5)
    root = sent[kept.span_id]
    assert root.status.code != 0
    assert root.attributes.attribute_map["chips.model"].string_value.value == "wine"


@pytest.mark.parametrize(
    "kept",
    [
        recorded(attempts=2, status=502, server_timing=b"predict;dur=20", trace=continue_trace(CALLER)),
        recorded(took_s=3, server_timing=b"a;dur=1, b;dur=2", queued_s=0.5, permitted=1000.5),
        recorded(model=None, status=404, attempts=0),
        recorded(status=499, kept="left", target="/w\u00efne", caller="1"),
        recorded(status=503, attempts=0, error=BrokenUpstreamResponse("x" * 20_000), target="/" + "y" * 300),
    ],
    ids=["failed", "cold start", "refused", "left", "long"],
)
def test_an_otlp_message_is_what_opentelemetry_itself_would_make(kept):
    again = recorded()  # of another trace, in the same batch
    ours = ExportTraceServiceRequest.FromString(encode_otlp_traces([kept, again], RESOURCE))
    theirs = encode_spans([*otel_spans(kept, RESOURCE), *otel_spans(again, RESOURCE)])
    assert ours == theirs


def test_a_path_that_is_no_text_reaches_the_collector():
    """Its stand-in is a question mark here; the SDK would lose the whole batch."""
    sent = ExportTraceServiceRequest.FromString(
        encode_otlp_traces([recorded(model=None, target="/\udcff", status=404, attempts=0)], RESOURCE)
    )
    (span,) = sent.resource_spans[0].scope_spans[0].spans
    assert span.name == "POST /?"
    assert {a.key: a.value.string_value for a in span.attributes}["url.path"] == "/?"


def test_cloud_trace_refuses(cloud_trace: CloudTraceServer):
    cloud_trace.refuse = True
    export_queue = RecordedRequestQueue("cloud-trace", cloud_trace.sink, interval_s=60)
    export_queue.start()
    export_queue.enqueue(recorded())
    export_queue.stop(patience(20))
    assert export_queue.dropped == 1


def test_cloud_trace_is_away():
    server = CloudTraceServer()
    server.stop()
    export_queue = RecordedRequestQueue("cloud-trace", server.sink, interval_s=60)
    export_queue.start()
    export_queue.enqueue(recorded())
    began = time.monotonic()
    export_queue.stop(patience(20))
    assert export_queue.dropped == 1
    assert time.monotonic() - began < patience(
        20
    )  # the exporter by itself would hold on to it for 30 s and more


def test_cloud_trace_hangs(cloud_trace: CloudTraceServer):
    cloud_trace.hang = threading.Event()
    export_queue = RecordedRequestQueue("cloud-trace", cloud_trace.sink, interval_s=60, timeout_s=0.5)
    export_queue.start()
    export_queue.enqueue(recorded())
    export_queue.stop(patience(20))
    assert export_queue.dropped == 1
    cloud_trace.hang.set()


class Collector(ThreadingHTTPServer):
    """An OTLP/HTTP collector."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, bytes]] = []
        self.statuses: list[int] = []
        super().__init__(("127.0.0.1", 0), _CollectorHandler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _CollectorHandler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        if status == 200:
            self.server.posts.append((self.path, body))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format, *args):  # noqa: A002
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.shutdown()
    collector.server_close()


def send(export_queue_to, *kept):
    export_queue = RecordedRequestQueue("otlp", export_queue_to, interval_s=60, timeout_s=patience(20))
    export_queue.start()
    for one in kept:
        export_queue.enqueue(one)
    export_queue.stop(patience(20))
    return export_queue.dropped


def test_otlp_gets_the_waterfall(collector: Collector):
    kept = recorded(attempts=2, server_timing=b"predict;dur=20")
    assert send(lambda: OtlpTraceSink(collector.url, RESOURCE), kept) == 0
    ((path, body),) = collector.posts
    assert path == "/v1/traces"
    (resource_spans,) = ExportTraceServiceRequest.FromString(body).resource_spans
    assert {a.key: a.value.string_value for a in resource_spans.resource.attributes}[
        "service.name"
    ] == "chips"
    (scope_spans,) = resource_spans.scope_spans
    sent = {span.span_id.hex(): span for span in scope_spans.spans}
    for span in spans_of(kept):
        assert sent[span.span_id].trace_id.hex() == kept.trace_id
        assert sent[span.span_id].parent_span_id.hex() == (span.parent_id or "")
        assert sent[span.span_id].name == span.name


def test_otlp_is_asked_once_more_after_a_hiccup(collector: Collector):
    collector.statuses = [503]
    assert send(lambda: OtlpTraceSink(collector.url, RESOURCE), recorded()) == 0
    assert len(collector.posts) == 1


def test_otlp_refuses(collector: Collector):
    collector.statuses = [400]
    assert send(lambda: OtlpTraceSink(collector.url, RESOURCE), recorded()) == 1


def test_otlp_is_away():
    assert send(lambda: OtlpTraceSink("http://127.0.0.1:9", RESOURCE), recorded()) == 1
