"""WebSockets: what one side cannot take stops the other, and what nobody uses ends. The plain path has no tunnels."""

import asyncio

import pytest

from tests.flow.kernel_buffers import TO_THE_OTHER_SIDE
from tests.flow.scene import Scene
from tests.flow.scripted import Caller, Message, Peer, ScriptedBackend, read_message

pytestmark = pytest.mark.path("fast")

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
FIELDS = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Key", "x")]
LIMIT = TO_THE_OTHER_SIDE + 32 * 1024 * 1024  # bytes: more than all buffers on the way


async def parrot(request: Message, peer: Peer) -> None:
    """Send back what comes, until the caller closes."""
    await peer.write(SWITCHED)
    while piece := await peer.reader.read(65536):
        await peer.write(piece)
    peer.close()


async def tunnel(scene: Scene) -> Caller:
    caller = await scene.caller()
    await caller.send(scene.request("GET", "/wine/live", fields=FIELDS))
    assert (await read_message(caller.reader, request=False)).status == 101
    return caller


async def nothing_left(scene: Scene, backend: ScriptedBackend) -> None:
    while scene.gateway.concurrency_limit.in_flight or backend._open:
        await asyncio.sleep(0)


async def test_a_tunnel_that_nobody_uses_ends_on_both_sides():
    async with Scene(**{"upstream.tunnel_idle_s": "0.2"}) as scene:
        backend = await scene.model(script=parrot)
        caller = await tunnel(scene)
        assert await caller.ended() == b""
        await nothing_left(scene, backend)
        (line,) = scene.log_lines()
        assert (line["httpRequest"]["status"], line.get("error")) == (101, None)


async def test_a_tunnel_that_nobody_reads_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch):
    async def deaf(request: Message, peer: Peer) -> None:
        await peer.write(SWITCHED)
        await forever.wait()

    forever = asyncio.Event()
    monkeypatch.setattr("gateway.upstream.backend_connection._LAST_WORDS_S", 0.3)
    async with Scene(**{"upstream.tunnel_idle_s": "0.3"}) as scene:
        await scene.model(script=deaf)
        caller = await tunnel(scene)
        (pool,) = scene.gateway.upstream.pools.values()  # type: ignore[attr-defined]
        (connection,) = pool.busy
        sending = asyncio.create_task(caller.send(b"x" * LIMIT))
        while connection.transport is not None and not connection.transport.get_write_buffer_size():
            await asyncio.sleep(0.01)
        while connection.transport is not None:  # what cannot be sent is not kept for ever
            await asyncio.sleep(0.01)
        assert not pool.busy
        sending.cancel()
        forever.set()


async def test_a_tunnel_in_use_lives_on():
    async with Scene(**{"upstream.tunnel_idle_s": "60"}) as scene:
        await scene.model(script=parrot)
        caller = await tunnel(scene)
        (pool,) = scene.gateway.upstream.pools.values()  # type: ignore[attr-defined]
        (connection,) = pool.busy
        deadline = 0.0
        for _ in range(3):
            await caller.send(b"\x81\x02ho")
            assert await caller.reader.readexactly(4) == b"\x81\x02ho"
            assert connection.deadline > deadline
            deadline = connection.deadline


async def test_a_drain_ends_tunnels():
    async with Scene(**{"server.stop_grace_s": "0.2"}) as scene:
        backend = await scene.model(script=parrot)
        caller = await tunnel(scene)
        await scene.gateway.stop()
        assert await caller.ended() == b""
        await nothing_left(scene, backend)


async def test_a_caller_who_does_not_read_stops_the_backend(scene: Scene):
    written = 0

    async def script(request: Message, peer: Peer) -> None:
        nonlocal written
        await peer.write(SWITCHED)
        while written < LIMIT:
            await peer.write(b"x" * 65536)
            written += 65536
        peer.close()

    await scene.model(script=script)
    caller = await tunnel(scene)
    before = -1
    while written != before:  # until it stands still
        before = written
        await asyncio.sleep(0.1)
    assert written < LIMIT - 16 * 1024 * 1024
    assert len(await caller.ended()) == LIMIT  # and it goes on where it stood still


async def test_a_backend_that_does_not_read_stops_the_caller(scene: Scene):
    release, received = asyncio.Event(), 0

    async def script(request: Message, peer: Peer) -> None:
        nonlocal received
        await peer.write(SWITCHED)
        await release.wait()
        while piece := await peer.reader.read(65536):
            received += len(piece)
        peer.close()

    backend = await scene.model(script=script)
    caller = await tunnel(scene)
    sent = 0

    async def send() -> None:
        nonlocal sent
        while sent < LIMIT:
            await caller.send(b"x" * 65536)
            sent += 65536

    sending = asyncio.create_task(send())
    before = -1
    while sent != before:
        before = sent
        await asyncio.sleep(0.1)
    assert sent < LIMIT - 16 * 1024 * 1024
    release.set()
    await sending
    await caller.close()
    await nothing_left(scene, backend)
    assert received == LIMIT


async def test_last_words_to_a_backend_that_takes_none(scene: Scene):
    release = asyncio.Event()

    async def script(request: Message, peer: Peer) -> None:
        await peer.write(SWITCHED)
        await release.wait()

    await scene.model(script=script)
    caller = await tunnel(scene)
    (pool,) = scene.gateway.upstream.pools.values()  # type: ignore[attr-defined]
    (connection,) = pool.busy
    while connection.transport.get_write_buffer_size() == 0:
        caller.writer.write(b"x" * 4096)
        await asyncio.sleep(0)
    caller.leave()
    while scene.gateway.concurrency_limit.in_flight:
        await asyncio.sleep(0)
    assert connection in pool.busy  # it is still somebody's business
    connection.deadline = 0.0
    while pool.busy:
        await asyncio.sleep(0.01)
    release.set()
