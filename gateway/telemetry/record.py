"""From a finished exchange to its log line. Runs for every request, however it ended, and never raises."""

import time
from collections.abc import Callable
from typing import Any

import msgspec

from gateway.core.exchange import Exchange
from gateway.telemetry.logs import LogWriter, clock, paint, timestamp

CLIENT_CLOSED_REQUEST = 499  # nginx's status for a caller who left; never sent, only recorded
_encode = msgspec.json.Encoder().encode
_MAX_LOGGED_URL = 512


class Record:
    """Write one line per request: JSON for machines, or one readable line for people.

    `project` is the Google Cloud project that traces belong to; without one, the bare trace id is written.
    """

    def __init__(self, writer: LogWriter, *, json: bool, project: str = "") -> None:
        self._write = writer.write
        self._line: Callable[[Exchange], bytes] = self._json if json else self._text
        self._trace_prefix = f"projects/{project}/traces/" if project else ""

    def __call__(self, exchange: Exchange) -> None:
        if not exchange.routine:
            self._write(self._line(exchange))

    def _json(self, exchange: Exchange) -> bytes:
        status = CLIENT_CLOSED_REQUEST if exchange.left else exchange.status
        duration_s = exchange.ended - exchange.arrived
        trace = exchange.trace
        line: dict[str, Any] = {
            "severity": severity_of(status),
            "time": timestamp(time.time()),
            "message": f"{exchange.method} {_path(exchange)} {status}",
            "logging.googleapis.com/trace": self._trace_prefix + trace.trace_id,
            "logging.googleapis.com/spanId": trace.span_id,
            "logging.googleapis.com/trace_sampled": exchange.kept is not None,
            "httpRequest": {
                "requestMethod": exchange.method,
                "requestUrl": _path(exchange),
                "status": status,
                "requestSize": str(exchange.bytes_in),
                "responseSize": str(exchange.bytes_out),
                "latency": f"{duration_s:.6f}s",
                "remoteIp": str(exchange.address or exchange.peer),
            },
            "request_id": exchange.request_id,
            "generation": exchange.generation,
        }
        backend = getattr(exchange, "backend", None)
        if backend is not None:
            line["model"] = exchange.model.name
            line["version"] = backend.version
        principal = getattr(exchange, "principal", None)
        if principal is not None:
            line["caller"] = principal.id
        if exchange.error is not None:
            line["error"] = exchange.error.code
            line["detail"] = exchange.error.detail
            if exchange.cause is not None:
                line["cause"] = f"{type(exchange.cause).__name__}: {exchange.cause}"[:500]
        if exchange.attempts:
            line["timing"] = _timing(exchange)
        return _encode(line)

    def _text(self, exchange: Exchange) -> bytes:
        status = CLIENT_CLOSED_REQUEST if exchange.left else exchange.status
        backend = getattr(exchange, "backend", None)
        served = f" {exchange.model.name}@{backend.version}" if backend is not None else ""
        problem = f" {exchange.error.code}: {exchange.error.detail}" if exchange.error is not None else ""
        took_ms = (exchange.ended - exchange.arrived) * 1000
        shown = paint(severity_of(status), str(status))
        return (
            f"{clock(time.time())} {shown} {exchange.method} {_path(exchange)}{served} {took_ms:.1f} ms{problem}"
        ).encode("utf-8", "backslashreplace")


def severity_of(status: int) -> str:
    if status >= 500:
        return "ERROR"
    return "WARNING" if status >= 400 else "INFO"


def _path(exchange: Exchange) -> str:
    # Without the query: what callers put there may be personal, and is not needed to find a request.
    return exchange.raw_target.partition("?")[0][:_MAX_LOGGED_URL]


def _timing(exchange: Exchange) -> dict[str, float]:
    """Milliseconds: waiting for a permit, waiting for the backend's head, and the rest of its answer."""
    last = exchange.attempts[-1]
    timing = {"queue": exchange.queued_s * 1000}
    if last.answered is not None:
        timing["backend"] = (last.answered - last.began) * 1000
        if last.ended is not None:
            timing["receive"] = (last.ended - last.answered) * 1000
    return {name: round(value, 3) for name, value in timing.items()}
