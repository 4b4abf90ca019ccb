"""aiohttp's C parser as the judge of every request head: the one file here that touches what aiohttp does not document.

It is given heads alone (`response_with_body=False` makes it take the empty line for the end of the message); bodies are
framed by `gateway.server.body`. What the parser leaves to its body reader is checked here. `check_parser`, which the
tests call, fails loudly where a release of aiohttp changes what this relies on.
"""

import asyncio
from typing import Final, NamedTuple

from aiohttp import HttpVersion11
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.http_parser import HttpRequestParser

from gateway.core.errors import BadRequest, GatewayError, HeadersTooLarge

_MAX_FIELDS: Final = 128


class RequestHead(NamedTuple):
    method: str
    target: str
    version_11: bool
    fields: tuple[tuple[bytes, bytes], ...]
    close: bool  # the connection ends after this request
    length: int | None  # of the body; None where it comes in chunks


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

    def read(self, head: bytes) -> RequestHead:
        """Read one whole head, its empty line included. Raises BadRequest or HeadersTooLarge."""
        try:
            messages, upgraded, tail = self._parser.feed_data(head)
        except HttpProcessingError as error:
            self._parser = self._make()
            raise refusal_of(error) from error
        if upgraded:
            self._parser = self._make()  # it thinks that HTTP is over here; whether it is, is not its to say
        if len(messages) != 1 or tail:
            raise BadRequest("The request is not valid HTTP/1.1.")
        message = messages[0][0]
        length: int | None = 0
        if message.chunked:
            length = None
        for name, value in message.raw_headers:
            size = len(name)
            if size == 14 and name.lower() == b"content-length":
                length = int(value)
            elif size == 17 and name.lower() == b"transfer-encoding" and value.lower() != b"chunked":
                # The parser takes any list that ends in "chunked", and what it does not know without a word.
                raise BadRequest("The only transfer coding this gateway reads is chunked.")
        version = message.version
        version_11 = version == HttpVersion11
        if not version_11 and (version.major != 1 or length is None):
            raise BadRequest("The request is not valid HTTP/1.1 or HTTP/1.0.")
        return RequestHead(
            message.method, message.path, version_11, message.raw_headers, message.should_close, length
        )


def refusal_of(error: BaseException | None) -> GatewayError:
    """What a caller is told about a head that cannot be parsed."""
    if isinstance(error, LineTooLong):
        return HeadersTooLarge("The request line or a header field is longer than this gateway takes.")
    return BadRequest("The request is not valid HTTP/1.1.")
