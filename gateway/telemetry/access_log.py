"""The access log: one line for each finished request.

A line is JSON for Cloud Logging, or text. The JSON is put together by hand, because every request pays for it; what may hold
anything is encoded by msgspec.
"""

import time
from functools import lru_cache
from typing import Final, TypeVar

import msgspec

from gateway.core.escape_unprintable import printable, printable_json
from gateway.core.exchange import Exchange
from gateway.telemetry.logs import colorize, local_time_of_day

_clock = time.time
_whole = float.__trunc__  # as int(), at half its cost
_encode = msgspec.json.Encoder().encode
_MAX_LOGGED_URL: Final = 512
_REMEMBERED_LIMIT: Final = 4096
_REMEMBERED_CHARACTERS: Final = 256  # of an error's detail, which may hold what a caller sent
_MILLISECONDS: Final = tuple(f"{number:03d}" for number in range(1000))

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def severity_of(status: int) -> str:
    """The Cloud Logging severity for an HTTP status."""
    if status >= 500:
        return "ERROR"
    return "WARNING" if status >= 400 else "INFO"


class JsonAccessLogFormatter:
    """Formats a finished request as a JSON line of the access log.

    Parts that are the same for many requests are cached as fragments. `_asked` by method, target and status; `_served` by
    generation, model, version and caller.
    """

    def __init__(self, project: str) -> None:
        self._trace_prefix = _text(f"projects/{project}/traces/" if project else "")
        self._second = 0
        self._begins: tuple[str, ...] = ()  # by the first digit of the status
        self._asked: dict[tuple[str, str, int], tuple[str, str]] = {}
        self._served: dict[tuple[int, str, str, str], str] = {}

    def __call__(self, exchange: Exchange, status: int, sampled: bool = False) -> bytes:  # noqa: FBT001, FBT002
        now = _clock()
        since = now - self._second
        if not 0.0 <= since < 1.0:
            since = self._begin(now)
        try:
            message, request = self._asked[exchange.method, exchange.raw_target, status]
        except KeyError:
            message, request = self._learn_asked(exchange.method, exchange.raw_target, status)
        trace = exchange.trace
        more = ""
        if exchange.routed:
            name, version = exchange.model.name, exchange.backend.version
            caller = exchange.principal.id if exchange.authenticated else ""
        else:
            name = version = caller = ""
        try:
            served = self._served[exchange.generation, name, version, caller]
        except KeyError:
            served = self._learn_served(exchange.generation, name, version, caller)
        attempts = exchange.attempts
        if attempts:
            last = attempts[-1]
            answered, ended = last.answered, last.ended
            if answered is None or ended is None or len(attempts) > 1 or exchange.rate_limit_s:
                more = _timing(exchange)
            else:
                more = (
                    f',"timing_us":{{"queue":{_whole(exchange.queued_s * 1e6) if exchange.queued_s else 0}'
                    f',"backend":{_whole((answered - last.began) * 1e6)}'
                    f',"receive":{_whole((ended - answered) * 1e6)}}}'
                )
        if exchange.assigned or exchange.report_only_refusals:
            more = _rare(exchange) + more
        if exchange.error is not None:
            more += _error(exchange)
        took_s, took_us = "0", _whole((exchange.ended - exchange.arrived) * 1e6)
        if took_us >= 1_000_000:
            took_s, took_us = str(took_us // 1_000_000), took_us % 1_000_000
        return (
            f"{self._begins[status // 100]}{_MILLISECONDS[_whole(since * 1000)]}{message}{trace.trace_id}"
            f'","logging.googleapis.com/spanId":"{trace.span_id}","logging.googleapis.com/trace_sampled":'
            f"{'true' if sampled else 'false'}{request}{exchange.bytes_in}"
            f'","responseSize":"{exchange.bytes_out}","latency":"{took_s}.'
            f"{_MILLISECONDS[took_us // 1000]}{_MILLISECONDS[took_us % 1000]}s"
            f'","remoteIp":"{exchange.remote_ip}"}},"request_id":"'
            f"{exchange.request_id}{served}{more}}}"
        ).encode()

    def _begin(self, now: float) -> float:
        """Begin another second; how much of it has passed."""
        second = int(now)
        at = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        self._begins = tuple(f'{{"severity":"{severity_of(first * 100)}","time":"{at}' for first in range(10))
        self._second = second
        return now - second

    def _learn_asked(self, method: str, raw_target: str, status: int) -> tuple[str, str]:
        verb = _text(method)
        # Without the query: what callers put there may be personal, and is not needed to find a request.
        path = _text(raw_target.partition("?")[0][:_MAX_LOGGED_URL])
        fragments = (
            f'Z","message":"{verb} {path} {status}","logging.googleapis.com/trace":"{self._trace_prefix}',
            f',"httpRequest":{{"requestMethod":"{verb}","requestUrl":"{path}","status":{status},"requestSize":"',
        )
        if len(raw_target) <= 128:
            _room(self._asked)[method, raw_target, status] = fragments
        return fragments

    def _learn_served(self, generation: int, model: str, version: str, caller: str) -> str:
        fragment = f'","generation":{generation}'
        if model:
            fragment += f',"model":{_json(model)},"version":{_json(version)}'
        if caller:
            fragment += f',"caller":{_json(caller)}'
        _room(self._served)[generation, model, version, caller] = fragment
        return fragment


def _room(remembered: dict[_Key, _Value]) -> dict[_Key, _Value]:
    """It, with room for one more: forgotten whole when it is full, so that no caller can fill it for good."""
    if len(remembered) >= _REMEMBERED_LIMIT:
        remembered.clear()
    return remembered


def _rare(exchange: Exchange) -> str:
    """Why it got its version, where there was a choice, and the refusals that report-only mode did not apply."""
    line = f',"assigned":"{exchange.assigned}"' if exchange.assigned else ""
    if exchange.assigned == "sticky":
        line += f',"unit":"{exchange.unit}"'
    if exchange.report_only_refusals:
        line += f',"would_refuse":{_encode(exchange.report_only_refusals).decode()}'
    return line


def _timing(exchange: Exchange) -> str:
    """Waiting for limits counted elsewhere, for a permit, for the backend's head, and for the rest of its answer."""
    last = exchange.attempts[-1]
    line = f',"timing_us":{{"queue":{_whole(exchange.queued_s * 1e6)}'
    if exchange.rate_limit_s:
        line += f',"limits":{_whole(exchange.rate_limit_s * 1e6)}'
    answered = last.answered
    if answered is not None:
        line += f',"backend":{_whole((answered - last.began) * 1e6)}'
        if last.ended is not None:
            line += f',"receive":{_whole((last.ended - answered) * 1e6)}'
    if len(exchange.attempts) > 1:
        line += f',"attempts":{len(exchange.attempts)}'
    return line + "}"


def _error(exchange: Exchange) -> str:
    error, cause = exchange.error, exchange.cause
    if error is None:
        return ""
    remembered = _remembered_detail if len(error.detail) <= _REMEMBERED_CHARACTERS else _detail
    line = remembered(error.code, error.detail)
    if cause is not None:
        line += f',"cause":{_json(f"{type(cause).__name__}: {cause}"[:500])}'
    return line


def _detail(code: str, detail: str) -> str:
    return f',"error":"{code}","detail":{_json(detail)}'


_remembered_detail = lru_cache(maxsize=1024)(_detail)


def _json(text: str) -> str:
    # Surrogates stand for bytes that are not UTF-8; JSON has no place for them.
    if text.isascii():
        return printable_json(_encode(text).decode("utf-8"))
    return printable_json(_encode(text.encode("utf-8", "replace").decode("utf-8")).decode("utf-8"))


def _text(text: str) -> str:
    return _json(text)[1:-1]


class TextAccessLogFormatter:
    """Formats a finished request as a text line of the access log. The line fits a terminal."""

    def __init__(self, colored: bool = False) -> None:  # noqa: FBT001, FBT002
        self._colored = colored

    def __call__(self, exchange: Exchange, status: int, sampled: bool = False) -> bytes:  # noqa: FBT001, FBT002, ARG002
        served = f" {exchange.model.name}@{exchange.backend.version}" if exchange.routed else ""
        problem = f" {exchange.error.code}: {exchange.error.detail}" if exchange.error is not None else ""
        took_ms = (exchange.ended - exchange.arrived) * 1000
        path = exchange.raw_target.partition("?")[0][:_MAX_LOGGED_URL]
        shown = colorize(severity_of(status), str(status)) if self._colored else str(status)
        text = f"{exchange.method} {path}{served} {took_ms:.1f} ms{problem}  {exchange.request_id}"
        return f"{local_time_of_day(time.time())} {shown} {printable(text)}".encode(
            "utf-8", "backslashreplace"
        )
