"""Requests at the edge of the standard: refused where two programs could read them differently, else the standard's code."""

import asyncio
import contextlib

import pytest

from gateway.core.model import Backend, Model, Policy
from gateway.core.model_cors_policy import CorsRule
from gateway.serve import print_startup_banner
from tests.flow.scene import Scene, assert_problem
from tests.flow.scripted import Caller, Message, Peer
from tests.patience import patience


async def closed_after(caller: Caller, status: int, code: str) -> Message:
    answer = await caller.answer()
    assert_problem(answer, status, code)
    assert await caller.ended() == b""
    return answer


@pytest.mark.parametrize("blank", ["\t", " \t", "\t ", " "])
async def test_a_blank_behind_chunked(scene: Scene, blank: str):
    """aiohttp's parser takes `chunked` and a tab for no coding; what followed was the next caller's answer."""
    backend = await scene.model()
    caller = await scene.caller()
    head = scene.request(body=None, fields=[("Transfer-Encoding", f"chunked{blank}")])
    await caller.send(head + b"5\r\nhello\r\n0\r\n\r\n" + scene.request(target="/wine/next", body=b"next"))
    first = await caller.answer()
    if first.status == 400:
        assert await caller.ended() == b""
        assert backend.seen == []
    else:
        assert (first.status, (await caller.answer()).status) == (200, 200)
        assert [seen.body for seen in backend.seen] == [b"hello", b"next"]
    await scene.still_good(backend)


@pytest.mark.parametrize("is_apart", [False, True])
async def test_a_trailer_is_no_field_of_the_next_request(scene: Scene, is_apart: bool):
    """The next request may be another caller's, where a proxy before the gateway shares the connection."""
    backend = await scene.model()
    caller = await scene.caller()
    first = scene.request(body=None, fields=[("Transfer-Encoding", "chunked")])
    first += b"5\r\nhello\r\n0\r\nX-Smuggled: 1\r\n\r\n"
    following = scene.request(target="/wine/next", body=b"next")
    await caller.send(first if is_apart else first + following)
    assert (await caller.answer()).status == 200
    if is_apart:
        await caller.send(following)
    answer = await caller.answer()
    assert answer.status == (200 if scene.path == "fast" else 400)
    assert [seen.get("X-Smuggled") for seen in backend.seen] == [None] * len(backend.seen)
    await scene.still_good(backend)


async def test_behind_chunks_other_requests_are_as_before(scene: Scene):
    backend = await scene.model()
    caller = await scene.caller()
    head = scene.request(body=None, fields=[("Transfer-Encoding", "chunked")])
    for request in (head + b"1\r\nx\r\n0\r\n\r\n", scene.request(body=b"y")) * 2:
        await caller.send(request)
        assert (await caller.answer()).status == 200
    assert [seen.body for seen in backend.seen] == [b"x", b"y"] * 2


@pytest.mark.parametrize(
    "host",
    [
        *(
            '"><script>alert(1)</script>',
            "a/../b@c d",
            "a, evil.example",
            "a,b",
            "chips evil",
            "chips/x",
            "chips?x",
        ),
        *(
            "chips#x",
            "u@chips",
            "chips:80:80",
            "chips:x",
            "chips:123456",
            "[::1",
            "::1",
            "[::1]x",
            "ch\\ips",
            "",
        ),
        *("<chips>", "chips\t.x", "ch%2fips", "-chips", "h\xe9"),
    ],
)
async def test_a_host_that_is_none(scene: Scene, host: str):
    backend = await scene.model()
    raw = scene.request().replace(b"Host: chips", b"Host: " + host.encode("latin-1"))
    assert_problem(await scene.raw(raw), 400, "bad-request")
    assert backend.seen == []


@pytest.mark.parametrize(
    "host", ["chips", "chips:8080", "a_b.example.com.", "[::1]:80", "127.0.0.1", "chips:"]
)
async def test_a_host_that_is_one(scene: Scene, host: str):
    backend = await scene.model()
    raw = scene.request().replace(b"Host: chips", b"Host: " + host.encode())
    assert (await scene.raw(raw)).status == 200
    assert backend.seen[0].get("X-Forwarded-Host") == host


@pytest.mark.parametrize("second", [b"\n", b"\n\r\n", b"\n\r\n\r"])
async def test_an_empty_line_in_two_pieces(scene: Scene, second: bytes):
    backend = await scene.model()
    caller = await scene.caller()
    await caller.send(scene.request())
    assert (await caller.answer()).status == 200
    await caller.send(b"\r")
    await asyncio.sleep(0.05)  # so that it arrives alone
    await caller.send(second)
    await asyncio.sleep(0.05)
    await caller.send((b"\n" if second.endswith(b"\r") else b"") + scene.request())
    assert (await caller.answer()).status == 200
    assert len(backend.seen) == 2


@pytest.mark.path("fast")  # on the other one aiohttp closes, as docs/threat-model.md says
@pytest.mark.parametrize("fields", [[("Connection", "close")], []])
async def test_what_still_comes_does_not_cut_the_last_answer(scene: Scene, fields: list[tuple[str, str]]):
    size = 6 * 1024 * 1024

    async def script(request: Message, peer: Peer) -> None:
        await peer.answer(200, b"x" * size)

    await scene.model(script=script)
    for _ in range(3):
        caller = await scene.caller()
        raw = scene.request(fields=fields)
        await caller.send(raw if fields else raw.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        head = await caller.reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head
        caller.writer.write(scene.request() * 200)  # and reads no answer
        answer = await caller.reader.read()
        assert len(answer) == size


CODES = {
    "a target too long": (b"POST /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: chips\r\n\r\n", 414, "target-too-long"),
    "a line too long": (b"POST /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: chips\r\n\r\n", 414, "target-too-long"),
    "too many fields": (b"POST /wine HTTP/1.1\r\nHost: chips\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431, "headers-too-large"),
    "a field too long": (b"POST /wine HTTP/1.1\r\nHost: chips\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", 431, "headers-too-large"),
    "an unknown method": (b"BREW /wine HTTP/1.1\r\nHost: chips\r\n\r\n", 501, "method-not-implemented"),
    "no method": (b"BR(W /wine HTTP/1.1\r\nHost: chips\r\n\r\n", 400, "bad-request"),
    "HTTP/2.0": (b"POST /wine HTTP/2.0\r\nHost: chips\r\n\r\n", 505, "version-not-supported"),
    "HTTP/3.0": (b"POST /wine HTTP/3.0\r\nHost: chips\r\n\r\n", 505, "version-not-supported"),
    "HTTP/0.9": (b"GET /wine HTTP/0.9\r\nHost: chips\r\n\r\n", 505, "version-not-supported"),
    "HTTP/0.9, simple": (b"GET /wine\r\n\r\n", 400, "bad-request"),
    "another protocol": (b"GET /wine RTSP/1.0\r\nHost: chips\r\n\r\n", 400, "bad-request"),
    "a bare LF head": (b"POST /wine HTTP/1.1\nHost: chips\n\n", 400, "bad-request"),
    "a bare CR head": (b"POST /wine HTTP/1.1\rHost: chips\r\r", 400, "bad-request"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "bad-request"),
    "HTTP/2 with prior knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 505, "version-not-supported"),
}  # fmt: skip


@pytest.mark.parametrize("case", CODES)
async def test_the_code_for_what_is_no_request(scene: Scene, case: str):
    raw, status, code = CODES[case]
    backend = await scene.model()
    caller = await scene.caller()
    await caller.send(raw)
    answer = await caller.answer()
    assert_problem(answer, status, code)
    if code != "target-too-long":  # one that could be framed leaves the connection as it was
        assert answer.get("Connection") == "close" or answer.first.startswith("HTTP/1.0")
    assert backend.connections == 0
    if "HTTP/2" in case:
        assert "HTTP/1.1" in answer.json()["detail"]


async def test_a_later_minor_version_is_treated_as_the_latest(scene: Scene):
    backend = await scene.model()
    caller = await scene.caller()
    await caller.send(scene.request().replace(b"HTTP/1.1", b"HTTP/1.2", 1))
    answer = await caller.answer()
    assert (answer.status, answer.first[:8]) == (200, "HTTP/1.1")
    assert backend.seen[0].first.endswith(" HTTP/1.1")
    await caller.send(scene.request())
    assert (await caller.answer()).status == 200


async def test_what_connection_names_ends_here_though_the_gateway_reads_it(scene: Scene):
    backend = await scene.model()
    trace = [
        ("traceparent", f"00-{'a' * 32}-{'b' * 16}-00"),
        ("tracestate", "x=1"),
        ("Authorization", "Basic eDp5"),
    ]
    for _ in range(2):  # the second time the head is known
        assert (await scene.call(fields=trace)).status == 200
        assert backend.seen[-1].get("tracestate") == "x=1"
        assert backend.seen[-1].get("Authorization") == "Basic eDp5"
        named = [*trace, ("Connection", "TraceState, authorization")]
        assert (await scene.call(fields=named)).status == 200
        assert backend.seen[-1].get("tracestate") is None
        assert backend.seen[-1].get("Authorization") is None


async def test_a_model_that_leads_back_here(scene: Scene):
    url = f"http://127.0.0.1:{scene.gateway.port}"
    for name, path in (("loop", "/loop"), ("ping", "/pong"), ("pong", "/ping")):
        await scene.put_model(
            Model(name=name, backends=(Backend(version="1", url=url, predict_path=path),), traffic={"1": 100},
                  policy=Policy(access="public"))
        )  # fmt: skip
    for name in ("loop", "ping"):
        answer = await scene.call("POST", f"/{name}")
        assert answer.status == 508
        assert answer.json()["code"] == "loop-detected"
        assert "leads here" in answer.json()["detail"]
    assert len(scene.log_lines()) == 4  # each request twice, and no more


async def test_via_names_all_who_passed_it_on(scene: Scene):
    backend = await scene.model()
    await scene.call(fields=[("Via", "1.0 fred, 1.1 chips"), ("Via", "1.1 google (x, y)")])
    via = backend.seen[0].get("Via") or ""
    assert via.startswith("1.0 fred, 1.1 chips, 1.1 google (x, y), 1.1 chips-")
    own = via.rpartition(" ")[2]
    assert_problem(await scene.call(fields=[("Via", f"1.1 {own.upper()}")]), 508, "loop-detected")
    assert (await scene.call(fields=[("Via", f"1.1 {own}x, 1.1 x{own}, {own}")])).status == 200


CHUNKS = b'5 ;a=b\r\nhello\r\n6\t ; a ; b="c"\r\n world\r\n0 ;x\r\n\r\n'


@pytest.mark.path("fast")  # aiohttp refuses the blank from callers, and takes it from backends
async def test_a_blank_before_a_chunk_extension(scene: Scene):
    async def script(request: Message, peer: Peer) -> None:
        await peer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS)

    backend = await scene.model(script=script)
    caller = await scene.caller()
    await caller.send(scene.request(body=None, fields=[("Transfer-Encoding", "chunked")]) + CHUNKS)
    answer = await caller.answer()
    assert (answer.status, answer.body, backend.seen[0].body) == (200, b"hello world", b"hello world")


@pytest.mark.parametrize("said", [b"", b"P", b"POST /wine HTTP/1.1\r\nHost: chi"])
async def test_a_caller_who_says_nothing_or_half_a_head(said: bytes):
    async with Scene(**{"server.header_timeout_s": "0.2", "server.keep_alive_s": "600"}) as scene:
        caller = await scene.caller()
        await caller.send(said)
        await asyncio.wait_for(caller.ended(), patience(30))


async def test_a_head_that_drips():
    async with Scene(**{"server.header_timeout_s": str(patience(0.3))}) as scene:
        caller = await scene.caller()
        await caller.send(scene.request(body=b""))
        assert (await caller.answer()).status == 404
        ended = asyncio.ensure_future(caller.ended())
        with contextlib.suppress(ConnectionError):
            while not ended.done():
                await caller.send(b"P")
                await asyncio.sleep(0.05)
        await ended


@pytest.mark.path("fast")  # aiohttp's client has put it back before it shows its head
async def test_a_204_that_announces_a_body_ends_its_connection(scene: Scene):
    announced = iter([b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"", b""])

    async def script(request: Message, peer: Peer) -> None:
        await peer.write(b"HTTP/1.1 204 No Content\r\n%b\r\n" % next(announced))

    backend = await scene.model(script=script)
    for expected in (1, 2, 3, 3):
        answer = await scene.call()
        assert (answer.status, answer.body, answer.get("Content-Length")) == (204, b"", None)
        assert backend.connections == expected


async def test_pages_may_read_which_model_answered(scene: Scene):

    await scene.model(policy=Policy(cors={"https://app.example.com": CorsRule()}))
    answer = await scene.call(fields=[("Origin", "https://app.example.com")])
    assert "X-Chips-Model" in (answer.get("Access-Control-Expose-Headers") or "")


async def test_the_plain_path_says_at_the_start_what_it_does_less(
    scene: Scene, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("WARNING")
    print_startup_banner(scene.gateway, scene.settings)
    assert ("docs/threat-model.md" in caplog.text) == (Scene.path == "plain")
