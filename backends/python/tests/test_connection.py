# Long: what may happen on one connection, from its first bytes to its end, in one scene.
"""HTTP/1.1 on a connection: what one caller may send in which pieces, and what comes back, on either event loop."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from aiohttp.http_exceptions import HttpProcessingError
from chips_backend import connection, testing
from chips_backend.problem_details import Problem, bad_request
from chips_backend.request_context import RequestContext
from chips_backend.response import Response
from chips_backend.server import Server, listen

GET = b"GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n"
CLOSE = b"Connection: close\r\n"
CHUNKED = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n%s\r\n"


def post(body: bytes, more: bytes = b"", path: bytes = b"/echo") -> bytes:
    return b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n%s" % (path, len(body), more, body)


class Echo:
    """Answers with the body. `/held` waits for `gate`, `/unread` does not read the body; `/large` answers with more than is sent at once."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.began: list[str] = []
        self.left: list[str] = []

    async def __call__(self, call: RequestContext) -> Response:
        self.began.append(call.path)
        if call.path == "/unread":
            return Response(413, "", b"too large")
        try:
            body = await call.read_body(1_000_000)
            if call.path == "/held":
                await self.gate.wait()
        except Problem as problem:
            return Response(problem.status, "", problem.code.encode())
        except asyncio.CancelledError:
            self.left.append(call.path)
            raise
        return Response(200, "X-Field: 1\r\n", b"x" * 1_000_000 if call.path == "/large" else body)

    def refuse(self, error: HttpProcessingError) -> Response:
        problem = bad_request(error)
        return Response(problem.status, "", problem.code.encode())


class Scene:
    """A server, and callers of it."""

    def __init__(self, app: Echo, server: Server) -> None:
        self.app = app
        self.server = server

    @asynccontextmanager
    async def caller(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.addresses[0][1])
        try:
            yield reader, writer
        finally:
            writer.close()

    async def raw(self, *parts: bytes) -> bytes:
        """All that comes back for these bytes until the connection is closed. The parts come apart, or some together."""
        async with self.caller() as (reader, writer):
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.005)  # so that most come apart; nothing depends on it
            return await reader.read()

    async def begun(self, count: int) -> None:
        await self.until(lambda: len(self.app.began) == count)

    async def until(self, holds: Callable[[], Any]) -> None:
        async with asyncio.timeout(testing._PATIENCE_S):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(0.002)


@pytest.fixture(params=["asyncio", "uvloop"])
def play(request, monkeypatch) -> Callable[[Callable[[Scene], Awaitable[None]]], None]:
    """Run a scenario on one of the event loops."""
    # However long a caller stands still: where the end of it matters, the test says how long that is.
    monkeypatch.setattr(connection, "_LINGER_S", testing._PATIENCE_S)

    async def served(scenario: Callable[[Scene], Awaitable[None]]) -> None:
        app = Echo()
        server = await listen(app, 0, stop_grace_s=5)
        try:
            async with asyncio.timeout(testing._PATIENCE_S):
                await scenario(Scene(app, server))
        finally:
            app.gate.set()
            await server.cleanup()

    def run(scenario: Callable[[Scene], Awaitable[None]]) -> None:
        factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(served(scenario))

    return run


async def response(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head and body of the next response."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    return head, await reader.readexactly(length)


def bodies(received: bytes) -> list[bytes]:
    """The bodies of responses, one after the other."""
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        found.append(rest[:length])
        received = rest[length:]
    return found


@pytest.mark.parametrize(
    "parts",
    [
        [post(b"body", CLOSE)],
        [post(b"body", CLOSE)[:-4], b"body"],
        [bytes([byte]) for byte in post(b"body", CLOSE)],
        [b"\r\n" + post(b"body", CLOSE)],
        [CHUNKED % CLOSE + b"2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n"],
        [CHUNKED % CLOSE, b"2\r\nb", b"o\r\n2\r\n", b"dy\r\n0\r\n", b"\r\n"],
        [b"POST /echo HTTP/1.0\r\nContent-Length: 4\r\n\r\nbody"],
    ],
    ids=["at once", "body later", "byte by byte", "empty line", "chunks", "chunks later", "1.0"],
)
def test_a_request_in_any_pieces(play, parts):
    async def scenario(scene: Scene) -> None:
        received = await scene.raw(*parts)
        assert received.startswith(b"HTTP/1.1 200 OK\r\nX-Field: 1\r\nContent-Length: 4\r\nDate: ")
        assert b"\r\nConnection: close\r\n" in received
        assert bodies(received) == [b"body"]

    play(scenario)


def test_requests_follow_each_other_on_one_connection(play):
    """More of them than may wait, with a body that comes at once, later, or in chunks: none is counted twice, or left in the parser."""

    async def scenario(scene: Scene) -> None:
        async with scene.caller() as (reader, writer):
            for number in range(3 * connection._MOST_QUEUED):
                body = b"%d" % number
                kind = number % 3
                if kind == 0:
                    writer.write(post(body))
                elif kind == 1:
                    writer.write(post(body)[: -len(body)])
                    await writer.drain()
                    await scene.begun(number + 1)
                    writer.write(body)
                else:
                    writer.write(CHUNKED % b"" + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
                head, got = await response(reader)
                assert got == body
                assert b"Connection:" not in head

    play(scenario)


@pytest.mark.parametrize("count", [2, connection._MOST_QUEUED, 5 * connection._MOST_QUEUED + 1])
@pytest.mark.parametrize("path", [b"/echo", b"/held"])
def test_requests_that_come_together_are_answered_in_order(play, count, path):
    async def scenario(scene: Scene) -> None:
        requests = [post(b"%d" % number, path=path) for number in range(count - 1)]
        requests.append(post(b"%d" % (count - 1), CLOSE, path=path))
        async with scene.caller() as (reader, writer):
            writer.write(b"".join(requests))
            await scene.until(lambda: scene.app.began)
            scene.app.gate.set()
            assert bodies(await reader.read()) == [b"%d" % number for number in range(count)]

    play(scenario)


def test_a_caller_who_does_not_read_is_not_answered_further(play):
    async def scenario(scene: Scene) -> None:
        count = 30  # answers of 1 MB each
        async with scene.caller() as (reader, writer):
            writer.write((GET % (b"/large", b"")) * (count - 1) + GET % (b"/large", CLOSE))
            await scene.until(lambda: scene.app.began)
            await asyncio.sleep(0.05)  # in which too many could begin; nothing fails where it is too short
            assert len(scene.app.began) < count
            assert len(bodies(await reader.read())) == count

    play(scenario)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"GARBAGE\r\n\r\n", b"bad-request"),
        (b"GET /echo\r\n\r\n", b"bad-request"),
        (b"GET /echo HTTP/0.9\r\n\r\n", b"bad-request"),
        (b"GET /echo HTTP/2.0\r\n\r\n", b"bad-request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", b"headers-too-large"),
    ],
)
def test_what_is_no_request_is_refused_behind_the_answers_to_what_was(play, sent, code):
    async def scenario(scene: Scene) -> None:
        assert bodies(await scene.raw(sent)) == [code]
        async with scene.caller() as (reader, writer):
            writer.write(post(b"good"))
            assert (await response(reader))[1] == b"good"
            writer.write(sent)
            assert bodies(await reader.read()) == [code]
        async with scene.caller() as (reader, writer):  # while one is under way
            writer.write(post(b"held", path=b"/held"))
            await scene.until(lambda: "/held" in scene.app.began)
            writer.write(sent)
            await writer.drain()
            scene.app.gate.set()
            assert bodies(await reader.read()) == [b"held", code]

    play(scenario)


def test_a_body_that_breaks_off_in_nonsense_is_refused(play):
    async def scenario(scene: Scene) -> None:
        received = await scene.raw(CHUNKED % b"" + b"2\r\nbo\r\n", b"zz\r\n", post(b"not answered"))
        assert received.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert bodies(received) == [b"bad-request"]

    play(scenario)


def test_the_rest_of_a_body_that_nobody_read_is_not_the_next_request(play):
    async def scenario(scene: Scene) -> None:
        head = post(b"", b"", b"/unread").replace(b"Content-Length: 0", b"Content-Length: 300000")
        received = await scene.raw(head, *[post(b"smuggled").ljust(100_000)] * 3)
        assert received.startswith(b"HTTP/1.1 413 ")
        assert bodies(received) == [b"too large"]
        assert scene.app.began == ["/unread"]

    play(scenario)


@pytest.mark.parametrize("upgrade", [b"websocket", b"h2c", b"foo"])
def test_an_upgrade_is_not_taken_and_the_connection_ends(play, upgrade):
    async def scenario(scene: Scene) -> None:
        asks = b"Connection: Upgrade\r\nUpgrade: %s\r\n" % upgrade
        for sent in (post(b"1", asks), post(b"1", asks) + post(b"2")):
            received = await scene.raw(sent)
            assert received.startswith(b"HTTP/1.1 200 ")
            assert b"\r\nConnection: close\r\n" in received
            assert bodies(received) == [b"1"]

    play(scenario)


def test_http_1_0_is_kept_where_it_asks_for_that(play):
    async def scenario(scene: Scene) -> None:
        async with scene.caller() as (reader, writer):
            for _ in range(3):
                writer.write(
                    b"POST /echo HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\nbody"
                )
                head, body = await response(reader)
                assert (b"\r\nConnection: keep-alive\r\n" in head, body) == (True, b"body")

    play(scenario)


def test_chunks_end_a_connection_of_http_1_0(play):
    """It has none, and others may see the end of the request elsewhere (RFC 9112, section 6.1)."""

    async def scenario(scene: Scene) -> None:
        sent = (CHUNKED % b"Connection: keep-alive\r\n").replace(b"HTTP/1.1", b"HTTP/1.0")
        received = await scene.raw(sent + b"4\r\nbody\r\n0\r\n\r\n" + post(b"not answered"))
        assert b"\r\nConnection: close\r\n" in received
        assert bodies(received) == [b"body"]

    play(scenario)


def test_behind_a_length_that_the_parser_forgets_nothing_is_waited_for(play):
    async def scenario(scene: Scene) -> None:
        received = await scene.raw(GET % (b"/unread", b"Content-Length: %d\r\n" % (2**64 - 1)), post(b"lost"))
        assert bodies(received) == [b"too large"]

    play(scenario)


def test_a_body_that_does_not_come_in_time_is_waited_for_no_more(play):
    async def scenario(scene: Scene) -> None:
        received = await scene.raw(post(b"body", b"X-Request-Timeout: 20\r\n")[:-1])
        assert received.startswith(b"HTTP/1.1 504 ")
        assert bodies(received) == [b"deadline-exceeded"]

    play(scenario)


def test_a_target_may_be_an_absolute_url(play):
    async def scenario(scene: Scene) -> None:
        await scene.raw(GET % (b"http://x/one?two", CLOSE))
        assert scene.app.began == ["/one"]

    play(scenario)


def test_an_answer_to_head_has_no_body(play):
    async def scenario(scene: Scene) -> None:
        received = await scene.raw(
            b"HEAD /large HTTP/1.1\r\nHost: x\r\n\r\nHEAD /large HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n"
        )
        heads = received.split(b"\r\n\r\n")
        assert len(heads) == 3
        assert heads[2] == b""
        assert all(b"Content-Length: 1000000\r\n" in head for head in heads[:2])

    play(scenario)


@pytest.mark.parametrize("path", ["/held", "/echo"])
def test_who_leaves_is_waited_for_no_more(play, path):
    """In a wait of the app, and in the middle of a body."""

    async def scenario(scene: Scene) -> None:
        async with scene.caller() as (_, writer):
            sent = post(b"whole", path=path.encode())
            writer.write(sent if path == "/held" else sent[:-1])
            await scene.until(lambda: scene.app.began)
        await scene.until(lambda: scene.app.left)
        assert scene.app.left == [path]

    play(scenario)


def test_at_the_end_what_runs_is_finished_and_what_idles_is_closed(play):
    async def scenario(scene: Scene) -> None:
        async with scene.caller() as (idle, _), scene.caller() as (reader, writer):
            writer.write(post(b"held", path=b"/held"))
            await scene.until(lambda: scene.app.began)
            stopping = asyncio.create_task(scene.server.cleanup())
            assert await idle.read() == b""
            assert not stopping.done()
            scene.app.gate.set()
            received = await reader.read()
            assert bodies(received) == [b"held"]
            assert b"\r\nConnection: close\r\n" in received
            await stopping

    play(scenario)


def test_at_the_end_nothing_begins_for_who_has_not_read_the_last_answer(play):
    async def scenario(scene: Scene) -> None:
        async with scene.caller() as (reader, writer):
            writer.write((GET % (b"/large", b"")) * 30)
            await scene.until(lambda: any(one._paused and one._queue for one in scene.server._open))
            stopping = asyncio.create_task(scene.server.cleanup())
            await scene.until(lambda: scene.server.draining)
            begun = len(scene.app.began)
            assert len(bodies(await reader.read())) == begun
            assert len(scene.app.began) == begun
            await stopping

    play(scenario)


def test_who_was_accepted_before_the_end_is_closed_too(play):
    """The connection comes from the loop after all others have been closed."""

    async def scenario(scene: Scene) -> None:
        async with scene.caller() as (held, writer):
            writer.write(post(b"held", path=b"/held"))
            await scene.until(lambda: scene.app.began)
            stopping = asyncio.create_task(scene.server.cleanup())
            await scene.until(lambda: scene.server.draining)
            near, far = socket.socketpair()
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(
                lambda: connection.Connection(scene.app, scene.server, loop), near
            )
            reader, late = await asyncio.open_connection(sock=far)
            assert await reader.read() == b""
            late.close()
            scene.app.gate.set()
            assert bodies(await held.read()) == [b"held"]
            await stopping

    play(scenario)


def test_at_the_end_what_does_not_end_is_ended_after_the_grace(play):
    async def scenario(scene: Scene) -> None:
        scene.server._stop_grace_s = 0.01
        async with scene.caller() as (_, writer):
            writer.write(post(b"held", path=b"/held"))
            await scene.until(lambda: scene.app.began)
            await scene.server.cleanup()
            await scene.until(lambda: scene.app.left == ["/held"])

    play(scenario)


@pytest.mark.parametrize("more", [b"", CLOSE])
def test_who_never_reads_the_answer_is_left_in_the_end(play, monkeypatch, more):
    monkeypatch.setattr(connection, "_LINGER_S", 0.0)

    async def scenario(scene: Scene) -> None:
        async with scene.caller() as (_, writer):
            writer.write((GET % (b"/large", b"")) * 20 + GET % (b"/large", more))
            await scene.until(lambda: any(one._paused for one in scene.server._open))
            (one,) = scene.server._open
            monkeypatch.setattr(connection, "_IDLE_S", 0.0)
            one._idle_since -= 1
            if more:
                one._linger()
            else:
                one._check_idle()
            await scene.until(lambda: not scene.server._open)

    play(scenario)


def test_a_connection_that_idles_is_closed(play):
    async def scenario(scene: Scene) -> None:
        async with scene.caller() as (reader, writer):
            writer.write(post(b"held", path=b"/held"))
            await scene.until(lambda: scene.app.began)
            (one,) = scene.server._open
            one._idle_since -= 2 * connection._IDLE_S
            one._check_idle()
            scene.app.gate.set()
            _, body = await response(reader)
            assert body == b"held"
            one._check_idle()
            writer.write(post(b"again"))
            _, body = await response(reader)
            assert body == b"again"
            one._idle_since -= 2 * connection._IDLE_S
            one._check_idle()
            assert await reader.read() == b""

    play(scenario)
