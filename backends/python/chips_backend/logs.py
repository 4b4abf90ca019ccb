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


class Log:
    """Writes log lines: JSON for Cloud Logging, or text on a terminal. `request` and `flush` are for the event loop's thread alone."""

    def __init__(
        self, stream: TextIO | None = None, *, project: str = "", facts: dict[str, str] | None = None
    ) -> None:
        self._stream = stream or sys.stdout
        self._readable = self._stream.isatty()
        self._prefix = f"projects/{project}/traces/" if project else ""
        self._facts = dict(facts or {})
        self._waiting: list[str] = []  # lines of requests
        self._clock = (0, "")  # the last second, and its text

    def add_facts(self, **facts: str) -> None:
        """Add these fields to every line from now on."""
        self._facts.update({name: fact for name, fact in facts.items() if fact})

    def info(self, message: str, **fields: Any) -> None:
        self._write("INFO", message, fields)

    def warning(self, message: str, *, cause: BaseException | None = None, **fields: Any) -> None:
        self._write("WARNING", message, fields, cause)

    def error(self, message: str, *, cause: BaseException | None = None, **fields: Any) -> None:
        self._write("ERROR", message, fields, cause)

    def request(
        self,
        severity: str,
        message: str,
        trace: Trace | None,
        fields: dict[str, Any],
        *,
        cause: BaseException | None = None,
    ) -> None:
        """Something about one request; `trace` goes under the names by which Cloud Logging joins lines and spans."""
        if trace is not None:
            fields["logging.googleapis.com/trace"] = self._prefix + trace.trace_id
            fields["logging.googleapis.com/spanId"] = trace.span_id
            fields["logging.googleapis.com/trace_sampled"] = trace.sampled
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self.flush)
        self._waiting.append(self._line(severity, message, fields, cause))

    def flush(self) -> None:
        """Write the lines of requests that wait for the end of the loop's turn."""
        lines = "".join(self._waiting)
        self._waiting.clear()  # first: where the stream is gone, they must not pile up
        if lines:
            self._stream.write(lines)
            self._stream.flush()

    def _write(
        self, severity: str, message: str, fields: dict[str, Any], cause: BaseException | None = None
    ) -> None:
        self._stream.write(self._line(severity, message, fields, cause))
        self._stream.flush()

    def _line(self, severity: str, message: str, fields: dict[str, Any], cause: BaseException | None) -> str:
        if cause is not None:
            fields["stack"] = "".join(traceback.format_exception(cause))
        if self._readable:
            text: str = fields.get("stack", "")
            return f"{datetime.now(UTC).astimezone():%H:%M:%S} {severity.lower()} {message}\n{text}"
        entry = {"severity": severity, "message": message, "time": self._time(), **self._facts, **fields}
        return _encode(entry).decode("utf-8") + "\n"

    def _time(self) -> str:
        """Now, as RFC 3339 has it, with microseconds."""
        second, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        last, text = self._clock
        if second != last:
            text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._clock = second, text
        return f"{text}.{nanoseconds // 1000:06d}Z"
