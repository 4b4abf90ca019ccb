"""Logging: formats log records, and writes them from a thread.

They are JSON lines for Cloud Logging, or text for a terminal. The thread keeps writes off the event loop.
"""

import contextlib
import errno
import fcntl
import logging
import os
import select
import stat
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec

from gateway.core.escape_unprintable import printable, printable_json, printable_own_lines
from gateway.thread_and_task_supervisor import HelperHealth, Supervisor, join_in_steps

_SEVERITIES: Final = {
    logging.DEBUG: "DEBUG",
    logging.INFO: "INFO",
    logging.WARNING: "WARNING",
    logging.ERROR: "ERROR",
    logging.CRITICAL: "CRITICAL",
}
_COLORS: Final = {"DEBUG": "2", "INFO": "0", "WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}
_encode = msgspec.json.Encoder().encode


_GONE: Final = frozenset(
    {errno.EPIPE, errno.ECONNRESET, errno.EBADF}
)  # what is written there nobody will read


class LogWriter:
    """Writes log lines from a thread of its own.

    It writes them in batches. A slow reader of the log never stops a request. While the stream takes nothing (a full
    disk, a paused reader), at most `limit_lines` wait, besides those at hand; what is beyond that, or cannot reach
    anybody any more, is dropped and counted, and the count is logged.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        limit_lines: int = 20_000,
        interval_s: float = 0.05,
        lock: Path | None = None,
        supervisor: Supervisor | None = None,
    ) -> None:
        self.supervisor = supervisor or Supervisor()
        self._stream = stream
        self.colored = stream.isatty()
        self._lock = lock  # a file that every writer to the same stream locks, so that lines stay whole
        self._limit = limit_lines
        self._interval_s = interval_s
        self._lines: list[bytes] = []
        self._pending = b""  # what is at hand, up to the end of a line
        self._written = 0  # bytes of it
        self._reported = 0  # of `dropped`
        self._reporting = 0  # of `dropped`, by the last line at hand
        self._stopping = threading.Event()
        self._stop_by = 0.0
        self._thread = self.supervisor.create_retrying_thread(
            "log", self._run, interrupt_backoff=self._stopping
        )
        self.dropped = 0

    def start(self) -> None:
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Queue one log line. `line` is without its line end. It never blocks."""
        if len(self._lines) < self._limit:
            self._lines.append(line)
        else:
            self.dropped += 1

    def stop(self, timeout_s: float = 1.0) -> None:
        """Write the remaining lines and end the thread. What is not written within `timeout_s` is counted as lost."""
        self._stop_by = time.monotonic() + timeout_s
        self._stopping.set()
        join_in_steps(self._thread, timeout_s + 0.1)
        self._drop()
        self.dropped += len(self._lines)
        self._lines = []

    def _run(self, helper: HelperHealth) -> None:
        _append_only(self._stream)
        while True:
            stopping = self._stopping.wait(self._interval_s)
            if not self._pending:
                self._take_lines()
            try:
                takes = self._flush()
            except (OSError, ValueError) as error:  # ValueError: the stream was closed
                if isinstance(error, ValueError) or error.errno in _GONE:
                    self._drop()
                if not helper.failing:
                    _complain(error)
                delay_s = helper.failed(error)
                if stopping:
                    return
                self._stopping.wait(delay_s)
                continue
            if takes:
                helper.succeeded()
            elif not stopping or time.monotonic() < self._stop_by:
                self._wait_for_room()
                continue
            if stopping and not (takes and self._lines):
                return

    def _take_lines(self) -> None:
        lines, self._lines = self._lines, []
        self._reporting = self.dropped - self._reported
        if self._reporting:
            message = f"{self._reporting} log lines were dropped"
            lines.append(_encode({"severity": "WARNING", "message": message}))
        if lines:
            lines.append(b"")
            self._pending = b"\n".join(lines)

    def _flush(self) -> bool:
        """Write what is at hand; False: the stream takes no more at the moment. Raises OSError or ValueError."""
        if not self._pending:
            return True
        stream = self._stream.buffer
        stream = getattr(
            stream, "raw", stream
        )  # unbuffered, so that it is known what was written and what was not
        data = self._pending
        with self._alone():
            try:
                while self._written < len(data):
                    count = stream.write(memoryview(data)[self._written :])
                    if not count:
                        return False
                    self._written += count
            finally:
                if self._lock is not None and 0 < self._written < len(data):
                    # Another worker may write now: what was cut off is ended, and its line written again.
                    begin = data.rfind(b"\n", 0, self._written) + 1
                    self._pending, self._written = b"\n" + data[begin:], 0
        self._pending, self._written = b"", 0
        self._reported += self._reporting
        self._reporting = 0
        return True

    def _drop(self) -> None:
        lost, self._pending = self._pending[self._written :], b""
        self._written = 0
        lines = lost.count(b"\n") - (1 if self._reporting else 0)  # the report itself is no lost line
        self.dropped += lines  # with no call in between: the event loop counts, too
        self._reporting = 0

    def _wait_for_room(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            poll = select.poll()
            poll.register(self._stream.fileno(), select.POLLOUT)
            poll.poll(self._interval_s * 1000)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            # Without its folder, which somebody may have tidied away, a mixed line is better than none.
            with contextlib.suppress(OSError):
                if self._lock is not None:
                    lock = stack.enter_context(self._lock.open("ab"))
                    fcntl.flock(lock, fcntl.LOCK_EX)  # given back when the file is closed
            yield


def _append_only(stream: TextIO) -> None:
    """Where the log is a file: write to its end, wherever that is, also after a rotation that cuts it off (copytruncate)."""
    with contextlib.suppress(OSError, ValueError):
        descriptor = stream.fileno()
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
            fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_APPEND)


def _complain(error: Exception) -> None:
    """On standard error, since the log is what fails."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"error: the log cannot be written, and is tried again: {error}\n")
        sys.stderr.flush()


class JsonFormatter(logging.Formatter):
    """Formats a log record as a JSON object. Its fields have Cloud Logging's names."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "severity": _SEVERITIES.get(record.levelno, "DEFAULT"),
            "time": rfc3339(record.created),
            "message": record.getMessage(),
            "logger": record.name,
        }
        if record.exc_info:
            entry["stack"] = self.formatException(record.exc_info)
        return printable_json(_encode(entry).decode("utf-8"))


class TextFormatter(logging.Formatter):
    """Formats a log record as a line of text for people."""

    def __init__(self, *, colored: bool) -> None:
        super().__init__()
        self._colored = colored

    def format(self, record: logging.LogRecord) -> str:
        severity = _SEVERITIES.get(record.levelno, "DEFAULT")
        shown = colorize(severity, severity.lower()) if self._colored else severity.lower()
        line = f"{local_time_of_day(record.created)} {shown} {printable(record.getMessage())}"
        if not record.exc_info:
            return line
        stack = printable_own_lines(self.formatException(record.exc_info))
        return f"{line}\n{stack}".replace(
            "\n", "\n    "
        )  # so that none of its lines can pass for one of the log's


class _ToWriter(logging.Handler):
    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        self._writer.write(self.format(record).encode("utf-8", "backslashreplace"))


def configure_logging(writer: LogWriter, *, json: bool, level: str) -> None:
    """Configure the standard library's logging: its records go to `writer`. Only the composition root calls this."""
    to_writer = _ToWriter(writer)
    to_writer.setFormatter(JsonFormatter() if json else TextFormatter(colored=writer.colored))
    root = logging.getLogger()
    root.handlers[:] = [to_writer]
    root.setLevel(level.upper())
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def should_log_json(choice: str, stream: TextIO = sys.stdout) -> bool:
    """Whether to log as JSON. It is as `choice` says; for `auto`, where `stream` is not a terminal."""
    return choice == "json" or (choice == "auto" and not stream.isatty())


def rfc3339(seconds: float) -> str:
    """Seconds since the epoch as RFC 3339 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def local_time_of_day(seconds: float) -> str:
    """Seconds since the epoch as local time of day, for a terminal."""
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def colorize(severity: str, text: str) -> str:
    """`text` in the terminal color of a log severity."""
    return f"\033[{_COLORS.get(severity, '0')}m{text}\033[0m"
