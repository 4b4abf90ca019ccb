"""Processes of a benchmark: pinned to a CPU, waited for, ended with whatever they started."""

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from typing import Any

from benchmarks import machine


def pinned(cpu: int, command: list[str], **more: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["taskset", "-c", str(cpu), *command], start_new_session=True, **more)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End it with all it has started, also what outlives its parent."""
    pids = machine.tree(process.pid)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in reversed(pids):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        end = time.monotonic() + 10
        while pids and time.monotonic() < end:
            process.poll()
            pids = [pid for pid in pids if machine.runs(pid)]
            time.sleep(0.05)
    process.wait(10)


def wait_for_port(port: int, process: subprocess.Popen[bytes], timeout_s: float = 30) -> float:
    """Seconds until somebody listens."""
    began = time.perf_counter()
    while time.perf_counter() - began < timeout_s:
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
        except OSError:
            time.sleep(0.005)
            continue
        return time.perf_counter() - began
    raise RuntimeError(f"nobody listens on port {port}")
