"""Traces through a gateway to real backends, in all languages alike: ids, parents, phases; errors, retries, streams, aborts."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from gateway.core.model import Backend as Registered
from gateway.core.model import Policy
from gateway.telemetry.recorded_request import RecordedRequest
from gateway.telemetry.recorded_request_store import RequestAndTickReader
from gateway.telemetry.spans_of_request import Span, spans_of
from tests.contract.backends.languages import JULIA_LINEAR, Julia, run_r
from tests.contract.backends.linear import publish
from tests.contract.backends.process import JULIA_PREDICT, PYTHON, ROOT, Backend, R
from tests.flow.scene import Scene
from tests.flow.scripted import Message, read_message
from tests.patience import patience

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # a Julia compiles its program at each start

LANGUAGES = ("python", "r", "julia")
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLERS_SPAN = "00f067aa0ba902b7"
TRACEPARENT = ("traceparent", f"00-{TRACE_ID}-{CALLERS_SPAN}-01")
GOOD = b'{"instances": [{"x": 1.5, "n": 2, "k": 3}]}'
PHASES = ["queue", "parse", "predict", "render"]
AT_TIMES = {"route", "authenticate", "body", "cold start"}
TREE = [
    ("caller", "POST /linear"),
    ("POST /linear", "attempt 1"),
    ("attempt 1", "connect"),
    ("attempt 1", "send"),
    ("attempt 1", "wait"),
    *(("wait", f"backend {phase}") for phase in PHASES),
    ("attempt 1", "receive"),
]


@pytest.fixture(scope="module", params=LANGUAGES)
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    folder = tmp_path_factory.mktemp("traced")
    environ: dict[str, str] = {}
    command: Sequence[str] = JULIA_PREDICT
    if request.param == "python":
        command, source = PYTHON, failing_python(folder / "model.py")
    elif request.param == "r":
        request.getfixturevalue("has_r")
        command, source = R, failing_rds(folder / "model.rds")
    else:
        source = request.getfixturevalue("linear_jls")  # it fails where a parameter says so
        julia: Julia = request.getfixturevalue("julia")
        environ = {**julia.environ, "PREDICT": JULIA_LINEAR}
    publish(str(folder / "store"), source)
    artifact = str(folder / "store/linear/1")
    started = Backend(
        command,
        {"CHIPS_MODEL": "linear", "CHIPS_VERSION": "1", "CHIPS_ARTIFACT": artifact, **environ},
    )
    try:
        yield started.ready()
    finally:
        started.kill()


def failing_python(path: Path) -> Path:
    """2x + 3n + k, which is out of memory where x is very large: an error that is never the caller's."""
    path.write_text(
        "def load(folder):\n    return None\n"
        "def predict(model, rows, parameters):\n"
        "    if any(row[0] > 1e308 for row in rows):\n        raise MemoryError\n"
        "    return [2 * x + 3 * n + k for x, n, k in rows]\n"
    )
    return path


def failing_rds(path: Path) -> Path:
    """The same, which ends its process where x is very large: a stop() alone would be blamed on the row."""
    run_r(
        "grid <- expand.grid(x = c(-2, 0, 5), n = c(-1L, 0L, 4L), k = c(0, 2, 9));"
        "grid$y <- 2 * grid$x + 3 * grid$n + grid$k;"
        "formula <- stats::as.formula("
        "'y ~ I(if (any(x > 1e308)) quit(save = \"no\") else x) + n + k', globalenv());"
        "model <- stats::lm(formula, grid);"
        "model$coefficients[] <- c(0, 2, 3, 1);"
        f"saveRDS(model, '{path}')"
    )
    return path


class Traced:
    """A gateway that keeps what it is asked to keep, with one model behind it."""

    def __init__(self, scene: Scene, store: Path) -> None:
        self.scene = scene
        self.store = store

    async def serve(self, url: str) -> None:
        await self.scene.model(
            "linear", backends=(Registered(version="1", url=url),), policy=Policy(pure=True)
        )

    async def call(self, request_id: str, body: bytes = GOOD, *fields: tuple[str, str]) -> Message:
        given = [TRACEPARENT, ("Content-Type", "application/json"), ("X-Request-Id", request_id)]
        return await self.scene.call(target="/linear", body=body, fields=[*given, *fields])

    async def kept(self, request_id: str) -> RecordedRequest:
        async with asyncio.timeout(patience(60)):
            while not (found := RequestAndTickReader(self.store).find(request_id)):
                await asyncio.sleep(0.02)
        (summary,) = found
        return summary

    async def sent(self) -> None:
        """Wait until a request is at the backend."""
        async with asyncio.timeout(patience(60)):
            pools = self.scene.gateway.upstream.pools  # type: ignore[attr-defined]
            while not any(connection.uses for pool in pools.values() for connection in pool.busy):
                await asyncio.sleep(0.01)


@pytest.fixture
async def traced(tmp_path: Path) -> AsyncIterator[Traced]:
    store = tmp_path / "requests.db"
    flags = {"trace.store": str(store), "trace.ratio": "0", "trace.recent_per_s": "0"}
    async with Scene(**flags) as scene:
        yield Traced(scene, store)


def tree(spans: list[Span]) -> list[tuple[str, str]]:
    """Who is whose child, without what a request waits for only at times: the first for its key, a Julia to compile."""
    names = {span.span_id: span.name for span in spans}
    assert len(names) == len(spans)
    return [
        (names.get(span.parent_id or "", "caller"), span.name) for span in spans if span.name not in AT_TIMES
    ]


async def line_of(backend: Backend, request_id: str) -> dict[str, Any]:
    """The one line of the backend's log that sums a request up; what else it wrote about it has the same ids."""

    def sums_up(entry: dict[str, Any]) -> bool:
        return entry.get("request_id") == request_id and "httpRequest" in entry

    await asyncio.to_thread(backend.wait_for, sums_up)
    (line,) = filter(sums_up, backend.log)
    name = "logging.googleapis.com/spanId"
    spans = {entry.get(name) for entry in backend.log if entry.get("request_id") == request_id}
    assert spans == {line[name]}
    return line


@contextmanager
def stopped(backend: Backend) -> Iterator[None]:
    """As long as this lasts, the system still takes connections for it, but it does nothing."""
    os.killpg(backend.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(backend.pid, signal.SIGCONT)


async def test_one_waterfall_from_the_caller_to_the_models_phases(backend: Backend, traced: Traced):
    await traced.serve(backend.url)
    answer = await traced.call("good", GOOD, ("tracestate", "a=1,b=2"))
    assert answer.status == 200
    assert answer.json()["predictions"] == [12.0]
    assert (answer.get("X-Request-Id"), answer.get("X-Trace-Id")) == ("good", TRACE_ID)
    assert answer.get("X-Chips-Model") == "linear@1"
    for phase in ("gateway", *PHASES):
        assert f"{phase};dur=" in (answer.get("Server-Timing") or "")

    kept = await traced.kept("good")
    (attempt,) = kept.attempts
    assert (kept.trace_id, kept.parent_id, kept.kept) == (TRACE_ID, CALLERS_SPAN, "caller")
    assert (kept.model, kept.version, kept.url) == ("linear", "1", backend.url)
    spans = spans_of(kept)
    assert tree(spans) == TREE
    by_name = {span.name: span for span in spans}
    assert by_name["attempt 1"].span_id == attempt.span_id
    told = {name: float(ms) for name, ms in re.findall(r"(\w+);dur=([\d.]+)", kept.server_timing)}
    for phase in PHASES:  # as long as the backend says, as far as they fit into the wait
        span, wait = by_name[f"backend {phase}"], by_name["wait"]
        assert wait.start_s <= span.start_s <= span.end_s <= wait.end_s
        assert span.end_s - span.start_s <= told[phase] / 1000 + 1e-9
    assert sum(told.values()) > 0

    line = await line_of(backend, "good")
    assert re.search(TRACE_ID, line["logging.googleapis.com/trace"])
    assert line["logging.googleapis.com/spanId"] == attempt.span_id
    assert line["logging.googleapis.com/trace_sampled"] is True
    own = next(entry for entry in traced.scene.log_lines() if entry.get("request_id") == "good")
    assert own["logging.googleapis.com/trace"] == TRACE_ID
    assert own["logging.googleapis.com/spanId"] == kept.span_id


REFUSED: Mapping[str, tuple[bytes, int, str]] = {
    "unprocessable": (b'{"instances": [{"x": "high", "n": 2, "k": 3}]}', 422, "answered-4xx"),
    "malformed": (b'{"instances": [', 400, "answered-4xx"),
    "failed": (
        b'{"instances": [{"x": 1.7e308, "n": 0, "k": 0}], "parameters": {"fail": true}}',
        500,
        "answered-5xx",
    ),
}


def backend_knows(backend: Backend) -> bytes:
    """The metadata, with the request parameters that the model accepts."""
    return requests.get(f"{backend.url}/v2/models/linear", timeout=patience(60)).content


@pytest.mark.parametrize("case", REFUSED)
async def test_an_error_of_the_backends_own(backend: Backend, traced: Traced, case: str):
    body, status, code = REFUSED[case]
    if case == "failed" and b'"fail"' not in backend_knows(backend):
        body = body.replace(b', "parameters": {"fail": true}', b"")
    await traced.serve(backend.url)
    answer = await traced.call(case, body)
    assert answer.status == status, answer.body
    assert answer.get("chips-error") is None
    assert answer.json()["request_id"] == case
    kept = await traced.kept(case)
    assert (kept.status, kept.error) == (status, code)
    assert kept.side == ("backend" if status >= 500 else "caller")
    assert kept.kept == ("failed" if status >= 500 else "caller")
    spans = spans_of(kept)
    assert tree(spans)[:5] == TREE[:5]
    attempt = next(span for span in spans if span.kind == "client")
    assert attempt.error == ("status 500" if status >= 500 else "")
    line = await line_of(backend, case)
    assert line["logging.googleapis.com/spanId"] == attempt.span_id
    assert line["httpRequest"]["status"] == status


async def test_a_stream_both_ways(backend: Backend, traced: Traced):
    """A body in pieces whose length nobody knows, and an answer that is longer than one read."""
    rows = 20_000
    await traced.serve(backend.url)
    caller = await traced.scene.caller()
    head = traced.scene.request(
        target="/linear",
        body=None,
        fields=[
            TRACEPARENT,
            ("Content-Type", "application/json"),
            ("X-Request-Id", "stream"),
            ("Transfer-Encoding", "chunked"),
        ],
    )
    assert head.endswith(b"\r\n\r\n")
    await caller.send(head)
    body = json.dumps({"instances": [[1.5, 2, 3]] * rows}).encode()
    for start in range(0, len(body), 64 * 1024):
        piece = body[start : start + 64 * 1024]
        await caller.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        if not start:
            await traced.sent()
    await caller.send(b"0\r\n\r\n")
    answer = await caller.answer()
    assert answer.status == 200, answer.body[:500]
    assert answer.json()["predictions"] == [12.0] * rows
    kept = await traced.kept("stream")
    assert (kept.bytes_in, kept.bytes_out) == (len(body), len(answer.body))
    assert tree(spans_of(kept)) == TREE
    line = await line_of(backend, "stream")
    assert line["logging.googleapis.com/spanId"] == kept.attempts[0].span_id


class KeepingAlive:
    """Between gateway and backend: it keeps each connection open, and breaks the first as its second request comes."""

    def __init__(self, backend: Backend) -> None:
        self._port = int(backend.url.rpartition(":")[2])
        self._connections = 0

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        first, requests = self._connections == 1, 0
        try:
            while True:
                request = await read_message(reader, request=True)
                requests += 1
                if first and requests == 2:
                    writer.transport.abort()
                    return
                writer.write(client(await self._pass_on(request), without="connection"))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the gateway has closed it
        finally:
            writer.close()

    async def _pass_on(self, request: Message) -> Message:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(client(request))
            return await read_message(reader, request=False)
        finally:
            writer.close()


def client(message: Message, *, without: str = "") -> bytes:
    fields = [f"{name}: {value}\r\n" for name, value in message.fields if name.lower() != without]
    return "".join([message.first, "\r\n", *fields, "\r\n"]).encode("latin-1") + message.body


async def test_a_retry_is_a_sibling_and_the_backend_knows_of_one_alone(backend: Backend, traced: Traced):
    async with KeepingAlive(backend) as url:
        await traced.serve(url)
        assert (await traced.call("before")).status == 200
        assert (await traced.call("again")).status == 200
        kept = await traced.kept("again")
        spans = spans_of(kept)
        attempts = [span for span in spans if span.kind == "client"]
        assert [(span.name, span.error) for span in attempts] == [
            ("attempt 1", "upstream-broken"),
            ("attempt 2", ""),
        ]
        assert {span.parent_id for span in attempts} == {kept.span_id}
        assert [attempt.reused for attempt in kept.attempts] == [True, False]
        parents = {child: parent for parent, child in tree(spans) if child.startswith("backend ")}
        assert parents == {f"backend {phase}": "wait" for phase in PHASES}
        wait = next(span for span in spans if span.name == "backend predict").parent_id
        assert next(span for span in spans if span.span_id == wait).parent_id == attempts[1].span_id
        line = await line_of(backend, "again")
        assert line["logging.googleapis.com/spanId"] == attempts[1].span_id


async def test_a_backend_that_hangs_fails_in_the_wait(backend: Backend, traced: Traced):
    await traced.serve(backend.url)
    assert (await traced.call("warm")).status == 200
    with stopped(backend):
        answer = await traced.call("hung", GOOD, ("X-Request-Timeout", str(int(patience(400)))))
        assert (answer.status, answer.get("chips-error")) == (504, "deadline-exceeded")
    kept = await traced.kept("hung")
    assert (kept.kept, kept.side, kept.error) == ("failed", "backend", "deadline-exceeded")
    spans = spans_of(kept)
    assert [span.name for span in spans][-1] == "wait"
    assert next(span for span in spans if span.kind == "client").error == "deadline-exceeded"
    assert (await traced.call("after")).status == 200


async def test_a_caller_who_leaves(backend: Backend, traced: Traced):
    await traced.serve(backend.url)
    with stopped(backend):
        caller = await traced.scene.caller()
        fields = [TRACEPARENT, ("Content-Type", "application/json"), ("X-Request-Id", "gone")]
        await caller.send(traced.scene.request(target="/linear", body=GOOD, fields=fields))
        await traced.sent()
        caller.leave()
        kept = await traced.kept("gone")
    assert (kept.status, kept.kept, kept.side) == (499, "left", "caller")
    (attempt,) = kept.attempts
    assert attempt.sent is not None
    assert (attempt.answered, attempt.status) == (None, None)
    assert (kept.trace_id, kept.parent_id) == (TRACE_ID, CALLERS_SPAN)
    assert (await traced.call("next")).status == 200  # whatever it made of that
    line = await line_of(backend, "next")
    assert line["logging.googleapis.com/spanId"] == (await traced.kept("next")).attempts[0].span_id


async def test_chips_why_tells_of_it_as_of_any_other_language(backend: Backend, traced: Traced):
    await traced.serve(backend.url)
    assert (await traced.call("why")).status == 200
    await traced.kept("why")
    run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run
    done = await asyncio.to_thread(
        run,
        [sys.executable, "-m", "gateway.cli", "why", "why", "--store", str(traced.store)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done
    facts, _, waterfall = done.stdout.partition("\n\n")
    assert re.search(rf"^answered +linear@1 at {re.escape(backend.url)}", facts, re.MULTILINE)
    drawn = [re.split(r" {2,}|█", line.strip())[0] for line in waterfall.splitlines() if "█" in line]
    assert [name for name in drawn if name not in AT_TIMES] == [name for _, name in TREE]
