"""Logs: one JSON object a line in Cloud Logging's words; readable lines on a terminal. Never anything of a payload.

Lines of requests are written together at the end of the event loop's turn: one call of the system for all of them.
"""

import asyncio
import sys
import time
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

from chips_backend.trace_context import Trace

_encode = msgspec.json.Encoder().encode


class HttpRequest(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Cloud Logging's HttpRequest; sizes are in bytes, in digits, and the latency in seconds, with an "s" behind."""

    request_method: str
    request_url: str
    status: int
    request_size: str
    response_size: str
    latency: str


class Timing(msgspec.Struct, frozen=True, gc=False):
    """What the parts of a request took, in milliseconds."""

    queue: float
    parse: float
    predict: float
    render: float


class AnsweredLine(
    msgspec.Struct,
    gc=False,
    omit_defaults=True,
    rename={
        "http_request": "httpRequest",
        "trace": "logging.googleapis.com/trace",
        "span_id": "logging.googleapis.com/spanId",
        "trace_sampled": "logging.googleapis.com/trace_sampled",
    },
):
    """The log line of a request. A name without a value is left out."""

    severity: str
    message: str
    time: str
    http_request: HttpRequest
    request_id: str
    timing: Timing
    caller: str = ""
    code: str = ""
    trace: str = ""
    span_id: str = ""
    trace_sampled: bool | None = None


class Log:
    """Writes log lines: JSON for Cloud Logging, or text on a terminal.

    `answered`, `request` and `flush` are for the event loop's thread alone.
    """

    def __init__(
        self, stream: TextIO | None = None, *, project: str = "", facts: dict[str, str] | None = None
    ) -> None:
        self._stream = stream or sys.stdout
        self._readable = self._stream.isatty()
        self._prefix = f"projects/{project}/traces/" if project else ""
        self._facts: dict[str, str] = {}
        self._end = b"}\n"  # of a line: the facts
        self._waiting: list[bytes] = []  # lines of requests
        self._clock = (0, "")  # the last second, and its text
        self.add_facts(**(facts or {}))

    def add_facts(self, **facts: str) -> None:
        """Add these fields to every line from now on."""
        self._facts.update({name: fact for name, fact in facts.items() if fact})
        self._end = (b"," + _encode(self._facts)[1:] if self._facts else b"}") + b"\n"

    def info(self, message: str, **fields: Any) -> None:
        self._write("INFO", message, fields)

    def warning(self, message: str, *, cause: BaseException | None = None, **fields: Any) -> None:
        self._write("WARNING", message, fields, cause)

    def error(self, message: str, *, cause: BaseException | None = None, **fields: Any) -> None:
        self._write("ERROR", message, fields, cause)

    def answered(self, line: AnsweredLine, trace: Trace | None) -> None:
        """The line of a request that has its answer; `trace` goes under the names by which Cloud Logging joins lines and spans."""
        if trace is not None:
            line.trace = self._prefix + trace.trace_id
            line.span_id, line.trace_sampled = trace.span_id, trace.sampled
        if self._readable:
            self._wait(self._text(line.severity, line.message))
        else:
            self._wait(_encode(line)[:-1] + self._end)

    def request(
        self,
        severity: str,
        message: str,
        trace: Trace | None,
        fields: dict[str, Any],
        *,
        cause: BaseException | None = None,
    ) -> None:
        """Something else about one request."""
        if trace is not None:
            fields["logging.googleapis.com/trace"] = self._prefix + trace.trace_id
            fields["logging.googleapis.com/spanId"] = trace.span_id
            fields["logging.googleapis.com/trace_sampled"] = trace.sampled
        self._wait(self._line(severity, message, fields, cause))

    def _wait(self, line: bytes) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self.flush)
        self._waiting.append(line)

    def flush(self) -> None:
        """Write the lines of requests that wait for the end of the loop's turn."""
        lines = b"".join(self._waiting)
        self._waiting.clear()  # first: where the stream is gone, they must not pile up
        if lines:
            self._stream.write(lines.decode())
            self._stream.flush()

    def _write(
        self, severity: str, message: str, fields: dict[str, Any], cause: BaseException | None = None
    ) -> None:
        self._stream.write(self._line(severity, message, fields, cause).decode())
        self._stream.flush()

    def _line(
        self, severity: str, message: str, fields: dict[str, Any], cause: BaseException | None
    ) -> bytes:
        if cause is not None:
            fields["stack"] = "".join(traceback.format_exception(cause))
        if self._readable:
            return self._text(severity, message) + str(fields.get("stack", "")).encode()
        entry = {"severity": severity, "message": message, "time": self.time(), **fields}
        return _encode(entry)[:-1] + self._end

    @staticmethod
    def _text(severity: str, message: str) -> bytes:
        return f"{datetime.now(UTC).astimezone():%H:%M:%S} {severity.lower()} {message}\n".encode()

    def time(self) -> str:
        """Now, as RFC 3339 has it, with microseconds."""
        second, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        last, text = self._clock
        if second != last:
            text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._clock = second, text
        return f"{text}.{nanoseconds // 1000:06d}Z"
