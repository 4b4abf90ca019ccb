"""Ends what a run of the tests leaves when it is killed: a process that waits for the end of its input, and then looks.

What a test starts may start others in sessions of their own, as `chips deploy` does; those outlive a run that is killed, whose
fixtures end nothing. All of them have the run's mark, the argument of this program, in their environment.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path


def marked(mark: bytes) -> list[int]:
    """The processes that were started with the mark."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended, or is somebody else's
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


def main() -> None:
    sys.stdin.read()
    while left := marked(os.fsencode(sys.argv[1])):  # again, since they may start others
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


if __name__ == "__main__":
    main()
