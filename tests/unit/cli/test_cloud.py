"""What Cloud Trace and Cloud Logging answer, from servers on this machine that speak their protocols."""

import json
import threading
import warnings
from concurrent import futures
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec

import pytest

from gateway.cli.cloud import spans_from_cloud
from gateway.cli.screen import Failure
from tests.conftest import require

require(
    "google-cloud-logging",
    available=find_spec("google.cloud.logging") is not None
    and find_spec("google.cloud.trace_v1") is not None,
    why="pip install -c constraints.txt -e '.[dev]'",
)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import grpc
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.logging import Client
    from google.cloud.trace_v1 import GetTraceRequest, Trace, TraceServiceClient, TraceSpan
    from google.cloud.trace_v1.services.trace_service.transports import TraceServiceGrpcTransport

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
BEGIN = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def trace():
    def get_trace(request, context):
        if request.trace_id != TRACE_ID:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such trace")
        spans = [
            TraceSpan(
                span_id=2,
                parent_span_id=1,
                name="attempt 1",
                kind=2,
                start_time=BEGIN,
                end_time=BEGIN + timedelta(seconds=0.9),
            ),
            TraceSpan(
                span_id=1,
                name="POST /wine",
                kind=1,
                start_time=BEGIN,
                end_time=BEGIN + timedelta(seconds=1),
                labels={"chips.model": "wine"},
            ),
        ]
        return Trace(project_id="proj", trace_id=TRACE_ID, spans=spans)

    handler = grpc.unary_unary_rpc_method_handler(
        get_trace, request_deserializer=GetTraceRequest.deserialize, response_serializer=Trace.serialize
    )
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "google.devtools.cloudtrace.v1.TraceService", {"GetTrace": handler}
            ),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    yield TraceServiceClient(transport=TraceServiceGrpcTransport(channel=channel))
    channel.close()
    server.stop(0).wait()


@pytest.fixture
def logging():
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            entries = []
            if asked["filter"].startswith('jsonPayload.request_id="order-66"'):
                entries = [
                    {
                        "logName": "projects/proj/logs/run",
                        "insertId": "1",
                        "timestamp": "2026-11-01T00:00:00Z",
                        "trace": f"projects/proj/traces/{TRACE_ID}",
                        "resource": {"type": "cloud_run_revision"},
                        "jsonPayload": {"request_id": "order-66"},
                    }
                ]
            body = json.dumps({"entries": entries}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format, *args):  # noqa: A002
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Client(
        project="proj",
        credentials=AnonymousCredentials(),
        _use_grpc=False,
        client_options={"api_endpoint": f"http://127.0.0.1:{server.server_address[1]}"},
    )
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("given", [TRACE_ID, "order-66"])
def test_by_the_trace_or_by_the_request(given, trace, logging):
    spans = spans_from_cloud("proj", given, trace=trace, logging=logging)
    assert {span.name for span in spans} == {"POST /wine", "attempt 1"}
    (attempt,) = (span for span in spans if span.name == "attempt 1")
    assert (attempt.kind, attempt.parent_id) == ("client", f"{1:016x}")
    assert attempt.end_s == pytest.approx(0.9)


@pytest.mark.parametrize("given", ["f" * 32, "order-67", 'a"b'])
def test_what_google_does_not_know(given, trace, logging):
    with pytest.raises(Failure, match="knows no request"):
        spans_from_cloud("proj", given, trace=trace, logging=logging)
