"""What is fuzzed: bytes in, an AssertionError or any other error out where the oracle is not content.

The first byte of an input says in what steps the rest arrives, the second what the other side is like.
"""

import asyncio
from collections.abc import Callable

from gateway.core.chunked import ChunkedDecoder
from tests.fuzz.harness import Backends, Callers, answers_in

_METHODS = ("POST", "HEAD", "GET")


def caller(data: bytes) -> None:
    """A caller's bytes into a server's connection."""
    loop = asyncio.new_event_loop()
    try:
        step, manner, raw = _taken_apart(data)
        callers = Callers(loop, late=bool(manner & 1), flowing=bool(manner & 2), blind=bool(manner & 4))
        callers.feed(raw, step)
        callers.release()
        answers = answers_in(callers.wire.written, callers.methods)
        good = [(target.encode() + b" " + body) for target, body in callers.seen]
        for index, (status, body) in enumerate(answers):
            if status == 200:
                assert body == (b"" if callers.methods[index] == "HEAD" else good[0])
                good.pop(0)
        assert not good, "a request without its answer"
        refused = [index for index, (status, _) in enumerate(answers) if status != 200]
        assert refused in ([], [len(answers) - 1]), "after a refusal nobody knows where a request would begin"
        if refused:
            assert callers.wire.closed or callers.wire.cut
        callers.leave()
    finally:
        loop.close()


def backend(data: bytes) -> None:
    """A backend's bytes into the connection that carries one request after the other."""
    step, manner, raw = _taken_apart(data)
    backends = Backends(_METHODS[manner % 3], upgrading=bool(manner & 64))
    for i in range(0, len(raw), step):
        backends.feed(raw[i : i + step], step)
        backends.check()
        if backends.pool.idle:
            assert backends.pool.acquire_idle() is backends.connection
            backends.start(_METHODS[i % 3])
    backends.end()
    backends.check()
    assert backends.came == 1, "somebody would wait for ever"


def chunks(data: bytes) -> None:
    """Chunks, whose end is where it is, however they arrive."""
    step, _, raw = _taken_apart(data)
    whole = _dechunked(raw, len(raw) or 1)
    assert _dechunked(raw, step) == whole


def _dechunked(raw: bytes, step: int) -> tuple[bytes, bool, bytes] | None:
    dechunker = ChunkedDecoder()
    body = b""
    for i in range(0, len(raw), step):
        try:
            body += b"".join(dechunker.feed(raw[i : i + step]))
        except ValueError:
            return None
        if dechunker.done:
            return body, True, dechunker.rest + raw[i + step :]
    return body, False, b""


def _taken_apart(data: bytes) -> tuple[int, int, bytes]:
    head = data[:2].ljust(2, b"\0")
    return head[0] + 1, head[1], data[2:]


TARGETS: dict[str, Callable[[bytes], None]] = {"caller": caller, "backend": backend, "chunks": chunks}
