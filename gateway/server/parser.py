"""aiohttp's C parser as the judge of every request head: the one file here that touches what aiohttp does not document.

It is given heads alone (`response_with_body=False` makes it take the empty line for the end of the message); bodies are
framed by `gateway.server.request_body`. What the parser leaves to its body reader is checked here. `check_parser`, which the
tests call, fails loudly where a release of aiohttp changes what this relies on.
"""

import asyncio
from typing import Any, Final

from aiohttp import HttpVersion10, HttpVersion11
from aiohttp.hdrs import CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.http_parser import HttpRequestParser

from gateway.core.errors import BadRequest, GatewayError, HeadersTooLarge
from gateway.core.head_cache import ParsedHead

_MAX_FIELDS: Final = 128
_VERSIONS: Final = (HttpVersion11, HttpVersion10)


class _NoProtocol:
    """Stands where the parser expects a protocol to pause; with heads alone there is nothing to pause."""


class HeadParser:
    __slots__ = ("_limit_bytes", "_loop", "_parser")

    def __init__(self, loop: asyncio.AbstractEventLoop, *, limit_bytes: int) -> None:
        self._loop = loop
        self._limit_bytes = limit_bytes
        self._parser = self._make()

    def _make(self) -> HttpRequestParser:
        return HttpRequestParser(
            _NoProtocol(),  # type: ignore[arg-type]
            self._loop,
            2**16,
            max_line_size=self._limit_bytes,
            max_field_size=self._limit_bytes,
            max_headers=_MAX_FIELDS,
            auto_decompress=False,
            response_with_body=False,
        )

    def read(self, head: bytes) -> Any:
        """Read one whole head, its empty line included, into aiohttp's message. Raises BadRequest or HeadersTooLarge.

        The message is of a type of the C parser's that no stub names.
        """
        try:
            messages, upgraded, tail = self._parser.feed_data(head)
        except HttpProcessingError as error:
            self._parser = self._make()
            raise refusal_of(error) from error
        if upgraded:
            self._parser = self._make()  # it thinks that HTTP is over here; whether it is, is not its to say
        if len(messages) != 1 or tail:
            raise BadRequest("The request is not valid HTTP/1.1.")
        message: Any = messages[0][0]
        coding = message.headers.get(TRANSFER_ENCODING)
        # The parser takes any list that ends in "chunked", and what it does not know without a word.
        if coding is not None and (coding.lower() != "chunked" or message.version != HttpVersion11):
            raise BadRequest("The only transfer coding this gateway reads is chunked, in HTTP/1.1.")
        if message.version not in _VERSIONS:
            raise BadRequest("The request is not valid HTTP/1.1 or HTTP/1.0.")
        return message


def parsed_head_of(message: Any) -> ParsedHead:
    length = None if message.chunked else int(message.headers.get(CONTENT_LENGTH, 0))
    version_11 = message.version == HttpVersion11
    expects = version_11 and message.headers.get(EXPECT, "").lower() == "100-continue"
    return ParsedHead(
        message.method, message.path, version_11, message.should_close, expects, message.raw_headers, length
    )


def refusal_of(error: BaseException | None) -> GatewayError:
    """What a caller is told about a head that cannot be parsed."""
    if isinstance(error, LineTooLong):
        return HeadersTooLarge("The request line or a header field is longer than this gateway takes.")
    return BadRequest("The request is not valid HTTP/1.1.")
