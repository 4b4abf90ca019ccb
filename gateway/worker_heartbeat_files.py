"""Files that the workers' event loops touch, so that the supervisor detects one that has stalled.

A worker that hangs keeps its share of the port. Its callers wait while a health check, which
may reach another worker, says that all is well; so the supervisor ends it. It counts its own looks, not seconds: a machine that
sleeps or is throttled stops both, and nobody is ended for that.
"""

import asyncio
import contextlib
from pathlib import Path
from typing import Final

BEAT_S: Final = 1.0
LOOKS: Final = 6  # in vain, one after another


def _file(folder: Path, worker: int) -> Path:
    return folder / f"{worker}.heartbeat"


def start_heartbeat(loop: asyncio.AbstractEventLoop, folder: Path, worker: int) -> None:
    """Start a worker's heartbeat. It touches the worker's file periodically for as long as the event loop runs."""
    with contextlib.suppress(OSError):  # the folder goes when the supervisor ends
        _file(folder, worker).touch()
    loop.call_later(BEAT_S, start_heartbeat, loop, folder, worker)


class HeartbeatMonitor:
    """Detects workers whose heartbeat has stalled. The supervisor uses it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[
            int, tuple[int, int]
        ] = {}  # by worker: when the file was touched, looks since it is the same

    def look_for_stall(self, worker: int) -> bool:
        """Look once, and return whether the worker's heartbeat has stalled.

        It has stalled if it has not moved for `LOOKS` looks in a row: looks count, not seconds. One that has not started is not
        stalled.
        """
        try:
            touched = _file(self._folder, worker).stat().st_mtime_ns
        except OSError:
            return False
        before, looks = self._seen.get(worker, (0, 0))
        looks = looks + 1 if touched == before else 0
        self._seen[worker] = (touched, looks)
        return looks >= LOOKS

    def forget(self, worker: int) -> None:
        """Forget a worker's heartbeat. A new process takes its place."""
        self._seen.pop(worker, None)
        with contextlib.suppress(OSError):
            _file(self._folder, worker).unlink(missing_ok=True)
