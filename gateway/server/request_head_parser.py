"""Parse the request heads of the fast path with aiohttp's C parser.

This is the one file on the fast path that touches what aiohttp does not document. The parser is given heads alone (`response_with_body=False` makes it take the empty line for the end of the message);
`gateway.server.request_body` frames the bodies. `gateway.server.request_framing` judges what the parser forgives or leaves to its
body reader. tests/unit/server/test_request_head_parser.py fails loudly where a release of aiohttp changes what this relies on.
"""

import asyncio
from typing import Any

from aiohttp import HttpVersion11
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser

from gateway.core.errors import BadRequest
from gateway.core.head_template_cache import ParsedHead
from gateway.server.request_framing import (
    MAX_FIELDS,
    determine_framing,
    error_for_refused_head,
    parse_minor_version,
)


class _NoProtocol:
    """Stands where the parser expects a protocol to pause; with heads alone there is nothing to pause."""


class HeadParser:
    """Parses request heads with aiohttp's C parser."""

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
            max_headers=MAX_FIELDS,
            auto_decompress=False,
            response_with_body=False,
        )

    def parse(self, head: bytes) -> Any:
        """Parse one whole request head, or raise the CallerError that answers it.

        `head` includes its empty line. The result is aiohttp's message, of a type of the C parser that no stub names.
        """
        line, end, fields = head.partition(b"\r\n")
        if (
            parse_minor_version(line) > 1
        ):  # RFC 9110 section 6.2: a higher minor version is read as the highest we know
            head = line[:-1] + b"1" + end + fields
        try:
            messages, upgraded, tail = self._parser.feed_data(head)
        except HttpProcessingError as error:
            self._parser = self._make()
            raise error_for_refused_head(error, line, self._limit_bytes) from error
        if upgraded:
            self._parser = self._make()  # it thinks that HTTP is over here; whether it is, is not its to say
        if len(messages) != 1 or tail:
            raise BadRequest("The request is not valid HTTP/1.1.")
        return messages[0][0]


def parsed_head_of(message: Any) -> ParsedHead:
    """Convert aiohttp's parsed `message` to a ParsedHead. Raises a CallerError where the head or the parser leaves a doubt."""
    version_11 = message.version == HttpVersion11
    length, closes, expects = determine_framing(message.method, message.raw_headers, version_11=version_11)
    if message.chunked != (length is None):  # the parser read the coding as another one, or as none
        raise BadRequest("The request's Transfer-Encoding must be exactly: chunked.")
    return ParsedHead(
        message.method,
        message.path,
        version_11,
        closes or message.should_close,
        expects,
        message.raw_headers,
        length,
    )
