"""What a process tree takes besides CPU time: page faults, memory, system calls, instructions."""

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

_SETTLE_S = 3.0
_ATTACH_S = 1.0


def minor_faults(pids: list[int]) -> int:
    """Pages that were mapped without reading a disk, since the start."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            total += int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])
    return total


def settle() -> None:
    """Time for a program to give back what it needs no more."""
    time.sleep(_SETTLE_S)


def calls_per_request(pids: list[int], load: Callable[[], dict[str, Any]]) -> dict[str, float]:
    """System calls a request under `load`, which strace slows down; nothing where it cannot attach."""
    if not shutil.which("strace"):
        return {}
    command = ["strace", "-c", "-f", *(f"--attach={pid}" for pid in pids)]
    output, requests = _watched(command, load)
    total = re.search(r"^100\.00 +\S+ +(?:\d+ +)?(\d+)(?: +\d+)? +total$", output, re.MULTILINE)
    return {"calls": int(total[1]) / requests} if total and requests else {}


def instructions_per_request(pids: list[int], load: Callable[[], dict[str, Any]]) -> dict[str, float]:
    """Instructions of user space a request; nothing where the machine shows no counters, as virtual ones seldom do."""
    if not shutil.which("perf"):
        return {}
    command = ["perf", "stat", "-x,", "-e", "instructions:u", "-p", ",".join(map(str, pids))]
    output, requests = _watched(command, load)
    count = re.search(r"^(\d+),[^,]*,instructions", output, re.MULTILINE)
    return {"instructions": int(count[1]) / requests} if count and requests else {}


def _watched(command: list[str], load: Callable[[], dict[str, Any]]) -> tuple[str, int]:
    """What `command` writes about the time of `load`, and how many requests there were."""
    watcher = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    time.sleep(_ATTACH_S)
    try:
        requests = int(load()["requests"]) if watcher.poll() is None else 0
    finally:
        with suppress(ProcessLookupError):
            watcher.send_signal(signal.SIGINT)
    return watcher.communicate(timeout=30)[1], requests
