"""The response that the gateway gives itself: status, header fields and a body held in memory.

It is a problem, the answer to a health probe, or a model's description. Proxies call it a direct response (Envoy).
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from gateway.core.errors import HeaderList
from gateway.core.escape_unprintable import printable_json


class Response(msgspec.Struct, frozen=True):
    """A whole response: status, header fields and body."""

    status: int
    headers: HeaderList  # without Content-Length, which the server writes
    body: bytes


def field_lines(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Encode header fields as lines. Each line ends with CRLF."""
    return b"".join([b"%b: %b\r\n" % field for field in fields])


_JSON: HeaderList = ((b"Content-Type", b"application/json"),)


def _encode(content: Any) -> bytes:
    encoded = msgspec.json.encode(content)
    if encoded.isascii() and b"\x7f" not in encoded:
        return encoded
    return printable_json(encoded.decode()).encode()


def json_response(content: Any, *, status: int = 200, headers: HeaderList = ()) -> Response:
    """A response with `content` as JSON. Its Content-Type says so."""
    return Response(status, _JSON + headers, _encode(content) + b"\n")
