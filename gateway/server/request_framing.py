"""Determine how a request's message is framed (RFC 9112 section 6).

What is ambiguous is refused, which prevents request smuggling. aiohttp's parser reads every head first. It forgives
some of what it reads, takes some transfer codings for no body at all, and serves versions that frame differently. So
what it says is compared here with what the fields themselves say.
"""

import re
from typing import Final, NamedTuple

from aiohttp.http_exceptions import BadHttpMethod, LineTooLong

from gateway.core.errors import (
    BadRequest,
    GatewayError,
    HeadersTooLarge,
    HttpVersionNotSupported,
    MethodNotImplemented,
    TargetTooLong,
)
from gateway.core.header_classification import RawHeaders, parse_token_list

MAX_FIELDS: Final = 128

# What no line of a head may hold (RFC 9112 section 2.2). A CR at the end may still find its LF.
_BARE_CR_OR_LF: Final = re.compile(rb"\r[^\n]|(?<!\r)\n")
_METHOD_BYTES: Final = frozenset(
    b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)
_FRAMING_FIELDS: Final = frozenset({b"content-length", b"transfer-encoding"})
_LENGTH: Final = re.compile(rb"[0-9]{1,15}")
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VERSION: Final = re.compile(rb"HTTP/([0-9])\.([0-9])")
_TARGET: Final = re.compile(rb"[!-~]+")


class RequestFraming(NamedTuple):
    """How a request's message is framed.

    It has the body's length (None: chunked), whether the request ends the connection, and Expect.
    """

    length: int | None  # of the body in bytes; None where it comes in chunks
    closes: bool  # the connection ends with this request
    expects: bool  # 100-continue


def determine_framing(method: str, headers: RawHeaders, *, version_11: bool) -> RequestFraming:
    """Determine the framing that the header fields declare. Raises BadRequest where two programs could read it differently."""
    lengths: list[bytes] = []
    codings: list[bytes] = []
    connection: set[bytes] = set()
    expects = False
    for name, value in headers:
        lower = name.lower()
        if b"_" in lower and lower.replace(b"_", b"-") in _FRAMING_FIELDS:  # some servers read "_" as "-"
            raise BadRequest(f"The header {name.decode('latin-1')} could be confused with another one.")
        if lower == b"content-length":
            lengths.append(value)
        elif lower == b"transfer-encoding":
            codings.append(value.lower())
        elif lower == b"connection":
            connection |= parse_token_list(value)
        elif lower == b"expect":
            expects = expects or b"100-continue" in parse_token_list(value)
    closes = b"close" in connection or not (version_11 or b"keep-alive" in connection)
    if method == "CONNECT":  # what follows its head would be no message, but a tunnel
        raise BadRequest("This gateway does not support CONNECT.")
    if codings:
        if codings != [b"chunked"] or not version_11:
            raise BadRequest("The only transfer coding this gateway supports is chunked, with HTTP/1.1.")
        if lengths:
            raise BadRequest("The request has both a Content-Length and a Transfer-Encoding.")
        return RequestFraming(None, closes, expects and version_11)
    if len(lengths) > 1 or (lengths and not _LENGTH.fullmatch(lengths[0])):
        raise BadRequest("The request's Content-Length is not one whole number.")
    return RequestFraming(int(lengths[0]) if lengths else 0, closes, expects and version_11)


def cannot_be_request_head(begun: bytes, seen: int = 0) -> bool:
    """Whether these bytes can never become a valid request head.

    Then waiting for the rest is pointless. The first `seen` bytes were checked by an earlier call: a head that comes
    byte by byte is checked once.
    """
    first = begun[:16].partition(b" ")[0]
    return not _METHOD_BYTES.issuperset(first) or _BARE_CR_OR_LF.search(begun, max(0, seen - 1)) is not None


def parse_minor_version(line: bytes) -> int:
    """Parse the minor version from an HTTP request line.

    It is 1 of HTTP/1.1. The whole line must be valid; `line` has no CRLF. Raises BadRequest or HttpVersionNotSupported.

    aiohttp's parser serves RTSP and HTTP/0.9 as if they were HTTP/1.x, and accepts several blanks where one must be.
    """
    parts = line.split(b" ")
    version = _VERSION.fullmatch(parts[-1])
    if (
        len(parts) != 3
        or version is None
        or not _TOKEN.fullmatch(parts[0])
        or not _TARGET.fullmatch(parts[1])
    ):
        raise BadRequest("The request line is not valid. It must be: METHOD /path HTTP/1.1")
    if parts[0] == b"PRI":  # RFC 9113 section 3.4: so begins HTTP/2
        raise HttpVersionNotSupported(
            "This gateway supports HTTP/1.1 and HTTP/1.0, not HTTP/2. Let the proxy in front of it speak HTTP/1.1 "
            "(Cloud Run does unless the service is deployed with --use-http2)."
        )
    if version[1] != b"1":
        raise HttpVersionNotSupported("This gateway supports HTTP/1.1 and HTTP/1.0, and no other version.")
    return int(version[2])


def error_for_refused_head(error: BaseException | None, line: bytes, limit_bytes: int) -> GatewayError:
    """The error for a request head that aiohttp's parser refuses. `line` is its request line, valid or unknown."""
    if isinstance(error, LineTooLong):
        if len(line) > limit_bytes or isinstance(error.args[0], bytearray):  # so the parser keeps a target
            return TargetTooLong("The request line is longer than this gateway accepts.")
        return HeadersTooLarge("A header field is longer than this gateway accepts.")
    if isinstance(error, BadHttpMethod) and line:
        return MethodNotImplemented("This gateway does not support the request's method.")
    if "Too many headers" in str(error):
        return HeadersTooLarge(f"The request has more than {MAX_FIELDS} header fields.")
    return BadRequest("The request is not valid HTTP/1.1.")
