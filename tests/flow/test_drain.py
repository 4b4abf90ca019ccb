"""A stop, seen from the callers' connections: what is sent in time is answered, and each answer says that it is the last."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.server.listener import Listener
from tests.flow.scene import Scene
from tests.flow.scripted import Message, Peer, echo_after, read_message
from tests.patience import patience

LINGER = {"server.stop_linger_s": "30", "server.stop_grace_s": "60"}


@asynccontextmanager
async def stopping(scene: Scene) -> AsyncIterator[None]:
    """The gateway drains meanwhile; at the end it has come to its end, which is long before `LINGER` is over."""
    stop = asyncio.create_task(scene.gateway.stop())
    while not scene.gateway.connections.draining:
        await asyncio.sleep(0)
    yield
    async with asyncio.timeout(patience(20)):
        await stop


async def test_a_request_on_an_idle_connection_is_answered_and_told_that_it_is_the_last():
    async with Scene(**LINGER) as scene:
        await scene.model()
        idle, other = await scene.caller(), await scene.caller()
        for caller in (idle, other):
            await caller.send(scene.request())
            answer = await caller.answer()
            assert (answer.status, answer.get("Connection")) == (200, None)
        async with stopping(scene):
            await idle.send(scene.request())
            answer = await idle.answer()
            assert (answer.status, answer.get("Connection")) == (200, "close")
            assert await idle.ended() == b""
            other.leave()


async def test_a_check_on_a_kept_connection_learns_that_the_gateway_stops():
    async with Scene(**LINGER) as scene:
        caller = await scene.caller()
        await caller.send(scene.request("GET", "/-/ready"))
        assert (await caller.answer()).status == 200
        async with stopping(scene):
            await caller.send(scene.request("GET", "/-/ready"))
            answer = await caller.answer()
            assert (answer.status, answer.json()["ready"], answer.get("Connection")) == (503, False, "close")


async def test_a_connection_on_which_nothing_was_sent_yet_is_answered():
    async with Scene(**LINGER) as scene:
        await scene.model()
        caller, half = await scene.caller(), await scene.caller()
        whole = scene.request()
        await half.send(whole[:20])
        while len(scene.gateway.connections) < 2:
            await asyncio.sleep(0)
        async with stopping(scene):
            await caller.send(whole)
            await half.send(whole[20:])
            for one in (caller, half):
                answer = await one.answer()
                assert (answer.status, answer.get("Connection")) == (200, "close")
                assert await one.ended() == b""


async def test_what_is_under_way_is_answered_and_told_that_it_is_the_last():
    release = asyncio.Event()
    async with Scene(**LINGER) as scene:
        backend = await scene.model(script=echo_after(release))
        caller = await scene.caller()
        await caller.send(scene.request())
        while not backend.seen:
            await asyncio.sleep(0)
        async with stopping(scene):
            release.set()
            answer = await caller.answer()
            assert (answer.status, answer.get("Connection")) == (200, "close")
            assert await caller.ended() == b""


async def test_an_answer_that_began_before_the_stop_is_followed_by_one_more():
    """Its head could not say that the connection ends, so the caller may rightly send the next request."""
    release = asyncio.Event()

    async def in_two_parts(_: Message, peer: Peer) -> None:
        await peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        await release.wait()
        await peer.write(b"cd")

    async with Scene(**LINGER) as scene:
        await scene.model(script=in_two_parts)
        caller = await scene.caller()
        await caller.send(scene.request())
        head = await caller.reader.readuntil(b"\r\n\r\n")
        assert b"connection: close" not in head.lower()
        async with stopping(scene):
            release.set()
            assert await caller.reader.readexactly(4) == b"abcd"
            await caller.send(scene.request())
            answer = await caller.answer()
            assert (answer.status, answer.body, answer.get("Connection")) == (200, b"abcd", "close")
            assert await caller.ended() == b""


async def test_pipelined_requests_that_are_here_are_all_answered():
    release = asyncio.Event()
    async with Scene(**LINGER) as scene:
        backend = await scene.model(script=echo_after(release))
        caller = await scene.caller()
        await caller.send(b"".join(scene.request(target=f"/wine/{number}") for number in range(3)))
        while not backend.seen:
            await asyncio.sleep(0)
        async with stopping(scene):
            release.set()
            answers = [await caller.answer() for _ in range(3)]
            assert [answer.json()["target"] for answer in answers] == ["/0", "/1", "/2"]
            assert [answer.get("Connection") for answer in answers] == [None, None, "close"]
            assert await caller.ended() == b""


async def test_callers_whom_nobody_has_accepted_yet_are_answered():
    """Their handshakes are over, so their requests count as sent; a close would reset them."""
    async with Scene(**LINGER) as scene:
        await scene.model()
        callers = await asyncio.gather(*(scene.caller() for _ in range(40)))
        stop = asyncio.create_task(scene.gateway.stop())
        for caller in callers:
            await caller.send(scene.request())
        answers = [await caller.answer() for caller in callers]
        assert {answer.status for answer in answers} == {200}
        async with asyncio.timeout(patience(20)):
            await stop


async def test_a_caller_who_is_accepted_while_nobody_else_is_there_may_take_its_moment(
    monkeypatch: pytest.MonkeyPatch,
):
    closed = asyncio.Event()
    stop_accepting = Listener.stop_accepting

    async def and_tell(listener: Listener, *, linger_s: float) -> None:
        await stop_accepting(listener, linger_s=linger_s)
        closed.set()

    monkeypatch.setattr(Listener, "stop_accepting", and_tell)
    async with Scene(**LINGER) as scene:
        await scene.model()
        # The kernel has taken it, and the loop has no turn to do so before the stop begins.
        connection = socket.create_connection(("127.0.0.1", scene.gateway.port))
        async with stopping(scene):
            assert not len(scene.gateway.connections)
            reader, writer = await asyncio.open_connection(sock=connection)
            await closed.wait()
            for _ in range(100):
                await asyncio.sleep(0)
            writer.write(scene.request())
            answer = await read_message(reader, request=False)
            assert (answer.status, answer.get("Connection")) == (200, "close")
            writer.close()


async def test_the_grace_is_a_bound_also_for_callers_who_stay():
    async with Scene(**{"server.stop_linger_s": "60", "server.stop_grace_s": "0.2"}) as scene:
        await scene.model()
        caller = await scene.caller()
        await caller.send(scene.request())
        await caller.answer()
        async with stopping(scene):
            pass
        assert await caller.ended() == b""


async def test_idle_connections_are_closed_when_the_moment_is_over():
    async with Scene(**{"server.stop_linger_s": "0.1", "server.stop_grace_s": "60"}) as scene:
        await scene.model()
        caller = await scene.caller()
        await caller.send(scene.request())
        await caller.answer()
        async with stopping(scene):
            assert await caller.ended() == b""
