# Long: one table of what is sent and what arrives.
"""What is on the wire, where a gateway can get it wrong without anybody noticing for years."""

import asyncio
import re

import pytest

from gateway.core.exchange import BUFFERED_BODY_BYTES
from gateway.core.model import Policy
from tests.flow.kernel_buffers import ONE_CONNECTION, TO_THE_OTHER_SIDE
from tests.flow.scene import Scene, assert_problem
from tests.flow.scripted import Message, Peer, read_message


async def test_what_the_gateway_says_in_every_answer(scene: Scene):
    async def script(request: Message, peer: Peer) -> None:
        fields = [
            ("Server-Timing", "predict;dur=12.3"),
            ("X-Chips-Model", "wine@forged"),
            ("X-Request-Id", "theirs"),
            ("Server", "uvicorn"),
        ]
        await peer.answer(200, b"{}", fields)

    await scene.model(script=script)
    answer = await scene.call(fields=[("X-Request-Id", "mine"), ("X-Chips-Registry", "generation")])
    assert answer.get("X-Chips-Model") == "wine@1"
    assert answer.get("X-Request-Id") == "mine"
    assert answer.get("Server") == "chips"
    assert answer.get("Date") is not None
    assert re.fullmatch(r"predict;dur=12\.3, gateway;dur=\d+\.\d\d", answer.get("Server-Timing") or "")
    snapshot = scene.gateway.mirror.snapshot
    assert snapshot is not None
    assert (answer.get("X-Chips-Registry") or "").startswith(f"generation={snapshot.generation};age=")
    assert (await scene.call()).get("X-Chips-Registry") is None
    refused = await scene.call(key=None)
    assert refused.get("X-Chips-Model") == "wine@1"
    assert re.fullmatch(r"gateway;dur=\d+\.\d\d", refused.get("Server-Timing") or "")


async def test_fields_that_connection_names_end_here_in_both_directions(scene: Scene):
    async def script(request: Message, peer: Peer) -> None:
        fields = [("Connection", "X-Secret"), ("X-Secret", "1"), ("Keep-Alive", "timeout=5"), ("X-Kept", "1")]
        await peer.answer(200, b"ok", fields)

    backend = await scene.model(script=script)
    answer = await scene.call(
        fields=[("Connection", "X-Hop, keep-alive"), ("X-Hop", "1"), ("TE", "trailers")]
    )
    assert answer.get("X-Secret") is None
    assert answer.get("Keep-Alive") is None
    assert answer.get("X-Kept") == "1"
    (seen,) = backend.seen
    assert seen.get("X-Hop") is None
    assert seen.get("TE") is None
    assert re.fullmatch(r"1\.1 chips-[0-9a-z]+", seen.get("Via") or "")


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_whatever_its_length_says(scene: Scene, status: int):
    async def script(request: Message, peer: Peer) -> None:
        await peer.write(
            b"HTTP/1.1 %d Nothing\r\n%b\r\n" % (status, b"Content-Length: 10\r\n" * (status == 304))
        )

    await scene.model(script=script)
    caller = await scene.caller()
    for _ in range(2):
        await caller.send(scene.request())
        answer = await caller.answer()
        assert (answer.status, answer.body) == (status, b"")
        assert answer.get("Transfer-Encoding") is None


async def test_an_answer_that_ends_with_its_connection(scene: Scene):
    async def script(request: Message, peer: Peer) -> None:
        await peer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil ")
        await peer.write(b"close")
        peer.close()

    await scene.model(script=script)
    caller = await scene.caller()
    for _ in range(2):  # the caller's own connection goes on
        await caller.send(scene.request())
        answer = await caller.answer()
        assert (answer.status, answer.body, answer.complete) == (200, b"until close", True)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n3;ext=1\r\nabc\r\n0\r\n\r\n"


async def test_a_chunked_answer_to_a_caller_who_speaks_http_1_0(scene: Scene):
    async def script(request: Message, peer: Peer) -> None:
        await peer.write(CHUNKED)

    await scene.model(script=script)
    caller = await scene.caller()
    await caller.send(scene.request().replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    answer = await caller.answer()
    assert answer.first.startswith("HTTP/1.0 200")
    assert answer.get("Transfer-Encoding") is None
    assert answer.body == b"okabc"
    assert await caller.ended() == b""


async def test_http_1_0_with_keep_alive(scene: Scene):
    await scene.model()
    caller = await scene.caller()
    for _ in range(2):
        await caller.send(
            scene.request(fields=[("Connection", "keep-alive")]).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
        )
        answer = await caller.answer()
        assert answer.status == 200
        assert (answer.get("Connection") or "").lower() == "keep-alive"
    await caller.send(scene.request().replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    assert (await caller.answer()).status == 200
    assert await caller.ended() == b""


async def test_connection_close_is_kept(scene: Scene):
    await scene.model()
    caller = await scene.caller()
    await caller.send(scene.request(fields=[("Connection", "close")]))
    answer = await caller.answer()
    assert (answer.get("Connection") or "").lower() == "close"
    assert await caller.ended() == b""


@pytest.mark.parametrize("step", [1, 7, 1000])
async def test_a_head_and_a_chunked_answer_in_small_pieces(scene: Scene, step: int):
    async def script(request: Message, peer: Peer) -> None:
        for i in range(0, len(CHUNKED), step):
            await peer.write(CHUNKED[i : i + step])
            await asyncio.sleep(0)

    await scene.model(script=script)
    caller = await scene.caller()
    raw = scene.request(body=b"hello")
    for i in range(0, len(raw), step):
        await caller.send(raw[i : i + step])
        await asyncio.sleep(0)
    answer = await caller.answer()
    assert (answer.status, answer.body) == (200, b"okabc")


async def test_pipelined_requests_are_answered_in_their_order(scene: Scene):
    async def script(request: Message, peer: Peer) -> None:
        await peer.answer(200, request.body)

    await scene.model(script=script)
    caller = await scene.caller()
    bodies = [b"%d" % i * (i * 97 % 300 + 1) for i in range(100)]
    await caller.send(b"".join(scene.request(body=body) for body in bodies))
    for body in bodies:
        assert (await caller.answer()).body == body


async def test_a_large_body_behind_many_pipelined_requests(scene: Scene):
    release = asyncio.Event()

    async def script(request: Message, peer: Peer) -> None:
        await release.wait()
        await peer.answer(200, b"%d" % len(request.body))

    await scene.model(script=script)
    caller = await scene.caller()
    sizes = [10, 100_000, 10, 400_000, 70_000]
    sending = asyncio.create_task(caller.send(b"".join(scene.request(body=b"x" * size) for size in sizes)))
    await asyncio.sleep(0.1)  # so that what waits is more than is held
    release.set()
    for size in sizes:
        assert (await caller.answer()).body == b"%d" % size
    await sending


@pytest.mark.path("fast")
async def test_a_caller_who_sends_on_and_on_and_reads_nothing(scene: Scene):
    async def script(request: Message, peer: Peer) -> None:
        await peer.answer(200, b"x" * 50_000)

    await scene.model(script=script)
    caller = await scene.caller()
    one = scene.request()
    sent = 0
    while sent < TO_THE_OTHER_SIDE + 64 * 1024 * 1024:
        caller.writer.write(one * 100)
        sent += len(one) * 100
        try:
            await asyncio.wait_for(caller.writer.drain(), 0.5)
        except TimeoutError:
            break
    assert sent < TO_THE_OTHER_SIDE + 32 * 1024 * 1024
    caller.leave()


async def test_many_callers_at_once(scene: Scene):
    await scene.model()
    # Each has four sockets in this process: both ends of its connection, and of the gateway's to the backend.
    callers = await asyncio.gather(*(scene.caller() for _ in range(150)))
    for caller in callers:
        await caller.send(scene.request())
    for caller in callers:
        assert (await caller.answer()).status == 200


@pytest.mark.path("fast")
async def test_interim_answers_without_end(scene: Scene):
    async def script(request: Message, peer: Peer) -> None:
        await peer.write(b"HTTP/1.1 102 Processing\r\n\r\n" * 5000)

    await scene.model(script=script)
    caller = await scene.caller()
    await caller.send(scene.request())
    while (answer := await caller.answer()).status == 102:
        pass
    assert_problem(answer, 502, "upstream-broken")


@pytest.mark.path("fast")
async def test_trailers_arrive_in_both_directions(scene: Scene):
    async def script(request: Message, peer: Peer) -> None:
        await peer.write(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
            b"2\r\nok\r\n0\r\nX-Sum: 7\r\nContent-Length: 1\r\n\r\n"
        )

    backend = await scene.model(script=script)
    caller = await scene.caller()
    head = b"POST /wine HTTP/1.1\r\nHost: chips\r\nX-Api-Key: " + scene.key.encode() + b"\r\n"
    await caller.send(head + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    await caller.send(b"0\r\nX-Sum: 1\r\nHost: evil\r\n\r\n")
    answer = await caller.answer()
    assert (answer.body, answer.trailers) == (b"ok", [("X-Sum", "7")])
    assert backend.seen[0].body == b"hello"


@pytest.mark.path("fast")  # the plain one forwards no trailers
@pytest.mark.parametrize(("trailer", "connections"), [(b"X-Sum: 1\r\n", 2), (b"", 1)])
async def test_behind_trailers_a_backend_gets_no_other_request(
    scene: Scene, trailer: bytes, connections: int
):
    """aiohttp's server puts the last trailer before the fields of the next request, which may be another caller's."""
    backend = await scene.model()
    caller = await scene.caller()
    head = scene.request(body=None, fields=[("Transfer-Encoding", "chunked")])
    await caller.send(head + b"11170\r\n" + b"x" * 0x11170 + b"\r\n")
    while not backend.connections:  # enough of it is here, so it flows
        await asyncio.sleep(0)
    await caller.send(b"0\r\n%b\r\n" % trailer)
    assert (await caller.answer()).status == 200
    assert (await scene.call()).status == 200
    assert backend.connections == connections


async def test_bytes_after_an_answer_are_for_nobody(scene: Scene):
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"

    async def script(request: Message, peer: Peer) -> None:
        await peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + evil)

    await scene.model(script=script)
    caller = await scene.caller()
    for _ in range(5):
        await caller.send(scene.request())
        answer = await caller.answer()
        assert (answer.status, answer.body) == (200, b"ok")


@pytest.mark.path("fast")
async def test_an_answer_that_nobody_asked_for_ends_its_connection(scene: Scene):
    backend = await scene.model()
    assert (await scene.call()).status == 200
    (writer,) = backend._open
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL")
    while backend._open:
        await asyncio.sleep(0)
    answer = await scene.call()
    assert (answer.status, b"EVIL" in answer.body) == (200, False)


@pytest.mark.path("fast")
async def test_interim_answers_go_on_but_for_100(scene: Scene):
    async def script(request: Message, peer: Peer) -> None:
        await peer.write(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        )

    await scene.model(script=script)
    caller = await scene.caller()
    await caller.send(scene.request())
    hint = await caller.answer()
    assert (hint.status, hint.get("Link")) == (103, "</wine/a>")
    assert (await caller.answer()).body == b"ok"
    await caller.send(scene.request().replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    assert (await caller.answer()).status == 200


@pytest.mark.path("fast")
async def test_an_answer_read_strictly(scene: Scene):
    for head in (
        b"HTTP/1.1 200 OK\r\nX-A: a\rb\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX-A: a\nX-B: b\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ):

        async def script(request: Message, peer: Peer, head: bytes = head) -> None:
            await peer.write(head)

        name = f"m{len(scene.backends)}"
        await scene.model(name, script=script)
        assert_problem(await scene.call("POST", f"/{name}"), 502, "upstream-broken")


async def test_a_connection_that_the_backend_closes_after_each_answer_loses_nothing(scene: Scene):
    async def script(request: Message, peer: Peer) -> None:
        await peer.answer(200, b"ok")  # a kept connection is promised by silence
        peer.close()

    await scene.model(script=script)
    caller = await scene.caller()
    for _ in range(30):
        await caller.send(scene.request("GET", "/wine/x"))
        assert (await caller.answer()).status == 200


def closes_the_second_request(peers: list[Peer]):
    async def script(request: Message, peer: Peer) -> None:
        if peers and peers[-1] is peer:
            peers.append(peer)
            peer.abort()  # closed as it read the request
            return
        peers.append(peer)
        await peer.answer(200, b"ok")

    return script


@pytest.mark.path("fast")
async def test_a_pooled_connection_closed_under_us_is_replaced_where_that_is_safe(scene: Scene):
    first: list[Peer] = []
    backend = await scene.model(script=closes_the_second_request(first))
    assert (await scene.call("GET", "/wine/x")).status == 200
    assert (await scene.call("GET", "/wine/x")).status == 200
    assert len(backend.seen) == 3

    await scene.model("pure", script=closes_the_second_request([]), policy=Policy(pure=True))
    assert (await scene.call("POST", "/pure")).status == 200
    assert (await scene.call("POST", "/pure")).status == 200

    other = await scene.model("other", script=closes_the_second_request([]))
    assert (await scene.call("POST", "/other")).status == 200
    assert_problem(await scene.call("POST", "/other"), 502, "upstream-broken")  # it may have been done
    assert len(other.seen) == 2
    lines = scene.log_lines()
    assert [line["httpRequest"]["status"] for line in lines] == [200, 200, 200, 200, 200, 502]


@pytest.mark.path("fast")
async def test_a_body_that_flowed_is_not_sent_again_as_if_it_were_empty(scene: Scene):
    async def script(request: Message, peer: Peer) -> None:
        if backend.seen[1:]:
            peer.abort()
            return
        await peer.answer(200, b"ok")

    backend = await scene.model(script=script, policy=Policy(pure=True))
    assert (await scene.call()).status == 200  # so that the next one goes out on a connection that was used
    caller = await scene.caller()
    await caller.send(
        b"POST /wine HTTP/1.1\r\nHost: chips\r\nX-Api-Key: " + scene.key.encode() + b"\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n11170\r\n" + b"x" * 0x11170 + b"\r\n"
    )
    while not scene.gateway.concurrency_limit.in_flight:  # enough of it is here, so it flows
        await asyncio.sleep(0)
    await caller.send(b"5\r\nworld\r\n0\r\n\r\n")
    assert_problem(await caller.answer(), 502, "upstream-broken")
    assert [seen.body for seen in backend.seen[1:]] == [b"x" * 0x11170 + b"world"]


@pytest.mark.path("fast")
async def test_a_websocket_is_a_tunnel(scene: Scene):
    async def script(request: Message, peer: Peer) -> None:
        assert request.get("Upgrade") == "websocket"
        assert request.get("Connection") == "Upgrade"
        assert request.get("Sec-WebSocket-Key") == "x"
        await peer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: y\r\n\r\n\x81\x02hi"
        )
        assert await peer.reader.readexactly(4) == b"\x81\x02ho"
        await peer.write(b"\x88\x00")
        assert await peer.reader.read() == b""
        backend.lost.set()

    backend = await scene.model(script=script)
    caller = await scene.caller()
    fields = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Key", "x")]
    await caller.send(scene.request("GET", "/wine/live", fields=fields))
    answer = await read_message(caller.reader, request=False)
    assert (answer.status, answer.get("Upgrade"), answer.get("Sec-WebSocket-Accept")) == (
        101,
        "websocket",
        "y",
    )
    assert await caller.reader.readexactly(4) == b"\x81\x02hi"
    await caller.send(b"\x81\x02ho")
    assert await caller.reader.readexactly(2) == b"\x88\x00"
    caller.leave()
    await backend.lost.wait()
    while scene.gateway.concurrency_limit.in_flight:
        await asyncio.sleep(0)
    (line,) = scene.log_lines()
    assert line["httpRequest"]["status"] == 101


async def test_an_upgrade_that_the_backend_declines(scene: Scene):
    await scene.model()
    caller = await scene.caller()
    fields = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Key", "x")]
    await caller.send(scene.request("GET", "/wine/live", fields=fields))
    assert (await caller.answer()).status == 200
    await caller.send(scene.request())
    assert (await caller.answer()).status == 200


async def test_a_body_whose_chunks_are_not_valid_reaches_nobody(scene: Scene):
    backend = await scene.model()
    head = b"POST /wine HTTP/1.1\r\nHost: chips\r\nX-Api-Key: " + scene.key.encode() + b"\r\n"
    for tail in (
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
    ):
        caller = await scene.caller()
        await caller.send(head + b"Transfer-Encoding: chunked\r\n\r\n" + tail)
        raw = await caller.ended()
        assert b" 400 " in raw.partition(b"\r\n")[0], raw
    assert backend.seen == []
    await scene.still_good(backend)


@pytest.mark.path("fast")  # the plain path notices only when the time allowed is over
async def test_a_chunk_that_turns_bad_later_leaves_the_backend_with_half_a_request(scene: Scene):
    backend = await scene.model()
    caller = await scene.caller()
    await caller.send(
        b"POST /wine HTTP/1.1\r\nHost: chips\r\nX-Api-Key: " + scene.key.encode() + b"\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n11170\r\n" + b"x" * 0x11170 + b"\r\n"
    )
    while not backend.connections:  # enough of it is here, so it flows
        await asyncio.sleep(0)
    await caller.send(b"5\r\nworldX\r\n0\r\n\r\n")
    await caller.ended()
    await scene.still_good(backend)
    assert [seen.complete for seen in backend.seen] in ([False, True], [True])


@pytest.mark.path("fast")
async def test_a_caller_who_does_not_read_stops_the_backend(scene: Scene):
    written = 0
    total = TO_THE_OTHER_SIDE + 128 * 1024 * 1024

    async def script(request: Message, peer: Peer) -> None:
        nonlocal written
        await peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while written < total:
            await peer.write(b"x" * 65536)
            written += 65536

    await scene.model(script=script)
    caller = await scene.caller()
    await caller.send(scene.request())
    await caller.reader.readuntil(b"\r\n\r\n")
    before = -1
    while written != before:  # until it stands still
        before = written
        await asyncio.sleep(0.1)
    assert written < TO_THE_OTHER_SIDE + 32 * 1024 * 1024
    caller.leave()


@pytest.mark.path("fast")
async def test_a_backend_that_does_not_read_stops_the_caller(scene: Scene):
    release = asyncio.Event()
    size = TO_THE_OTHER_SIDE + 32 * 1024 * 1024

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await release.wait()
        writer.close()

    backend = await scene.model(policy=Policy(body_limit_bytes=size))
    await backend.go_away()
    server = await asyncio.start_server(serve, "127.0.0.1", backend.port)
    caller = await scene.caller()
    await caller.send(scene.request(body=b"").replace(b"Content-Length: 0", b"Content-Length: %d" % size))
    sent = 0
    while sent < size:
        caller.writer.write(b"x" * 65536)
        sent += 65536
        try:
            await asyncio.wait_for(caller.writer.drain(), 0.3)
        except TimeoutError:
            break
    assert sent < TO_THE_OTHER_SIDE + 16 * 1024 * 1024
    release.set()
    caller.leave()
    server.close()


async def test_a_body_is_not_read_far_ahead_while_its_request_waits_for_its_turn():
    release = asyncio.Event()

    async def script(request: Message, peer: Peer) -> None:
        await release.wait()
        await peer.answer(200, b"%d" % len(request.body))

    flags = {"limits.model_in_flight": "1", "limits.queue_wait_s": "60"}
    async with Scene(**flags) as scene:
        size, sent = ONE_CONNECTION + 32 * 1024 * 1024, 0
        await scene.model(script=script, policy=Policy(body_limit_bytes=size))
        first, second = await scene.caller(), await scene.caller()
        await first.send(scene.request(body=b"x"))
        while not scene.gateway.concurrency_limit.in_flight:
            await asyncio.sleep(0)
        await second.send(scene.request(body=b"").replace(b"Content-Length: 0", b"Content-Length: %d" % size))

        async def send() -> None:
            nonlocal sent
            while sent < size:
                piece = b"x" * min(65536, size - sent)
                await second.send(piece)
                sent += len(piece)

        sending = asyncio.create_task(send())
        before = -1
        while sent != before:  # until it stands still
            before = sent
            await asyncio.sleep(0.1)
        assert sent < ONE_CONNECTION + 16 * 1024 * 1024
        release.set()
        await sending
        assert (await first.answer()).body == b"1"
        assert (await second.answer()).body == b"%d" % size


@pytest.mark.path("fast")
async def test_a_body_that_fails_while_its_request_waits_for_a_connection_leaves_that_one_to_others():
    """It waits on the one connection there may be, turns out to be too large meanwhile, and must give that back."""
    release = asyncio.Event()
    size = BUFFERED_BODY_BYTES  # so much of it is waited for here, before the connection is

    async def script(request: Message, peer: Peer) -> None:
        if request.target == "/first":
            await release.wait()
        await peer.answer(200, b"ok")

    async with Scene(**{"upstream.connections": "1"}) as scene:
        backend = await scene.model(script=script, policy=Policy(body_limit_bytes=size))
        first, second, third = [await scene.caller() for _ in range(3)]
        await first.send(scene.request("GET", "/wine/first"))
        while not backend.seen:
            await asyncio.sleep(0)
        await second.send(
            scene.request(body=None, fields=[("Transfer-Encoding", "chunked")])
            + b"%x\r\n" % size
            + b"x" * size
        )
        (pool,) = scene.gateway.upstream.pools.values()  # type: ignore[attr-defined]
        while not pool.waiting:
            await asyncio.sleep(0)
        await second.send(b"\r\n1\r\nx\r\n0\r\n\r\n")
        await third.send(scene.request())
        while pool.waiting < 2:
            await asyncio.sleep(0)
        release.set()
        assert (await first.answer()).status == 200
        assert_problem(await second.answer(), 413, "payload-too-large")
        assert (await third.answer()).status == 200
        assert (len(pool.busy), len(pool.idle), backend.connections) == (0, 1, 1)
