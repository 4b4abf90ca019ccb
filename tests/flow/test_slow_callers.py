"""Callers who send slowly, or stop: they keep a place from nobody, and are told so."""

import asyncio

import pytest

from tests.flow.scene import Scene, assert_problem
from tests.flow.scripted import Message, Peer
from tests.patience import patience

CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


def head(scene: Scene, framing: bytes) -> bytes:
    return b"POST /wine HTTP/1.1\r\nHost: chips\r\nX-Api-Key: " + scene.key.encode() + b"\r\n" + framing


def length(size: int) -> bytes:
    return b"Content-Length: %d\r\n\r\n" % size


async def test_who_sends_a_small_body_slowly_holds_no_place_meanwhile():
    async with Scene(**{"limits.model_in_flight": "1", "limits.queue": "0"}) as scene:
        backend = await scene.model()
        slow = await scene.caller()
        await slow.send(head(scene, length(10)) + b"12345")
        assert (await scene.call()).status == 200
        assert scene.gateway.concurrency_limit.in_flight == 0
        await slow.send(b"67890")
        assert (await slow.answer()).status == 200
        assert [seen.body for seen in backend.seen] == [b'{"instances": []}', b"1234567890"]
        (_, line) = scene.log_lines()
        assert line["httpRequest"]["requestSize"] == "10"


@pytest.mark.parametrize(
    ("framing", "part"),
    [
        (length(10), b""),
        (length(10), b"12345"),
        (length(100_000), b"x" * 1000),
        (CHUNKED, b"5\r\nhello\r\n"),
    ],
    ids=["none", "small", "large", "chunks"],
)
async def test_a_body_that_does_not_come(framing: bytes, part: bytes):
    async with Scene(**{"server.body_timeout_s": str(patience(0.3))}) as scene:
        backend = await scene.model()
        caller = await scene.caller()
        await caller.send(head(scene, framing) + part)
        answer = await caller.answer()
        assert_problem(answer, 408, "request-timeout")
        assert answer.get("Connection") == "close"
        if scene.path == "fast":  # aiohttp's server waits ten seconds for what may still come
            await caller.ended()
        caller.leave()
        assert scene.gateway.concurrency_limit.in_flight == 0
        assert not any(seen.complete for seen in backend.seen)
        await scene.still_good(backend)


async def test_a_body_that_comes_bit_by_bit_is_waited_for():
    async with Scene(**{"server.body_timeout_s": str(patience(5))}) as scene:
        backend = await scene.model()
        caller = await scene.caller()
        await caller.send(head(scene, length(70_000)))
        for _ in range(70):
            await caller.send(b"x" * 1000)
            await asyncio.sleep(0)
        assert (await caller.answer()).status == 200
        assert backend.seen[0].body == b"x" * 70_000


async def test_a_head_as_long_as_the_settings_allow():
    async with Scene(**{"server.header_bytes": "100000"}) as scene:
        await scene.model()
        fields = [("Connection", "X-Big, X-Bigger"), ("X-Big", "a" * 60_000), ("X-Bigger", "b" * 90_000)]
        whole = scene.request(fields=fields)
        caller = await scene.caller()
        for piece in (whole, whole[:80_000], whole[80_000:], whole):
            await caller.send(piece)
        for _ in range(3):
            assert (await caller.answer()).status == 200


async def test_a_long_head_behind_a_request_that_is_under_way():
    release = asyncio.Event()

    async def script(request: Message, peer: Peer) -> None:
        await release.wait()
        await peer.answer(200, b"ok")

    async with Scene(**{"server.header_bytes": "100000"}) as scene:
        backend = await scene.model(script=script)
        fields = [("Connection", "X-Big, X-Bigger"), ("X-Big", "a" * 60_000), ("X-Bigger", "b" * 90_000)]
        caller = await scene.caller()
        await caller.send(scene.request())
        while not backend.seen:
            await asyncio.sleep(0)
        sending = asyncio.create_task(caller.send(scene.request(fields=fields) * 5))
        await asyncio.sleep(0.1)  # so that more waits than is held
        release.set()
        for _ in range(6):
            assert (await caller.answer()).body == b"ok"
        await sending


async def test_only_so_many_may_send_slowly_at_once():
    async with Scene(**{"limits.in_flight": "2"}) as scene:
        backend = await scene.model()
        slow = [await scene.caller() for _ in range(2)]
        for caller in slow:
            await caller.send(head(scene, length(10)) + b"12345")
        while scene.gateway.buffer_start_of_body.waiting < 2:
            await asyncio.sleep(0)
        late = await scene.caller()
        await late.send(head(scene, length(10)) + b"12345")
        assert_problem(await late.answer(), 503, "overloaded")
        for caller in slow:
            caller.leave()
        while scene.gateway.buffer_start_of_body.waiting:
            await asyncio.sleep(0)
        await scene.still_good(backend)
