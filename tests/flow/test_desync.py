"""Request smuggling: the cases of published desync research, each played with a second request hidden behind the first.

Sources: Heled & Linhart (2005), Kettle's "HTTP Desync Attacks" (2019), "Browser-Powered Desync" (2022) and "HTTP/1.1 must
die" (2025), and the chunk-extension research of 2025. What must hold: the hidden request never reaches a backend.
"""

import pytest

from tests.flow.scene import Scene

HIDDEN = b"POST /wine/hidden HTTP/1.1\r\nHost: chips\r\nX-Api-Key: @KEY@\r\nContent-Length: 0\r\n\r\n"
N = len(HIDDEN)

# In each, HIDDEN is inside what an honest reading takes for the first request's body, or the whole is refused.
CASES = {
    "CL.TE": b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n@@" % (N + 5),
    "TE.CL": b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n%x\r\n@@\r\n0\r\n\r\n" % N,
    "TE.TE, two": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n@@",
    "TE, a space before the colon": b"Transfer-Encoding : chunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n@@"
    % (N + 5),
    "TE, a tab": b"Transfer-Encoding:\tchunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n@@" % (N + 5),
    "TE, a vertical tab": b"Transfer-Encoding: \x0bchunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n@@"
    % (N + 5),
    "TE, folded": b"Transfer-Encoding:\r\n chunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n@@" % (N + 5),
    "TE, a bare LF before": b"X: y\nTransfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n@@"
    % (N + 5),
    "TE, a bare CR before": b"X: y\rTransfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n@@"
    % (N + 5),
    "TE, xchunked": b"Transfer-Encoding: xchunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n@@" % (N + 5),
    "TE, identity": b"Transfer-Encoding: identity\r\nContent-Length: %d\r\n\r\n0\r\n\r\n@@" % (N + 5),
    "TE, chunked and more": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n@@",
    "TE, more and chunked": b"Transfer-Encoding: identity, chunked\r\n\r\n%x\r\n@@\r\n0\r\n\r\n" % N,
    "TE, quoted": b'Transfer-Encoding: "chunked"\r\nContent-Length: %d\r\n\r\n0\r\n\r\n@@' % (N + 5),
    "TE, with an underscore": b"Transfer_Encoding: chunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n@@"
    % (N + 5),
    "TE, nominated": b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n@@\r\n0\r\n\r\n"
    % N,
    "CL, nominated": b"Connection: Content-Length\r\nContent-Length: %d\r\n\r\n@@" % N,
    "two CL": b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n@@" % N,
    "CL, a list": b"Content-Length: 0, %d\r\n\r\n@@" % N,
    "CL, signed": b"Content-Length: +%d\r\n\r\n@@" % N,
    "CL, padded": b"Content-Length: 0%d\r\n\r\n@@" % N,
    "CL, hexadecimal": b"Content-Length: 0x%x\r\n\r\n@@" % N,
    "CL, an underscore": b"Content_Length: 0\r\nContent-Length: %d\r\n\r\n@@" % N,
    "CL, a space before the colon": b"Content-Length : 0\r\nContent-Length: %d\r\n\r\n@@" % N,
    "CL, a NUL": b"Content-Length: %d\0\r\n\r\n@@" % N,
    "0.CL by Expect": b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n@@" % N,
    "Expect, obfuscated": b"Expect: y 100-continue\r\nContent-Length: %d\r\n\r\n@@" % N,
    "a chunk extension that holds a line": b"Transfer-Encoding: chunked\r\n\r\n%x;a=\n@@\r\n0\r\n\r\n" % N,
    "a chunk extension with a bare CR": b"Transfer-Encoding: chunked\r\n\r\n%x;a\rb\r\n@@\r\n0\r\n\r\n" % N,
    "a chunk that ends in LF": b"Transfer-Encoding: chunked\r\n\r\n%x\n@@\r\n0\r\n\r\n" % N,
    "a chunk longer than its size": b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n@@",
    "a size that overflows": b"Transfer-Encoding: chunked\r\n\r\n1000000000000000%x\r\n@@\r\n0\r\n\r\n" % N,
    "a size with a sign": b"Transfer-Encoding: chunked\r\n\r\n-%x\r\n@@\r\n0\r\n\r\n" % N,
    "a size with 0x": b"Transfer-Encoding: chunked\r\n\r\n0x%x\r\n@@\r\n0\r\n\r\n" % N,
    "a trailer that is a length": b"Transfer-Encoding: chunked\r\n\r\n%x\r\n@@\r\n0\r\nContent-Length: 5\r\n\r\n"
    % N,
    "h2c": b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AA\r\nContent-Length: %d\r\n\r\n@@"
    % N,
    "a websocket with a body": b"Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: %d\r\n\r\n@@"
    % N,
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_the_hidden_request_stays_hidden(scene: Scene, case: str, method: str):
    backend = await scene.model()
    key = scene.key.encode()
    hidden = HIDDEN.replace(b"@KEY@", b"k" * 5)
    head = b"%b /wine/first HTTP/1.1\r\nHost: chips\r\nX-Api-Key: %b\r\n" % (method.encode(), key)
    caller = await scene.caller()
    assert len(hidden) == N
    await caller.send(head + CASES[case].replace(b"@@", hidden))
    caller.writer.write_eof()
    await caller.ended()
    assert [seen.target for seen in backend.seen] in ([], ["/first"]), case
    for seen in backend.seen:
        assert not (seen.get("Content-Length") and seen.get("Transfer-Encoding"))
        assert seen.get("Connection") is None or seen.get("Connection") == "Upgrade"
    await scene.still_good(backend)


@pytest.mark.parametrize(
    "name", ["Host", "X-Api-Key", "X-Forwarded-For", "X-Chips-Caller", "traceparent", "Via"]
)
async def test_connection_cannot_take_away_what_the_gateway_says(scene: Scene, name: str):
    backend = await scene.model()
    answer = await scene.call(fields=[("Connection", f"close, {name}")])
    assert answer.status == 200
    (seen,) = backend.seen
    for ours in ("Host", "X-Forwarded-For", "X-Chips-Caller", "traceparent", "Via", "X-Request-Id"):
        assert seen.get(ours), (name, ours)
