"""What strangers may hold: connections, silent ones, half heads, slow bodies, look-ups; and that others get theirs all the same."""

import asyncio
import resource

import pytest

from gateway.core.api_keys import make_key
from tests.flow.scene import Scene, assert_problem
from tests.flow.scripted import Message, Peer
from tests.patience import patience


async def open_count(scene: Scene, count: int) -> None:
    while len(scene.gateway.connections) != count:
        await asyncio.sleep(0)


def turned_away(scene: Scene) -> dict[str, int]:
    return {reason: count for reason, count in scene.gateway.connections.turned_away.items() if count}


async def test_the_oldest_stranger_makes_room_for_a_newcomer():
    async with Scene(**{"server.connections": "4", "server.peer_connections": "1000"}) as scene:
        await scene.model()
        known = await scene.caller()
        await known.send(scene.request())
        assert (await known.answer()).status == 200
        strangers = [await scene.caller() for _ in range(3)]
        await strangers[1].send(b"POST /wine HTT")
        await open_count(scene, 4)
        assert (await scene.call()).status == 200
        assert await strangers[0].ended() == b""
        assert (await scene.call()).status == 200  # the first newcomer is known now, so the half head goes
        assert await strangers[1].ended() == b""
        await known.send(scene.request())
        assert (await known.answer()).status == 200
        assert turned_away(scene) == {"evicted": 2}


async def test_where_all_are_busy_the_newcomer_is_told_so(caplog: pytest.LogCaptureFixture):
    release = asyncio.Event()

    async def slow(_: Message, peer: Peer) -> None:
        await release.wait()
        await peer.answer()

    async with Scene(**{"server.connections": "2", "server.peer_connections": "1000"}) as scene:
        backend = await scene.model(script=slow)
        callers = [await scene.caller() for _ in range(2)]
        for caller in callers:
            await caller.send(scene.request())
        while len(backend.seen) < 2:
            await asyncio.sleep(0)
        newcomer = await scene.caller()
        answer = await newcomer.answer()
        assert_problem(answer, 503, "overloaded")
        assert (answer.get("Retry-After"), answer.get("Connection")) == ("1", "close")
        release.set()
        assert [(await caller.answer()).status for caller in callers] == [200, 200]
        assert turned_away(scene) == {"refused": 1}
        assert caplog.text.count("server.connections") == 1


async def test_one_address_gets_its_share_unless_it_is_a_proxy():
    async with Scene(**{"server.peer_connections": "3"}) as scene:
        await scene.model()
        first = [await scene.caller() for _ in range(3)]
        await open_count(scene, 3)
        assert (await scene.call()).status == 200
        assert await first[0].ended() == b""
        assert turned_away(scene) == {"evicted": 1}
    for flags in ({"edge.trusted_hops": "1"}, {"edge.trusted_proxies": "127.0.0.0/8"}):
        async with Scene(**{"server.peer_connections": "3", **flags}) as scene:
            callers = [await scene.caller() for _ in range(10)]
            await open_count(scene, len(callers))
            assert turned_away(scene) == {}


async def test_silence_and_half_heads_have_their_time():
    async with Scene(**{"server.header_timeout_s": str(patience(0.3))}) as scene:
        await scene.model()
        silent, half, known = [await scene.caller() for _ in range(3)]
        await half.send(b"POST /wine HTTP/1.1\r\nHost: ")
        await known.send(scene.request())
        assert (await known.answer()).status == 200
        async with asyncio.timeout(patience(20)):
            assert await silent.ended() == b""
            assert not (await half.ended()).startswith(b"HTTP/1.1 200")
        await known.send(scene.request())  # a known caller may be idle for longer
        assert (await known.answer()).status == 200
        assert sum(turned_away(scene).values()) == 2
        assert set(turned_away(scene)) <= {"silent", "half-head"}


@pytest.mark.parametrize("first", [b"", b"5\r\nhello\r\n"], ids=["nothing", "a little"])
async def test_a_slow_upload_in_chunks_holds_no_permit(first: bytes):
    async with Scene(**{"limits.model_in_flight": "1", "limits.queue": "0"}) as scene:
        backend = await scene.model()
        slow = await scene.caller()
        head = f"POST /wine HTTP/1.1\r\nHost: chips\r\nX-Api-Key: {scene.key}\r\nTransfer-Encoding: chunked\r\n\r\n"
        await slow.send(head.encode() + first)
        while not scene.gateway.buffer_start_of_body.waiting:
            await asyncio.sleep(0)
        assert (await scene.call()).status == 200
        assert scene.gateway.concurrency_limit.in_flight == 0
        await slow.send(b"6\r\n world\r\n0\r\n\r\n")
        assert (await slow.answer()).status == 200
        assert backend.seen[-1].body == (b"hello" if first else b"") + b" world"


@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked", "Content-Length: 1000000"])
async def test_a_body_that_only_drips_is_ended_also_after_it_has_its_permit(framing: str):
    async with Scene(**{"server.body_timeout_s": str(patience(0.5))}) as scene:
        backend = await scene.model()
        slow = await scene.caller()
        head = f"POST /wine HTTP/1.1\r\nHost: chips\r\nX-Api-Key: {scene.key}\r\n{framing}\r\n\r\n"
        chunked = framing.endswith("chunked")

        def piece(size: int) -> bytes:
            return b"%x\r\n%b\r\n" % (size, b"x" * size) if chunked else b"x" * size

        await slow.send(head.encode() + piece(70_000))
        while not backend.connections:
            await asyncio.sleep(0)

        async def drip() -> None:
            while True:
                await slow.send(piece(10))
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        async with asyncio.timeout(patience(20)):
            assert_problem(await slow.answer(), 408, "request-timeout")
        dripping.cancel()
        assert scene.gateway.concurrency_limit.in_flight == 0


async def test_an_address_that_makes_up_keys_uses_up_its_own_ration_alone():
    flags = {"edge.trusted_hops": "1", "edge.networks": "192.0.2.0/24", "auth.unknown_per_s": "0.1"}
    async with Scene(**flags) as scene:
        await scene.model()
        guesser, other = [("X-Forwarded-For", "192.0.2.1")], [("X-Forwarded-For", "192.0.2.2")]
        assert (await scene.call(key=make_key(), fields=guesser)).status == 401
        answer = await scene.call(key=make_key(), fields=guesser)
        assert_problem(answer, 429, "too-many-requests")
        assert answer.get("Retry-After")
        fresh = await scene.make_key("*")
        assert (await scene.call(key=fresh, fields=other)).status == 200  # looked up for the first time
        assert (
            await scene.call(key=fresh, fields=guesser)
        ).status == 200  # what is remembered needs no look-up
        assert (
            scene.gateway.telemetry.metrics.live_state().counters["chips_edge_refusals_total"][
                "unknown-credentials"
            ]
            == 1
        )


async def test_good_keys_do_not_count():
    async with Scene(**{"auth.unknown_per_s": "0.1"}) as scene:
        await scene.model()
        for _ in range(5):
            assert (await scene.call(key=await scene.make_key("*"))).status == 200


async def test_without_a_file_left_callers_wait_and_are_served_when_there_is_one():
    async with Scene() as scene:
        await scene.model()
        idle = [await scene.caller() for _ in range(5)]
        await open_count(scene, 5)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        last = await scene.caller()
        await open_count(scene, 6)
        del idle
        with last.writer.get_extra_info("socket").dup() as highest:
            used = highest.fileno()
        waiting = scene.caller()
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1, hard))  # one for the caller's own end
        try:
            caller = await waiting
            while not scene.gateway.connections.turned_away["files"]:
                await asyncio.sleep(0)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await caller.send(scene.request())
        assert (await caller.answer()).status == 200
        assert turned_away(scene)["evicted"] >= 1
