"""An answer that the gateway makes itself, whole and small: a problem, a health probe, a model's description."""

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from gateway.core.printable import printable_json

if TYPE_CHECKING:
    from gateway.core.exchange import Exchange

HeaderList = tuple[tuple[bytes, bytes], ...]


class Response(NamedTuple):
    status: int
    headers: HeaderList  # without Content-Length, which the server writes
    body: bytes


_JSON: HeaderList = ((b"Content-Type", b"application/json"),)


def _encode(content: Any) -> bytes:
    encoded = msgspec.json.encode(content)
    if encoded.isascii() and b"\x7f" not in encoded:
        return encoded
    return printable_json(encoded.decode()).encode()


def json_response(content: Any, *, status: int = 200, headers: HeaderList = ()) -> Response:
    return Response(status, _JSON + headers, _encode(content) + b"\n")


def gateway_field_lines(exchange: "Exchange", now: float) -> str:
    """The header fields that the gateway puts on every answer that a request led to, each line with its end."""
    lines = (
        f"X-Request-Id: {exchange.request_id}\r\nX-Trace-Id: {exchange.trace.trace_id}\r\nServer: chips\r\n"
    )
    backend = getattr(exchange, "backend", None)
    if backend is not None:
        lines += f"X-Chips-Model: {exchange.model.name}@{backend.version}\r\n"
        if exchange.registry_age_s is not None:
            lines += (
                f"X-Chips-Registry: generation={exchange.generation};age={exchange.registry_age_s:.3f}\r\n"
            )
    overhead_s = now - exchange.arrived
    if exchange.attempts:
        attempt = exchange.attempts[-1]
        if attempt.answered is not None:
            overhead_s -= attempt.answered - (attempt.sent or attempt.began)
    theirs = exchange.backend_server_timing
    before = f"{theirs.decode('latin-1')}, " if theirs else ""
    return f"{lines}Server-Timing: {before}gateway;dur={overhead_s * 1000:.2f}\r\n"
