"""What the fast path relies on in aiohttp's parser, which documents none of it. A release that changes it fails here."""

import asyncio
from collections.abc import Iterator

import aiohttp
import pytest

from gateway.core.errors import (
    BadRequest,
    CallerError,
    HeadersTooLarge,
    HttpVersionNotSupported,
    MethodNotImplemented,
    TargetTooLong,
)
from gateway.server.request_head_parser import HeadParser, parsed_head_of

HEAD = b"POST /wine?x=1 HTTP/1.1\r\nHost: chips\r\n"


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def parser(loop: asyncio.AbstractEventLoop) -> HeadParser:
    return HeadParser(loop, limit_bytes=8192)


def test_it_is_the_parser_in_c():
    from aiohttp import http_parser

    assert http_parser.HttpRequestParser is not http_parser.HttpRequestParserPy, (
        "aiohttp runs without its C parser"
    )
    assert aiohttp.__version__.startswith("3.14."), (
        "read gateway/server/request_head_parser.py before this bound is moved"
    )


def test_one_head_after_another_and_nothing_of_their_bodies(parser: HeadParser):
    for number in range(3):
        message = parser.parse(HEAD + b"X-N: %d \r\nContent-Length: 5\r\n\r\n" % number)
        assert (message.method, message.path, message.should_close) == ("POST", "/wine?x=1", False)
        assert message.raw_headers == (
            (b"Host", b"chips"),
            (b"X-N", b"%d" % number),
            (b"Content-Length", b"5"),
        )
        assert parsed_head_of(message).length == 5
    chunked = parser.parse(HEAD + b"transfer-encoding: Chunked\r\nexpect: 100-Continue\r\n\r\n")
    assert parsed_head_of(chunked).length is None
    assert parsed_head_of(chunked).expects
    assert parsed_head_of(parser.parse(HEAD + b"\r\n")).length == 0
    assert not parser.parse(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").should_close


@pytest.mark.parametrize("head", [HEAD + b"Connection: close\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n"])
def test_the_last_request_of_a_connection(parser: HeadParser, head: bytes):
    assert parser.parse(head).should_close


def test_an_upgrade_does_not_end_http(parser: HeadParser):
    for _ in range(2):
        message = parser.parse(HEAD + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        assert message.upgrade
    assert parser.parse(HEAD + b"\r\n").method == "POST"


REFUSED = [
    HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
    HEAD + b"Content-Length: 5, 5\r\n\r\n",
    HEAD + b"Content-Length: +5\r\n\r\n",
    HEAD + b"Content-Length: -5\r\n\r\n",
    HEAD + b"Content-Length: 5_0\r\n\r\n",
    HEAD + b"Content-Length: 0x5\r\n\r\n",
    HEAD + b"Content-Length: \r\n\r\n",
    HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\t\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked \t\r\n\r\n",
    HEAD + b"Transfer-Encoding: ,chunked\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked,\r\n\r\n",
    HEAD + b"Transfer-Encoding: \r\n\r\n",
    HEAD + b"Transfer-Encoding: \r\nContent-Length: 5\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked;q=1\r\n\r\n",
    HEAD + b"Transfer-Encoding: \xa0chunked\r\n\r\n",
    HEAD + b"Transfer-Encoding: xchunked\r\n\r\n",
    HEAD + b"Transfer-Encoding: identity\r\n\r\n",
    HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n",
    HEAD + b'Transfer-Encoding: "chunked"\r\n\r\n',
    HEAD + b"Transfer-Encoding : chunked\r\n\r\n",
    HEAD + b"X: a\r\n b\r\n\r\n",
    HEAD + b"X: a\nY: b\r\n\r\n",
    HEAD + b"X: a\rY: b\r\n\r\n",
    HEAD + b"X: a\0b\r\n\r\n",
    HEAD + b"X\0: a\r\n\r\n",
    HEAD + b"X\xff: a\r\n\r\n",
    HEAD + b": a\r\n\r\n",
    HEAD + b"X\r\n\r\n",
    HEAD + b"Host: other\r\n\r\n",
    b"POST /wine HTTP/1.1\r\n\r\n",
    b"POST /wine HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST /wine HTTP/2.0\r\nHost: x\r\n\r\n",
    b"POST /wine HTTP/0.9\r\nHost: x\r\n\r\n",
    b"POST /wine\r\nHost: x\r\n\r\n",
    b"POST /wi ne HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST\t/wine HTTP/1.1\r\nHost: x\r\n\r\n",
    b"P(ST /wine HTTP/1.1\r\nHost: x\r\n\r\n",
    HEAD + b"X: y\r\n" * 200 + b"\r\n",
]


@pytest.mark.parametrize("head", REFUSED)
def test_what_it_refuses(parser: HeadParser, head: bytes):
    with pytest.raises(CallerError):
        parsed_head_of(parser.parse(head))


OTHER_CODES = {
    b"POST /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n": TargetTooLong,
    HEAD + b"X: " + b"a" * 9000 + b"\r\n\r\n": HeadersTooLarge,
    HEAD + b"X" * 9000 + b": a\r\n\r\n": HeadersTooLarge,
    HEAD + b"X: y\r\n" * 129 + b"\r\n": HeadersTooLarge,
    b"BREW /wine HTTP/1.1\r\nHost: x\r\n\r\n": MethodNotImplemented,
    b"post /wine HTTP/1.1\r\nHost: x\r\n\r\n": MethodNotImplemented,
    b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n": BadRequest,
    b"GET /wine HTTP/2.0\r\nHost: x\r\n\r\n": HttpVersionNotSupported,
    b"GET /wine HTTP/3.0\r\nHost: x\r\n\r\n": HttpVersionNotSupported,
    b"GET /wine HTTP/0.9\r\nHost: x\r\n\r\n": HttpVersionNotSupported,
    b"PRI * HTTP/2.0\r\n\r\n": HttpVersionNotSupported,
    b"GET /wine RTSP/1.0\r\nHost: x\r\n\r\n": BadRequest,
    b"GET  /wine HTTP/1.1\r\nHost: x\r\n\r\n": BadRequest,
    b"GET /wine HTTP/1.10\r\nHost: x\r\n\r\n": BadRequest,
    b"GET /wine http/1.1\r\nHost: x\r\n\r\n": BadRequest,
    b"GET /wine\r\nHost: x\r\n\r\n": BadRequest,
}


@pytest.mark.parametrize("head", OTHER_CODES)
def test_the_standards_code_for_what_is_refused(parser: HeadParser, head: bytes):
    with pytest.raises(OTHER_CODES[head]):
        parsed_head_of(parser.parse(head))


def test_a_later_minor_version_is_read_as_the_latest_that_is_known(parser: HeadParser):
    parsed = parsed_head_of(parser.parse(b"GET /wine HTTP/1.2\r\nHost: x\r\n\r\n"))
    assert (parsed.version_11, parsed.closes) == (True, False)


BLANKS = [b"", b" ", b"\t", b" \t ", b"  "]


@pytest.mark.parametrize("before", BLANKS)
@pytest.mark.parametrize("after", BLANKS)
def test_a_coding_is_read_as_the_parser_reads_it_or_refused(parser: HeadParser, before: bytes, after: bytes):
    """Blanks around a value mean nothing, but the parser, which sees them, may not agree."""
    for value, length in ((b"Transfer-Encoding:%bchunked%b", None), (b"Content-Length:%b7%b", 7)):
        head = HEAD + value % (before, after) + b"\r\n\r\n"
        try:
            message = parser.parse(head)
            parsed = parsed_head_of(message)
        except BadRequest:
            continue
        assert parsed.length == length
        assert message.chunked == (length is None)


@pytest.mark.parametrize(
    "value", [b"close", b"CLOSE", b"x,close", b"close\t", b"x , \tclose ,", b"keep-alive, close"]
)
def test_close_however_it_is_written(loop: asyncio.AbstractEventLoop, value: bytes):
    for before in (b"", b"Connection: x\r\n"):
        parser = HeadParser(loop, limit_bytes=8192)
        assert parsed_head_of(parser.parse(HEAD + before + b"Connection: " + value + b"\r\n\r\n")).closes
