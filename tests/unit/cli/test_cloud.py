"""What Cloud Trace and Cloud Logging answer, from servers on this machine that speak their protocols."""

import json
import re
import warnings
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import Any

import pytest

from gateway.cli.observe.requests_in_google_cloud import spans_from_cloud
from gateway.cli.support.console import Failure
from gateway.core.errors import BrokenUpstreamResponse
from gateway.core.exchange import Exchange
from gateway.core.trace_context import TraceContext
from gateway.telemetry.access_log import JsonAccessLogFormatter
from tests.conftest import require
from tests.unit.cli.shell import Shell
from tests.unit.telemetry.exchanges import make_exchange

require(
    "google-cloud-logging",
    available=find_spec("google.cloud.logging") is not None
    and find_spec("google.cloud.trace_v1") is not None,
    why="pip install -c constraints.txt -e '.[dev]'",
)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import grpc
    from google.cloud.logging_v2.services.logging_service_v2 import LoggingServiceV2Client
    from google.cloud.logging_v2.services.logging_service_v2.transports import LoggingServiceV2GrpcTransport
    from google.cloud.logging_v2.types import (
        ListLogEntriesRequest,
        ListLogEntriesResponse,
        LogEntry,
        TailLogEntriesRequest,
        TailLogEntriesResponse,
    )
    from google.cloud.trace_v1 import GetTraceRequest, Trace, TraceServiceClient, TraceSpan
    from google.cloud.trace_v1.services.trace_service.transports import TraceServiceGrpcTransport


@contextmanager
def channel_to(service: str, methods: dict[str, Any], *, threads: int) -> Iterator[Any]:
    """A channel to a gRPC server on this machine whose `service` has these method handlers."""
    server = grpc.server(futures.ThreadPoolExecutor(threads))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    server.stop(0).wait()


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
    with channel_to(
        "google.devtools.cloudtrace.v1.TraceService", {"GetTrace": handler}, threads=1
    ) as channel:
        yield TraceServiceClient(transport=TraceServiceGrpcTransport(channel=channel))


def entry_of(exchange: Exchange, status: int) -> LogEntry:
    """A line of the gateway's as Cloud Logging keeps it: some names of its own move out of the payload."""
    line = json.loads(JsonAccessLogFormatter("proj")(exchange, status))
    line.pop("severity")
    told = {
        "logName": "projects/proj/logs/run.googleapis.com%2Fstdout",
        "timestamp": line.pop("time"),
        "trace": line.pop("logging.googleapis.com/trace"),
        "spanId": line.pop("logging.googleapis.com/spanId"),
        "traceSampled": line.pop("logging.googleapis.com/trace_sampled"),
        "httpRequest": line.pop("httpRequest"),
        "jsonPayload": line,
    }
    entry: LogEntry = LogEntry.from_json(json.dumps(told))
    return entry


class Logs:
    """The service's two ways to read. It keeps what it was asked; `answers` are what a session of tailing gets."""

    def __init__(self) -> None:
        self.entries: list[LogEntry] = []  # the newest first
        self.answers: list[list[TailLogEntriesResponse] | grpc.StatusCode] = []
        self.asked: list[ListLogEntriesRequest | TailLogEntriesRequest] = []

    def list(self, request: ListLogEntriesRequest, context: grpc.ServicerContext) -> ListLogEntriesResponse:
        self.asked.append(request)
        ids = re.findall(r'(?:request_id|trace)="((?:[^"\\]|\\.)*)"', request.filter)
        found = [e for e in self.entries if not ids or e.json_payload["request_id"] in ids or e.trace in ids]
        start = int(request.page_token or 0)  # a page holds two
        more = str(start + 2) if start + 2 < len(found) else ""
        return ListLogEntriesResponse(entries=found[start : start + 2], next_page_token=more)

    def tail(
        self, requests: Iterator[TailLogEntriesRequest], context: grpc.ServicerContext
    ) -> Iterator[TailLogEntriesResponse]:
        self.asked.append(next(requests))
        if not self.answers:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "roles/logging.viewer")
        answers = self.answers.pop(0)
        if isinstance(answers, grpc.StatusCode):
            context.abort(answers, "as the test wants it")
        else:
            yield from answers


@pytest.fixture
def logs() -> Logs:
    return Logs()


@pytest.fixture
def logging(logs):
    handlers = {
        "ListLogEntries": grpc.unary_unary_rpc_method_handler(
            logs.list,
            request_deserializer=ListLogEntriesRequest.deserialize,
            response_serializer=ListLogEntriesResponse.serialize,
        ),
        "TailLogEntries": grpc.stream_stream_rpc_method_handler(
            logs.tail,
            request_deserializer=TailLogEntriesRequest.deserialize,
            response_serializer=TailLogEntriesResponse.serialize,
        ),
    }
    with channel_to("google.logging.v2.LoggingServiceV2", handlers, threads=2) as channel:
        yield LoggingServiceV2Client(transport=LoggingServiceV2GrpcTransport(channel=channel))


def logged(request_id: str, status: int = 200, **fields: Any) -> LogEntry:
    exchange = make_exchange(request_id=request_id, status=status, generation=7, **fields)
    return entry_of(exchange, status)


@pytest.mark.parametrize("given", [TRACE_ID, "order-66"])
def test_by_the_trace_or_by_the_request(given, trace, logging, logs):
    traced = TraceContext(TRACE_ID, None, "b7ad6b7169203331", sampled=True)
    logs.entries = [logged("order-66", trace=traced)]
    spans = spans_from_cloud("proj", given, trace=trace, logging=logging)
    assert {span.name for span in spans} == {"POST /wine", "attempt 1"}
    (attempt,) = (span for span in spans if span.name == "attempt 1")
    assert (attempt.kind, attempt.parent_id) == ("client", f"{1:016x}")
    assert attempt.end_s == pytest.approx(0.9)


@pytest.mark.parametrize("by", ["request", "trace"])
def test_a_request_whose_trace_was_not_kept_is_told_from_its_line(by, trace, logging, logs):
    error = BrokenUpstreamResponse("The backend closed the connection before it answered.")
    entry = logged("order-67", 502, took_s=0.5, queued_s=0.1, rate_limit_s=0.05, error=error)
    logs.entries = [entry]
    given = "order-67" if by == "request" else entry.trace.rpartition("/")[2]
    root, *parts = spans_from_cloud("proj", given, trace=trace, logging=logging)
    assert (root.name, root.span_id, root.error) == ("POST /wine", entry.span_id, "upstream-broken")
    assert root.end_s == pytest.approx(0.5, abs=1e-5)
    told = {"status": 502, "model": "wine", "version": "1", "caller": "key-1", "generation": 7}
    assert told.items() <= root.attributes.items()
    assert root.attributes["detail"] == error.detail
    assert [part.name for part in parts] == ["limits", "queue", "backend", "receive"]
    assert [part.end_s - part.start_s for part in parts[:2]] == pytest.approx([0.05, 0.1], abs=1e-5)
    assert {part.parent_id for part in parts} == {root.span_id}
    assert parts[-1].end_s == pytest.approx(root.end_s, abs=1e-5)
    (asked,) = logs.asked
    assert asked.resource_names == ["projects/proj"]
    assert asked.filter.startswith("jsonPayload.generation>=0 AND (")


@pytest.mark.parametrize("given", ["f" * 32, "order-68", 'a"b', 'a" OR "" = "'])
def test_what_google_does_not_know(given, trace, logging, logs):
    logs.entries = [logged("order-66")]
    with pytest.raises(Failure, match="knows no request"):
        spans_from_cloud("proj", given, trace=trace, logging=logging)
    quoted = given.replace('"', '\\"')
    assert f'jsonPayload.request_id="{quoted}"' in logs.asked[0].filter


def test_tail_begins_with_the_last_and_goes_on_with_what_comes(
    shell: Shell, logging, logs, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("gateway.cli.observe.requests_in_google_cloud.open_cloud_logging", lambda: logging)
    logs.entries = [logged(f"old-{number}") for number in range(5)]
    first = TailLogEntriesResponse(entries=[logged("new-1"), logged("new-2", 503, attempts=2)])
    busy = TailLogEntriesResponse(suppression_info=[{"reason": 1, "suppressed_count": 12}])
    second = TailLogEntriesResponse(entries=[logged("new-3")])
    logs.answers = [
        [first, busy],
        grpc.StatusCode.OUT_OF_RANGE,
        [second],
    ]  # a session ends; another; and nothing
    ended = shell("tail", "--project", "proj", "--model", "wine", "--errors", "--last", "3", "--json")
    lines = [json.loads(line) for line in ended.out.splitlines() if line.startswith('{"')]
    assert [line["request_id"] for line in lines] == ["old-2", "old-1", "old-0", "new-1", "new-2", "new-3"]
    failed = lines[4]
    assert (failed["status"], failed["model"], failed["version"], failed["attempts"]) == (503, "wine", "1", 2)
    assert (failed["duration_ms"], failed["caller"]) == (pytest.approx(100, abs=0.01), "key-1")
    assert 0 < failed["backend_ms"] < failed["duration_ms"]
    assert "12 lines are not shown: rate_limit" in ended.err
    assert {asked.filter for asked in logs.asked} == {
        'jsonPayload.generation>=0 AND jsonPayload.model="wine" AND httpRequest.status>=400'
    }
    assert len(logs.asked) == 2 + 4  # two pages; three sessions; the one that is refused
    assert ended.code == 69
    assert "roles/logging.viewer" in ended.out + ended.err


def test_tail_for_people_ends_after_the_last(shell: Shell, logging, logs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gateway.cli.observe.requests_in_google_cloud.open_cloud_logging", lambda: logging)
    logs.entries = [logged("good"), logged("bad", 502, error=BrokenUpstreamResponse("It broke off."))]
    out = shell.ok("tail", "--project", "proj", "--no-follow").out
    bad, good = out.splitlines()
    assert "502 POST wine@1" in bad
    assert bad.endswith("upstream-broken  bad")
    assert good.endswith("good")
    assert shell.ok("tail", "--project", "proj", "--no-follow", "--last", "0").out == ""
