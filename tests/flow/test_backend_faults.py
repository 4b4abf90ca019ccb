"""Backends that fail: what the caller gets, and that the gateway recovers."""

import asyncio

import pytest
from aiohttp import web

from gateway.core.model import Policy
from tests.flow.scene import Scene, assert_problem
from tests.flow.scripted import Message, Peer
from tests.patience import patience


async def test_a_backend_that_is_down(scene: Scene):
    backend = await scene.model()
    await backend.go_away()
    assert_problem(await scene.call(), 502, "upstream-unreachable")
    await backend.start()
    await scene.still_good(backend)


@pytest.mark.parametrize("body", [b"", b"x" * 1000, b"x" * 500_000])
async def test_a_backend_that_closes_without_an_answer(scene: Scene, body: bytes):
    async def script(request: Message, peer: Peer) -> None:
        peer.close()

    backend = await scene.model(script=script)
    assert_problem(await scene.call(body=body), 502, "upstream-broken")
    await scene.still_good(backend)


HALF_ANSWERS = {
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this",
    "half a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\nonly this",
    "no last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n",
}


@pytest.mark.parametrize("half", HALF_ANSWERS)
async def test_half_an_answer_never_looks_complete(scene: Scene, half: str):
    async def script(request: Message, peer: Peer) -> None:
        await peer.write(HALF_ANSWERS[half])
        peer.close()

    backend = await scene.model(script=script)
    caller = await scene.caller()
    await caller.send(scene.request())
    try:
        answer = await caller.answer()
    except asyncio.IncompleteReadError:
        answer = None  # cut before the head was out: that is not complete either
    if answer is not None and answer.status == 200:
        assert not answer.complete
    elif answer is not None:
        assert_problem(answer, 502, "upstream-broken")
    await caller.ended()
    await scene.still_good(backend)


BROKEN_HEADS = {
    "not HTTP": b"hello\r\n\r\n",
    "a length that is none": b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a field that never ends": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
}


@pytest.mark.parametrize("head", BROKEN_HEADS)
async def test_an_answer_that_is_not_http(scene: Scene, head: str):
    async def script(request: Message, peer: Peer) -> None:
        await peer.write(BROKEN_HEADS[head])

    backend = await scene.model(script=script)
    assert_problem(await scene.call(), 502, "upstream-broken")
    await scene.still_good(backend)


@pytest.mark.parametrize(
    "unasked",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nev",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\n\r\n",
        b"hello",
    ],
)
async def test_an_answer_that_nobody_asked_for_is_nobodys(scene: Scene, unasked: bytes):
    peers: list[Peer] = []

    async def script(request: Message, peer: Peer) -> None:
        peers.append(peer)
        await peer.answer(200, request.body)

    backend = await scene.model(script=script)
    assert (await scene.call(body=b"first")).body == b"first"
    await peers[0].write(unasked)
    await scene.call("GET", "/-/health")  # so the gateway has read what came before
    answer = await scene.call(body=b"second")
    assert (answer.status, answer.body) == (200, b"second")
    assert backend.connections == 2
    assert (await scene.call(body=b"third")).body == b"third"
    assert backend.connections == 2  # what is clean is used again


async def test_a_backend_slower_than_the_models_timeout(scene: Scene):
    async def script(request: Message, peer: Peer) -> None:
        asked.set()
        await peer.reader.read()  # until the gateway gives up on us
        backend.lost.set()

    asked = asyncio.Event()
    backend = await scene.model(script=script, policy=Policy(timeout_s=patience(0.2)))
    while not asked.is_set():  # where the machine stands still, the time is over before the backend is asked
        assert_problem(await scene.call(), 504, "upstream-timeout")
    await backend.lost.wait()
    await scene.still_good(backend)


async def test_a_deadline_that_the_caller_set(scene: Scene):
    allowed_ms = int(patience(200))

    async def script(request: Message, peer: Peer) -> None:
        left_ms.append(int(request.get("X-Request-Timeout") or "0"))
        await peer.reader.read()
        backend.lost.set()

    left_ms: list[int] = []
    backend = await scene.model(script=script)
    while not left_ms:
        answer = await scene.call(fields=[("X-Request-Timeout", str(allowed_ms))])
        assert_problem(answer, 504, "deadline-exceeded")
    await backend.lost.wait()
    assert 0 < left_ms[0] <= allowed_ms


async def test_a_timeout_in_the_middle_of_an_answer_cuts_it(scene: Scene):
    async def script(request: Message, peer: Peer) -> None:
        await peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome")
        await peer.reader.read()
        backend.lost.set()

    backend = await scene.model(script=script, policy=Policy(timeout_s=patience(0.3)))
    while (answer := await scene.call()).status == 504:
        assert_problem(answer, 504, "upstream-timeout")
    assert answer.status == 200
    assert not answer.complete
    await backend.lost.wait()


async def test_a_caller_who_leaves_takes_the_backends_work_along(scene: Scene):
    async def script(request: Message, peer: Peer) -> None:
        started.set()
        await peer.reader.read()
        backend.lost.set()

    started = asyncio.Event()
    backend = await scene.model(script=script)
    caller = await scene.caller()
    await caller.send(scene.request())
    await started.wait()
    caller.leave()
    await backend.lost.wait()
    await scene.still_good(backend)
    lines = scene.log_lines()
    assert [line["httpRequest"]["status"] for line in lines] == [499, 200]


async def test_a_full_model_queues_a_little_and_then_says_so():
    async with Scene(**{"limits.queue": "1", "limits.queue_wait_s": "30"}) as scene:
        release = asyncio.Event()
        started = asyncio.Event()

        async def script(request: Message, peer: Peer) -> None:
            started.set()
            await release.wait()
            await peer.answer()

        await scene.model(script=script, policy=Policy(max_in_flight=1))
        first = asyncio.create_task(scene.call())
        await started.wait()
        started.clear()
        second = asyncio.create_task(scene.call())
        while not scene.gateway.concurrency_limit.waiting("wine"):
            await asyncio.sleep(0)
        third = await scene.call()
        assert_problem(third, 503, "overloaded")
        assert third.get("Retry-After") == "1"
        release.set()
        assert (await first).status == 200
        assert (await second).status == 200


async def test_who_waits_too_long_is_told_so():
    async with Scene(**{"limits.queue_wait_s": "0.05"}) as scene:
        release = asyncio.Event()
        started = asyncio.Event()

        async def script(request: Message, peer: Peer) -> None:
            started.set()
            await release.wait()
            await peer.answer()

        await scene.model(script=script, policy=Policy(max_in_flight=1))
        first = asyncio.create_task(scene.call())
        await started.wait()
        assert_problem(await scene.call(), 503, "overloaded")
        assert_problem(await scene.call(fields=[("X-Request-Timeout", "10")]), 504, "deadline-exceeded")
        release.set()
        assert (await first).status == 200
        assert (await scene.call()).status == 200


async def test_a_backend_that_answers_before_it_has_read_the_body(scene: Scene):
    async def script(request: Message, peer: Peer) -> None:
        pass

    backend = await scene.model(script=script)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        await writer.drain()
        await reader.read()
        writer.close()

    await backend.go_away()
    server = await asyncio.start_server(serve, "127.0.0.1", backend.port)
    try:
        answer = await scene.call(body=b"x" * 2_000_000)
        assert (answer.status, answer.body) == (413, b"no")
    finally:
        server.close()


@pytest.mark.path("plain")
@pytest.mark.parametrize("step", ["prepare", "write", "write_eof"])
async def test_a_caller_whose_connection_closes_under_the_answer(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, step: str
):
    async def gone(*_: object) -> None:
        raise ConnectionResetError("Cannot write to closing transport")

    await scene.model()
    monkeypatch.setattr(web.StreamResponse, step, gone)
    caller = await scene.caller()
    await caller.send(scene.request())
    await caller.ended()
    lines = scene.log_lines()
    assert [line["httpRequest"]["status"] for line in lines if "httpRequest" in line] == [499]
    assert not any("stack" in line for line in lines)


async def test_everybody_who_waits_for_a_backend_that_is_down_is_told():
    async with Scene(**{"upstream.connections": "1"}) as scene:
        backend = await scene.model()
        await backend.go_away()
        callers = [await scene.caller() for _ in range(20)]
        for caller in callers:
            await caller.send(scene.request())
        for caller in callers:
            assert_problem(await caller.answer(), 502, "upstream-unreachable")
        await backend.start()
        await scene.still_good(backend)
