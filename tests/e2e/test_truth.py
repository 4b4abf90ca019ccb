# Long: one request, followed through every log and trace.
"""One request through real processes: two workers, the Python backend, a collector; its ids are the same everywhere."""

import asyncio
import json
import re
import signal
from importlib.util import find_spec

import aiohttp
import pytest

from tests.conftest import require
from tests.e2e.test_under_load import System, system
from tests.patience import patience

__all__ = ["system"]

pytestmark = pytest.mark.timeout(240)
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
REQUESTS = 40


async def test_ids_match_from_the_caller_to_the_backends_log_and_the_collector(system: System):
    require(
        "opentelemetry", available=find_spec("opentelemetry.sdk") is not None, why="pip install -e '.[dev]'"
    )
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    from tests.unit.telemetry.test_trace_sinks import Collector

    collector = Collector()
    system.environ |= {
        "CHIPS_SERVER__WORKERS": "2",
        "CHIPS_TRACE__STORE": str(system.folder / "requests.db"),
        "CHIPS_TRACE__EXPORTER": "otlp",
        "CHIPS_TRACE__OTLP_ENDPOINT": collector.url,
        "CHIPS_TRACE__RATIO": "0",
        "CHIPS_TRACE__RECENT_PER_S": "0",
    }
    key = await asyncio.to_thread(system.set_up)
    chips = ("-m", "gateway.cli")
    operator = await asyncio.to_thread(
        system.run, *chips, "keys", "create", "operator", "--verbs", "score", "--verbs", "operate"
    )
    base = f"http://127.0.0.1:{system.port}"
    sample = json.loads((system.folder / "training/samples.json").read_text())[0]

    request_id = ""
    async with aiohttp.ClientSession() as session:
        for number in range(REQUESTS):  # a connection each, so that both workers get some
            fields = {"X-Api-Key": key, "Connection": "close"}
            if number == 0:
                fields["traceparent"] = CALLER  # from this machine, which is trusted
            async with session.post(f"{base}/wine", json=sample["request"], headers=fields) as answer:
                assert answer.status == 200, await answer.text()
                if number == 0:
                    assert answer.headers["X-Trace-Id"] == TRACE_ID
                    request_id = answer.headers["X-Request-Id"]

        credentials = {"Authorization": f"Bearer {operator.strip()}"}
        text, all_of_them = "", f'chips_requests_total{{model="wine",version="1",status="200"}} {REQUESTS}\n'
        async with asyncio.timeout(patience(60)):  # a worker tells the others once a second
            while all_of_them not in text or "chips_workers 2\n" not in text:
                async with session.get(f"{base}/-/metrics", headers=credentials) as answer:
                    assert answer.status == 200
                    text = await answer.text()

    told = ""
    async with asyncio.timeout(patience(60)):
        while not told:
            try:
                told = await asyncio.to_thread(system.run, *chips, "why", request_id, "--json")
            except AssertionError:
                await asyncio.sleep(0.2)  # not in the store yet
    (story,) = json.loads(told)
    request = story["request"]
    (attempt,) = request["attempts"]
    assert (request["trace_id"], request["parent_id"]) == (TRACE_ID, "00f067aa0ba902b7")
    assert {"backend queue", "backend parse", "backend predict", "backend render"} <= {
        span["name"] for span in story["spans"]
    }

    system.gateway.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(system.gateway.wait, patience(20)) == 0
    spans = {
        span.span_id.hex(): span
        for path, body in collector.posts
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
        if path == "/v1/traces"
    }
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE_ID}  # the only one that was asked for
    assert spans[attempt["span_id"]].parent_span_id.hex() == request["span_id"]
    assert spans[request["span_id"]].parent_span_id.hex() == "00f067aa0ba902b7"
    assert len(spans) == len(story["spans"])

    system.backend.send_signal(signal.SIGTERM)
    await asyncio.to_thread(system.backend.wait, patience(20))
    lines = [
        json.loads(line)
        for line in (system.folder / "chips_backend.log").read_text().splitlines()
        if TRACE_ID in line
    ]
    assert len(lines) == 1
    assert re.search(TRACE_ID, lines[0]["logging.googleapis.com/trace"])
    assert lines[0]["logging.googleapis.com/spanId"] == attempt["span_id"]
    assert lines[0]["request_id"] == request_id
    collector.shutdown()
    collector.server_close()
