"""Logs: JSON lines in Cloud Logging's words, or readable lines on a terminal, written off the event loop."""

import contextlib
import fcntl
import logging
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec

_SEVERITIES: Final = {
    logging.DEBUG: "DEBUG",
    logging.INFO: "INFO",
    logging.WARNING: "WARNING",
    logging.ERROR: "ERROR",
    logging.CRITICAL: "CRITICAL",
}
_COLORS: Final = {"DEBUG": "2", "INFO": "0", "WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}
_encode = msgspec.json.Encoder().encode


class LogWriter:
    """Writes lines from a thread of its own, in batches, so that a slow reader of the log never stops a request.

    At most `limit_lines` wait; beyond that, lines are dropped and counted, and the count is logged.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        limit_lines: int = 20_000,
        interval_s: float = 0.05,
        lock: Path | None = None,
    ) -> None:
        self._stream = stream
        self.colored = stream.isatty()
        self._lock = lock  # a file that whoever writes to the same stream locks, so that lines stay whole
        self._limit = limit_lines
        self._interval_s = interval_s
        self._lines: list[bytes] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self.dropped = 0

    def start(self) -> None:
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Hand over one line without its end. Never blocks."""
        if len(self._lines) < self._limit:
            self._lines.append(line)
        else:
            self.dropped += 1

    def stop(self, timeout_s: float = 1.0) -> None:
        """Write what is left and end the thread; give up after `timeout_s` where nobody reads."""
        self._stopping.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        reported = 0
        while True:
            stopping = self._stopping.wait(self._interval_s)
            lines, self._lines = self._lines, []
            if self.dropped > reported:
                lines.append(
                    _encode(
                        {
                            "severity": "WARNING",
                            "message": f"{self.dropped - reported} log lines were dropped",
                        }
                    )
                )
                reported = self.dropped
            if lines:
                lines.append(b"")
                try:
                    with self._alone():
                        self._stream.buffer.write(b"\n".join(lines))
                        self._stream.flush()
                except (OSError, ValueError):
                    return  # nobody reads the log any more; requests go on
            if stopping and not self._lines:
                return

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if self._lock is None:
            yield
            return
        with self._lock.open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # given back when the file is closed
            yield


class JsonFormatter(logging.Formatter):
    """A record of the standard library as one JSON object in Cloud Logging's words."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "severity": _SEVERITIES.get(record.levelno, "DEFAULT"),
            "time": timestamp(record.created),
            "message": record.getMessage(),
            "logger": record.name,
        }
        if record.exc_info:
            entry["stack"] = self.formatException(record.exc_info)
        return _encode(entry).decode("utf-8")


class TextFormatter(logging.Formatter):
    """The same, for people."""

    def __init__(self, *, colored: bool) -> None:
        super().__init__()
        self._colored = colored

    def format(self, record: logging.LogRecord) -> str:
        severity = _SEVERITIES.get(record.levelno, "DEFAULT")
        shown = paint(severity, severity.lower()) if self._colored else severity.lower()
        line = f"{clock(record.created)} {shown} {record.getMessage()}"
        return line + "\n" + self.formatException(record.exc_info) if record.exc_info else line


class _ToWriter(logging.Handler):
    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        self._writer.write(self.format(record).encode("utf-8", "backslashreplace"))


def configure_logging(writer: LogWriter, *, json: bool, level: str) -> None:
    """Send the standard library's log records to `writer`. For the composition root alone."""
    to_writer = _ToWriter(writer)
    to_writer.setFormatter(JsonFormatter() if json else TextFormatter(colored=writer.colored))
    root = logging.getLogger()
    root.handlers[:] = [to_writer]
    root.setLevel(level.upper())
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def wants_json(choice: str, stream: TextIO = sys.stdout) -> bool:
    """Whether to write JSON: as chosen, or, for `auto`, wherever it is not a terminal."""
    return choice == "json" or (choice == "auto" and not stream.isatty())


def timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def paint(severity: str, text: str) -> str:
    return f"\033[{_COLORS.get(severity, '0')}m{text}\033[0m"
