"""Supervise one local backend: a process of its own that keeps it running.

It runs until it is told to stop. `python -m gateway.deploy.backend_supervisor NOTE` starts the command of the note
again whenever that ends, after a pause that grows with each end (full jitter, so that several do not start at one
moment) and is short again once the backend has run for a while. What it does stands in a file next to the note, where
`chips ps` and `chips deploy` read it. It needs little memory: the standard library alone.
"""

import contextlib
import fcntl
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
STEADY_S: Final = 60.0  # having run for so long, it counts as started for the first time
STOP_GRACE_S: Final = 12.0
LOG_BYTES: Final = 10 << 20
_CHECK_LOG_S: Final = 60.0
EX_HELD: Final = 75


def status_path(note: Path) -> Path:
    """The path of the supervisor's status file. It belongs to the backend with this note."""
    return note.with_name(note.name.removesuffix(".json") + ".state")


def process_start_time(pid: int) -> int | None:
    """The start time of a process.

    It is field 22 of /proc/PID/stat (proc(5)); None where the process does not exist or is a zombie. A process id can
    be reused; together with its start time it identifies one process.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def write_atomically(path: Path, content: dict[str, Any]) -> None:
    """Replace a file's content atomically. Readers see the old or the new, never a part."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(content, indent=1))
    draft.replace(path)


class BackendSupervisor:
    """Keeps one backend running. It restarts the backend with growing pauses when it ends, and bounds its log."""

    def __init__(self, note: Path) -> None:
        self._note = note
        self._spec: dict[str, Any] = json.loads(note.read_text())
        self._log = Path(self._spec["log"])
        self._state: dict[str, Any] = {
            "supervisor": {"pid": os.getpid(), "started": process_start_time(os.getpid())},
            "backend": None,
            "since": None,
            "ends": 0,
            "last_exit": None,
        }
        self._stopping = False
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._waker, False)

    def run(self) -> None:
        """Keep the backend running until it is told to stop. The signals SIGTERM and SIGINT tell it."""
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        attempt = 0
        while not self._stopping:
            began = time.monotonic()
            code = self._run_once()
            if self.is_stopping():
                break
            attempt = 0 if time.monotonic() - began >= STEADY_S else attempt + 1
            self._tell(backend=None, since=None, ends=self._state["ends"] + 1, last_exit=code)
            self._sleep(random.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(attempt, 10))))  # noqa: S311
        status_path(self._note).unlink(missing_ok=True)

    def _run_once(self) -> int:
        """Start the backend and wait for its end; its exit code, negative for a signal, as in subprocess."""
        try:
            with self._log.open("ab") as log:
                process = subprocess.Popen(  # noqa: S603  (running what backend.toml says is the point)
                    self._spec["command"],
                    cwd=self._spec["folder"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            with self._log.open("a") as log_text:
                log_text.write(f"{self._spec['command'][0]} cannot be started: {error.strerror}\n")
            return 127
        self._tell(
            backend={"pid": process.pid, "started": process_start_time(process.pid)}, since=time.time()
        )
        while process.poll() is None:
            if self._stopping:
                _end(process)
                break
            self._sleep(_CHECK_LOG_S)
            self._cut_log()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it started and left
        return process.wait()

    def is_stopping(self) -> bool:
        return self._stopping

    def _stop(self, *_: Any) -> None:
        self._stopping = True

    def _sleep(self, seconds: float) -> None:
        """Until a signal comes (also that of a child's end), at most `seconds`."""
        if not self._stopping:
            select.select([self._wake], [], [], seconds)
            with contextlib.suppress(BlockingIOError):
                os.set_blocking(self._wake, False)
                os.read(self._wake, 4096)

    def _tell(self, **changes: Any) -> None:
        self._state |= changes
        with contextlib.suppress(OSError):  # a full disk, or a folder that was removed, ends no backend
            write_atomically(status_path(self._note), self._state)

    def _cut_log(self) -> None:
        """The backend writes to the end of the file wherever that is, so it can be emptied under its hands."""
        with contextlib.suppress(OSError):
            if self._log.stat().st_size > LOG_BYTES:
                shutil.copyfile(self._log, self._log.with_name(self._log.name + ".1"))
                os.truncate(self._log, 0)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()


def main() -> int:
    """Run the supervisor of the note named on the command line. Return the exit code."""
    note = Path(sys.argv[1])
    with note.with_name(note.name.removesuffix(".json") + ".held").open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return EX_HELD  # another one supervises it already
        BackendSupervisor(note).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
