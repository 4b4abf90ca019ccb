"""The header fields that the gateway adds to every response."""

from typing import Final

from gateway.core.exchange import Exchange

_whole = float.__trunc__
# Hundredths of a millisecond as text: to write a float takes four times as long.
_HUNDREDTHS: Final = tuple(f"{number / 100:.2f}" for number in range(1000))


def gateway_field_lines(exchange: Exchange, now: float) -> str:
    """The header field lines that the gateway adds to every response. Each has its CRLF."""
    overhead_s = now - exchange.arrived
    if exchange.attempts:
        attempt = exchange.attempts[-1]
        if attempt.answered is not None:
            overhead_s -= attempt.answered - (attempt.sent or attempt.began)
    theirs = exchange.backend_server_timing
    hundredths = _whole(overhead_s * 1e5 + 0.5)
    overhead_ms = _HUNDREDTHS[hundredths] if 0 <= hundredths < 1000 else f"{overhead_s * 1000:.2f}"
    before = f"{theirs.decode('latin-1')}, " if theirs else ""
    return (
        f"X-Request-Id: {exchange.request_id}\r\nX-Trace-Id: {exchange.trace.trace_id}\r\nServer: chips\r\n"
        f"{_backend_lines(exchange) if exchange.generation else ''}Server-Timing: {before}gateway;dur={overhead_ms}\r\n"
    )


def _backend_lines(exchange: Exchange) -> str:
    """What says where it was answered, once a generation of the registry was asked for it."""
    backend = exchange.backend if exchange.routed else getattr(exchange, "backend", None)
    if backend is None:
        return ""
    lines = f"X-Chips-Model: {exchange.model.name}@{backend.version}\r\n"
    if exchange.registry_age_s is None:
        return lines
    return f"{lines}X-Chips-Registry: generation={exchange.generation};age={exchange.registry_age_s:.3f}\r\n"
