"""Trace context: what the backend is told, and whose wish to keep a trace counts."""

import asyncio
import re
import socket
import time
from importlib.util import find_spec
from typing import Any

import pytest

from gateway.core.model import Backend, Model, Policy
from tests.conftest import require
from tests.console.stage import Stage, staged
from tests.flow.scene import Scene
from tests.flow.scripted import Message, Peer, Script, ScriptedBackend
from tests.patience import patience

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def parts(message, name="traceparent"):
    return (message.get(name) or "").split("-")


async def test_each_request_is_a_span_of_its_own_to_the_backend(scene: Scene):
    backend = await scene.model()
    for _ in range(2):
        await scene.call(fields=[("traceparent", CALLER)])
    first, second = (parts(seen) for seen in backend.seen)
    assert first[1] == second[1] == CALLER.split("-")[1]
    assert first[2] != second[2]
    assert all(re.fullmatch("[0-9a-f]{16}", span) for span in (first[2], second[2]))


async def test_a_trace_that_is_not_kept_says_so_to_the_backend():
    async with Scene(**{"trace.ratio": "0"}) as scene:
        backend = await scene.model()
        await scene.call()
        assert parts(backend.seen[0])[3] == "00"


async def test_the_wish_of_a_stranger_is_not_granted():
    async with Scene(**{"trace.ratio": "0", "trace.trusted_networks": "192.0.2.0/24"}) as scene:
        backend = await scene.model()
        await scene.call(fields=[("traceparent", CALLER)])
        assert parts(backend.seen[0])[3] == "00"


async def test_a_model_has_a_share_of_its_own():
    async with Scene(**{"trace.ratio": "0"}) as scene:
        backend = await scene.model(policy=Policy(trace_ratio=1.0))
        await scene.call()
        assert parts(backend.seen[0])[3] == "01"


async def test_tracestate_goes_with_the_trace_it_belongs_to(scene: Scene):
    backend = await scene.model()
    await scene.call(fields=[("traceparent", CALLER), ("tracestate", "a=1"), ("tracestate", "b=2")])
    await scene.call(fields=[("traceparent", "00-nonsense"), ("tracestate", "a=1")])
    await scene.call(fields=[("tracestate", "a=1")])
    assert [seen.get("tracestate") for seen in backend.seen] == ["a=1, b=2", None, None]


# -- what is kept of them


@pytest.fixture
async def stage(tmp_path):
    async with staged(tmp_path) as stage:
        yield stage


async def put(stage: Stage, name: str, script: Script, **policy: Any) -> ScriptedBackend:
    backend = await stage.backend(script)
    await stage.put(
        Model(
            name=name,
            backends=(Backend(version="1", url=backend.url),),
            traffic={"1": 100},
            policy=Policy(**policy),
        ),
        "test",
    )
    return backend


@pytest.mark.path("fast")
async def test_a_retry_is_a_sibling_with_a_span_of_its_own(stage: Stage):
    async def once_then_close(request: Message, peer: Peer) -> None:
        if len(backend.seen) == 2:
            peer.abort()  # the pooled connection is closed as the second request comes
        else:
            await peer.answer(200, b"ok")

    backend = await put(stage, "retried", once_then_close, pure=True)
    assert (await stage.call("POST", "/retried")).status == 200
    again = await stage.call("POST", "/retried", fields=[("traceparent", CALLER)])
    assert again.status == 200
    kept = await stage.kept(again.get("X-Request-Id"))
    _, first, second = ((seen.get("traceparent") or "").split("-") for seen in backend.seen)
    assert first[1] == second[1] == CALLER.split("-")[1] == again.get("X-Trace-Id")
    assert [attempt["span_id"] for attempt in kept["attempts"]] == [first[2], second[2]]
    attempts = [span for span in kept["spans"] if span["name"].startswith("attempt")]
    assert [span["parent_id"] for span in attempts] == [kept["span_id"]] * 2
    assert attempts[0]["error"] == "upstream-broken"
    assert kept["parent_id"] == CALLER.split("-")[2]


@pytest.mark.path("fast")
async def test_the_fast_path_tells_when_it_connected_sent_and_got_an_answer(stage: Stage):
    await stage.call("POST", "/wine?first")
    answer = await stage.call("POST", "/demand-north")
    kept = await stage.kept(answer.get("X-Request-Id"))
    stages = {
        "route",
        "authenticate",
        "limits",
        "body",
        "queue",
    }  # each is told where it took 0.2 ms, on a busy machine
    names = [span["name"] for span in kept["spans"] if span["name"] not in stages]
    assert names[:5] == ["POST /demand-north", "attempt 1", "connect", "send", "wait"]
    assert names[-1] == "receive"
    reused = await stage.call("POST", "/demand-north")
    kept = await stage.kept(reused.get("X-Request-Id"))
    assert kept["attempts"][0]["reused"] is True
    assert "connect" not in [span["name"] for span in kept["spans"]]


async def test_a_stream_is_one_request_from_its_first_to_its_last_byte(stage: Stage):
    last = asyncio.Event()

    async def stream(request: Message, peer: Peer) -> None:
        await peer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await last.wait()
        await peer.write(b"4\r\nlast\r\n0\r\n\r\n")

    await put(stage, "streamed", stream)
    caller = await stage.caller()
    await caller.send(stage.request("POST", "/streamed"))
    head = await caller.reader.readuntil(b"first")
    request_id = re.search(rb"X-Request-Id: (\S+)", head, re.IGNORECASE)
    assert request_id is not None
    assert (
        await stage.call("GET", f"/-/requests/{request_id[1].decode()}", key=stage.operator)
    ).status == 404
    last.set()
    await caller.reader.readuntil(b"last")
    kept = await stage.kept(request_id[1].decode())
    assert (kept["status"], kept["bytes_out"]) == (200, 9)


async def test_a_caller_who_leaves_is_kept_as_one_who_left(stage: Stage):
    asked = asyncio.Event()

    async def never(request: Message, peer: Peer) -> None:
        asked.set()
        await peer.reader.read()
        backend.lost.set()

    backend = await put(stage, "patient", never)
    caller = await stage.caller()
    await caller.send(stage.request("POST", "/patient", fields=[("X-Request-Id", "gone")]))
    await asked.wait()
    caller.leave()
    await backend.lost.wait()
    kept = await stage.kept("gone")
    assert (kept["status"], kept["kept"], kept["side"]) == (499, "left", "caller")


async def test_a_wait_for_limits_that_are_counted_elsewhere_is_not_the_queue(tmp_path):
    """A Redis that takes connections and says nothing: the request waits for as long as it may, and goes on."""
    redis = socket.create_server(("127.0.0.1", 0))
    flags = {
        "limits.redis_url": f"redis://127.0.0.1:{redis.getsockname()[1]}",
        "limits.redis_timeout_s": "0.05",
        "limits.when_redis_is_unavailable": "admit",
    }
    with redis:
        async with staged(tmp_path, **flags) as stage:
            key = await stage.make_key("*", requests_per_day=10)
            answer = await stage.call("POST", "/demand-north", key=key)
            assert answer.status == 200
            kept = await stage.kept(answer.get("X-Request-Id"))
    assert (kept["rate_limit_s"] > 0.04, kept["queued_s"]) == (True, 0)
    (waited,) = (span for span in kept["spans"] if span["name"] in {"limits", "queue"})
    assert (waited["name"], waited["parent_id"]) == ("limits", kept["span_id"])
    assert waited["end_s"] - waited["start_s"] == pytest.approx(kept["rate_limit_s"])


class Collector:
    """An OTLP collector of little use."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer = answer
        self.asked = asyncio.Event()
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Collector":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.add(asyncio.create_task(self._answer_one(reader, writer)))

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.asked.set()
            if self._answer is not None:
                writer.write(self._answer)
                await writer.drain()
            else:
                await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.mark.parametrize(
    "answer",
    [None, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", b"what?", b""],
    ids=["hangs", "refuses", "nonsense", "closes"],
)
async def test_an_exporter_that_does_not_take_them_changes_no_request(tmp_path, answer):
    require(
        "opentelemetry", available=find_spec("opentelemetry.sdk") is not None, why="pip install -e '.[dev]'"
    )
    async with Collector(answer) as collector:
        flags = {"trace.exporter": "otlp", "trace.otlp_endpoint": collector.url, "trace.ratio": "1"}
        async with staged(tmp_path, **flags) as stage:
            for _ in range(20):
                assert (await stage.call("POST", "/demand-north")).status == 200
            await asyncio.wait_for(collector.asked.wait(), patience(30))
            last = await stage.call("POST", "/demand-north")
            await stage.kept(last.get("X-Request-Id"))  # so nothing of the store's is left for the stop
            began = time.monotonic()
            await stage.gateway.stop()
            assert time.monotonic() - began < patience(10)  # Cloud Run allows no more
            dropped = stage.gateway.telemetry.metrics.live_state().counters["chips_traces_dropped_total"]
            assert dropped["store"] == 0
            assert dropped["otlp"] == 21


@pytest.mark.parametrize("target", ["/wine", "/nobody", "/-/ready", "/wine/../x"])
async def test_every_answer_can_be_found_again(stage: Stage, target: str):
    answer = await stage.call("POST" if target == "/wine" else "GET", target)
    assert answer.get("X-Request-Id")
    assert re.fullmatch("[0-9a-f]{32}", answer.get("X-Trace-Id") or "")
    assert "gateway;dur=" in (answer.get("Server-Timing") or "")
    if target == "/wine":
        assert (answer.get("X-Chips-Model") or "").startswith("wine@")
        assert "predict;dur=" in (answer.get("Server-Timing") or "")
