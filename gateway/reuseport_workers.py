"""Runs several worker processes on one port, each with a listening socket of its own (SO_REUSEPORT).

They are forked in advance, restarted when one dies, and drained together. Each worker is a process of its own with its
own loop, connections and limits; the kernel shares new connections out. What they have in common is a
private folder, in which they tell each other their figures.
"""

import contextlib
import math
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.worker_heartbeat_files import LOOKS, HeartbeatMonitor

Tell = Callable[[str, str], None]  # severity, message

_FIRST_DELAY_S: Final = 0.1
_LONGEST_DELAY_S: Final = 10.0
_STEADY_S: Final = 30.0  # a worker that lived so long died of something new
AWAITED: Final = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


def allowed_cpus() -> int:
    """How many CPUs this process may use. Its affinity and its container's quota limit them."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            cpus = min(cpus, math.ceil(int(quota) / int(period)))
    return max(cpus, 1)


def reserve_port(host: str, port: int) -> socket.socket:
    """Reserve a port for the workers.

    Returns a socket that is bound and does not listen. Raises OSError where the port is taken.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    # SO_REUSEPORT alone would let us join a gateway that somebody else runs on this port.
    with socket.socket(family, kind, protocol) as alone:
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        alone.bind(address)
    held = socket.socket(family, kind, protocol)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        # Without SO_REUSEADDR, which would let a second gateway pass the look above until the workers listen.
        held.bind(address)
    except OSError:
        # In the way are connections of a server that was alone on the port and has just ended.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(address)
    return held


class WorkerPool:
    """A pool of `count` worker processes that run `work`.

    It runs until SIGTERM or SIGINT. `work` is given the worker's number, the folder that all share, and a descriptor
    that ends when the supervisor has died; it returns the process's exit code. It begins with the signals of `AWAITED`
    blocked, and unblocks them when it is ready to be told to stop. An exit code in `fatal` means that no other worker
    would fare better. The supervisor alone keeps `reserved`, the socket that holds the port, and closes it when the drain
    begins: a successor may start meanwhile.
    """

    def __init__(
        self,
        count: int,
        work: Callable[[int, Path, int], int],
        *,
        tell: Tell,
        grace_s: float,
        stall_s: float = 30.0,
        fatal: frozenset[int] = frozenset(),
        reserved: socket.socket | None = None,
    ) -> None:
        self._count = count
        self._work = work
        self._tell = tell
        self._grace_s = grace_s
        self._look_s = stall_s / LOOKS
        self._fatal = fatal
        self._reserved = reserved
        self._running: dict[int, tuple[int, float]] = {}  # by process: worker and when it began
        self._due: dict[int, float] = {}  # by worker: when it is started again
        self._delays: dict[int, float] = {}
        self._folder = Path()
        self._heartbeats = HeartbeatMonitor(self._folder)
        self._lifeline = (-1, -1)

    def run(self) -> int:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)
        self._lifeline = os.pipe()
        try:
            with tempfile.TemporaryDirectory(prefix="chips-workers-") as folder:  # only this user may look in
                self._folder = Path(folder)
                self._heartbeats = HeartbeatMonitor(self._folder)
                return self._supervise()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            for descriptor in self._lifeline:
                os.close(descriptor)

    def _supervise(self) -> int:
        for worker in range(self._count):
            self._start(worker)
        look_at = time.monotonic() + self._look_s
        while True:
            now = time.monotonic()
            for worker in [worker for worker, due in self._due.items() if due <= now]:
                del self._due[worker]
                self._start(worker)
            if now >= look_at:
                look_at = now + self._look_s
                self._end_stalled()
            received = signal.sigtimedwait(
                AWAITED, max(0.0, min(look_at, *self._due.values(), now + 3600) - now)
            )
            if received is None:
                continue
            if received.si_signo in {signal.SIGTERM, signal.SIGINT}:
                return self._stop(received.si_signo)
            fatal = self._reap()
            if fatal is not None:
                self._stop(signal.SIGTERM)
                return fatal

    def _end_stalled(self) -> None:
        for process, (worker, _) in self._running.items():
            if self._heartbeats.look_for_stall(worker):
                self._heartbeats.forget(worker)
                self._tell(
                    "ERROR", f"worker {worker} does not come round any more, and is ended (server.stall_s)"
                )
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)

    def _start(self, worker: int) -> None:
        self._heartbeats.forget(worker)
        try:
            process = os.fork()
        except OSError as error:  # no memory, or no process more: that may pass
            self._try_again(worker, f"worker {worker} cannot be started: {error.strerror}")
            return
        if process:
            self._running[process] = (worker, time.monotonic())
            return
        code = 70  # sysexits.h: an error inside
        try:
            os.setpgid(0, 0)  # Ctrl-C is for the supervisor, which passes it on once
            os.close(self._lifeline[1])
            self._give_up_port()
            code = self._work(worker, self._folder, self._lifeline[0])
        except BaseException as error:  # noqa: BLE001  (this process must end here, whatever happened in it)
            self._tell("ERROR", f"worker {worker} failed: {type(error).__name__}: {error}")
        finally:
            os._exit(code)

    def _reap(self) -> int | None:
        """Take note of the workers that have ended; an exit code where all must."""
        fatal = None
        for process, status in _ended():
            worker, began = self._running.pop(process, (-1, 0.0))
            if worker < 0:
                continue
            code = os.waitstatus_to_exitcode(status)
            if code in self._fatal:
                fatal = code  # and on: all of these have been waited for, so all must leave `_running`
                continue
            how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            lived_s = time.monotonic() - began
            if lived_s > _STEADY_S:
                self._delays.pop(worker, None)
            self._try_again(worker, f"worker {worker} ended {how} after {lived_s:.1f} s")
        return fatal

    def _try_again(self, worker: int, why: str) -> None:
        delay_s = self._delays.get(worker, _FIRST_DELAY_S)
        self._delays[worker] = min(delay_s * 2, _LONGEST_DELAY_S)
        self._due[worker] = time.monotonic() + delay_s
        self._tell("ERROR", f"{why}; another one starts in {delay_s:g} s")

    def _stop(self, number: int) -> int:
        """Drain all. A second signal is passed on, too: the workers then stop without waiting, as the exit code says.

        It is passed on as the other of the two: a worker that has not yet seen the first would see two of the same as one.
        """
        code = 0
        other = signal.SIGTERM if number == signal.SIGINT else signal.SIGINT
        self._give_up_port()
        self._send(number)
        end = time.monotonic() + self._grace_s
        while self._running:
            received = signal.sigtimedwait(AWAITED, max(0.0, end - time.monotonic()))
            if received is None:
                self._send(signal.SIGKILL)
                end = time.monotonic() + 5
            elif received.si_signo in {signal.SIGTERM, signal.SIGINT}:
                self._send(other)
                code = 128 + signal.SIGINT
            for process, _ in _ended():
                self._running.pop(process, None)
        return code

    def _give_up_port(self) -> None:
        if self._reserved is not None:
            self._reserved.close()

    def _send(self, number: int) -> None:
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)


def _ended() -> list[tuple[int, int]]:
    ended = []
    with contextlib.suppress(ChildProcessError):
        while True:
            process, status = os.waitpid(-1, os.WNOHANG)
            if not process:
                break
            ended.append((process, status))
    return ended
