"""A finished exchange as one log line: JSON in Cloud Logging's words, or readable text.

The JSON is put together by hand, because every request pays for it; what may hold anything is encoded by msgspec.
"""

import time
from typing import Final

import msgspec

from gateway.core.exchange import Exchange
from gateway.telemetry.logs import clock, paint

_encode = msgspec.json.Encoder().encode
_MAX_LOGGED_URL: Final = 512
_REMEMBERED_LIMIT: Final = 4096
_MILLISECONDS: Final = tuple(f"{number:03d}" for number in range(1000))


def severity_of(status: int) -> str:
    if status >= 500:
        return "ERROR"
    return "WARNING" if status >= 400 else "INFO"


class JsonLine:
    def __init__(self, project: str) -> None:
        self._trace_prefix = _text(f"projects/{project}/traces/" if project else "")
        self._second = -1
        self._time = ""
        self._paths: dict[str, str] = {}
        self._served: dict[tuple[str, str, str], str] = {}
        self._addresses: dict[object, str] = {}

    def __call__(self, exchange: Exchange, status: int) -> bytes:
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._time = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        path = self._paths.get(exchange.raw_target)
        if path is None:
            path = self._learn_path(exchange.raw_target)
        address = exchange.address
        remote = (
            exchange.peer if address is None else self._addresses.get(address) or self._learn_address(address)
        )
        trace = exchange.trace
        method = exchange.method
        line = (
            f'{{"severity":"{"INFO" if status < 400 else severity_of(status)}"'
            f',"time":"{self._time}{_MILLISECONDS[int((now - second) * 1000)]}Z"'
            f',"message":"{method} {path} {status}"'
            f',"logging.googleapis.com/trace":"{self._trace_prefix}{trace.trace_id}"'
            f',"logging.googleapis.com/spanId":"{trace.span_id}"'
            f',"logging.googleapis.com/trace_sampled":{"false" if exchange.kept is None else "true"}'
            f',"httpRequest":{{"requestMethod":"{method}","requestUrl":"{path}","status":{status}'
            f',"requestSize":"{exchange.bytes_in}","responseSize":"{exchange.bytes_out}"'
            f',"latency":"{exchange.ended - exchange.arrived:.6f}s","remoteIp":"{remote}"}}'
            f',"request_id":"{exchange.request_id}","generation":{exchange.generation}'
        )
        if exchange.routed:
            caller = exchange.principal.id if exchange.authenticated else ""
            served = (exchange.model.name, exchange.backend.version, caller)
            line += self._served.get(served) or self._learn_served(served)
        if exchange.spared:
            line += f',"would_refuse":{_encode(exchange.spared).decode()}'
        if exchange.attempts:
            line += _timing(exchange)
        if exchange.error is not None:
            line += _error(exchange)
        return (line + "}").encode("utf-8", "backslashreplace")

    def _learn_path(self, raw_target: str) -> str:
        # Without the query: what callers put there may be personal, and is not needed to find a request.
        path = _text(raw_target.partition("?")[0][:_MAX_LOGGED_URL])
        if len(self._paths) < _REMEMBERED_LIMIT and len(raw_target) <= 128:
            self._paths[raw_target] = path
        return path

    def _learn_served(self, served: tuple[str, str, str]) -> str:
        model, version, caller = served
        text = f',"model":{_json(model)},"version":{_json(version)}'
        if caller:
            text += f',"caller":{_json(caller)}'
        if len(self._served) < _REMEMBERED_LIMIT:
            self._served[served] = text
        return text

    def _learn_address(self, address: object) -> str:
        text = str(address)
        if len(self._addresses) < _REMEMBERED_LIMIT:
            self._addresses[address] = text
        return text


def _timing(exchange: Exchange) -> str:
    """Waiting for a permit, waiting for the backend's head, and the rest of its answer."""
    last = exchange.attempts[-1]
    line = f',"timing_us":{{"queue":{int(exchange.queued_s * 1e6)}'
    answered = last.answered
    if answered is not None:
        line += f',"backend":{int((answered - last.began) * 1e6)}'
        if last.ended is not None:
            line += f',"receive":{int((last.ended - answered) * 1e6)}'
    if len(exchange.attempts) > 1:
        line += f',"attempts":{len(exchange.attempts)}'
    return line + "}"


def _error(exchange: Exchange) -> str:
    error, cause = exchange.error, exchange.cause
    if error is None:
        return ""
    line = f',"error":"{error.code}","detail":{_json(error.detail)}'
    if cause is not None:
        line += f',"cause":{_json(f"{type(cause).__name__}: {cause}"[:500])}'
    return line


def _json(text: str) -> str:
    # Surrogates stand for bytes that are not UTF-8; JSON has no place for them.
    return _encode(text.encode("utf-8", "replace").decode("utf-8") if not text.isascii() else text).decode(
        "utf-8"
    )


def _text(text: str) -> str:
    return _json(text)[1:-1]


def text_line(exchange: Exchange, status: int) -> bytes:
    served = f" {exchange.model.name}@{exchange.backend.version}" if exchange.routed else ""
    problem = f" {exchange.error.code}: {exchange.error.detail}" if exchange.error is not None else ""
    took_ms = (exchange.ended - exchange.arrived) * 1000
    path = exchange.raw_target.partition("?")[0][:_MAX_LOGGED_URL]
    if not path.isprintable():  # a terminal obeys what stands in its text
        path = repr(path)[1:-1]
    shown = paint(severity_of(status), str(status))
    return (
        f"{clock(time.time())} {shown} {exchange.method} {path}{served} {took_ms:.1f} ms{problem}"
        f"  {exchange.request_id}"
    ).encode("utf-8", "backslashreplace")
