"""Logs: one JSON object a line in Cloud Logging's words; readable lines on a terminal. Never anything of a payload."""

import sys
import traceback
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

from chips_backend.trace_context import Trace

_encode = msgspec.json.Encoder().encode


class Log:
    """Writes log lines: JSON for Cloud Logging, or text on a terminal."""

    def __init__(
        self, stream: TextIO | None = None, *, project: str = "", facts: dict[str, str] | None = None
    ) -> None:
        self._stream = stream or sys.stdout
        self._readable = self._stream.isatty()
        self._prefix = f"projects/{project}/traces/" if project else ""
        self._facts = dict(facts or {})

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
        *,
        severity: str,
        message: str,
        trace: Trace | None,
        cause: BaseException | None = None,
        **fields: Any,
    ) -> None:
        """Something about one request; `trace` goes under the names by which Cloud Logging joins lines and spans."""
        if trace is not None:
            fields["logging.googleapis.com/trace"] = self._prefix + trace.trace_id
            fields["logging.googleapis.com/spanId"] = trace.span_id
            fields["logging.googleapis.com/trace_sampled"] = trace.sampled
        self._write(severity, message, fields, cause)

    def _write(
        self, severity: str, message: str, fields: dict[str, Any], cause: BaseException | None = None
    ) -> None:
        if cause is not None:
            fields["stack"] = "".join(traceback.format_exception(cause))
        now = datetime.now(UTC)
        if self._readable:
            line = f"{now.astimezone():%H:%M:%S} {severity.lower()} {message}"
            self._stream.write(line + "\n" + fields.get("stack", ""))
        else:
            time = now.isoformat(timespec="microseconds").replace("+00:00", "Z")
            entry = {"severity": severity, "message": message, "time": time, **self._facts, **fields}
            self._stream.write(_encode(entry).decode("utf-8") + "\n")
        self._stream.flush()
