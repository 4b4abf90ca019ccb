"""Deploying to this machine: a process of its own that outlives the command, found again by a small file."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from gateway.deploy.folder import BackendFolder
from gateway.deploy.target import Deployed, DeployError, Tell
from gateway.verify.backend_process import free_port

_READY_WITHIN_S: Final = 120.0
_STOP_WITHIN_S: Final = 12.0
_POLL_S: Final = 0.1


# Those that this very process started: they are meant to outlive it, and their ends must be collected while it lives.
_children: dict[int, subprocess.Popen[bytes]] = {}


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A process that was started here. A number can be given to another process, its start time cannot."""

    pid: int
    started: int  # clock ticks since boot, as /proc tells
    port: int
    artifact: str
    log: str


class LocalTarget:
    """Processes are noted below `state`, one file for each version of each model."""

    name = "local"

    def __init__(self, state: Path, environ: Mapping[str, str]) -> None:
        self._state = state
        self._environ = environ

    def check(self, folder: BackendFolder) -> str:
        command = folder.command()
        if "/" in command[0] and not (folder.path / command[0]).exists():
            raise DeployError(f"there is no {command[0]}, which backend.toml's command begins with", code=65)
        return f"a process on this machine: {' '.join(command)}"

    def build(self, folder: BackendFolder, tell: Tell) -> str:  # noqa: ARG002  (a process needs no image)
        return ""

    def start(self, folder: BackendFolder, image: str, artifact: str, tell: Tell) -> Deployed:  # noqa: ARG002
        with self._lock(folder.model, folder.version):
            running = self._running(folder.model, folder.version)
            if running is not None and running.artifact != artifact:
                tell("another artifact runs under this version: it is replaced")
                _end(running)
                running = None
            if running is None:
                running = self._spawn(folder, artifact)
                self._note(folder.model, folder.version).write_bytes(msgspec.json.encode(running))
                tell(f"started as process {running.pid}; its log is {running.log}")
            else:
                tell(f"process {running.pid} runs already")
            self._wait(running)
        return Deployed(f"http://127.0.0.1:{running.port}", f"process {running.pid}")

    def credentials(self, url: str) -> dict[str, str]:  # noqa: ARG002
        return {}

    def stop(self, model: str, version: str) -> bool:
        with self._lock(model, version):
            running = self._running(model, version)
            if running is not None:
                _end(running)
            self._note(model, version).unlink(missing_ok=True)
        return running is not None

    def _spawn(self, folder: BackendFolder, artifact: str) -> Running:
        command = folder.command()
        if command[0] == "python":
            command[0] = sys.executable  # the one that runs this, with its packages
        port = free_port()
        log = self._note(folder.model, folder.version).with_suffix(".log")
        environ = {
            name: value for name, value in self._environ.items() if not name.startswith(("CHIPS_", "AIP_"))
        }
        environ |= {
            "CHIPS_MODEL": folder.model,
            "CHIPS_VERSION": folder.version,
            "CHIPS_ARTIFACT": artifact,
            "CHIPS_CONCURRENCY": str(folder.settings.concurrency),
            "PORT": str(port),
        }
        try:
            with log.open("wb") as stream:
                process = subprocess.Popen(  # noqa: S603  (running what backend.toml says is the point)
                    command,
                    cwd=folder.path,
                    env=environ,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # it runs on when this command, or its terminal, is gone
                )
        except OSError as error:
            raise DeployError(f"{command[0]} cannot be started: {error.strerror}", code=65) from error
        _children[process.pid] = process
        return Running(
            pid=process.pid, started=_start_time(process.pid) or 0, port=port, artifact=artifact, log=str(log)
        )

    def _wait(self, running: Running) -> None:
        give_up_at = time.monotonic() + _READY_WITHIN_S
        while time.monotonic() < give_up_at:
            if not _is_alive(running):
                raise DeployError(
                    f"the backend ended before it was ready:\n{_tail(Path(running.log))}", code=70
                )
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(
                    f"http://127.0.0.1:{running.port}/v2/health/ready", timeout=2
                ) as answer,
            ):
                if answer.status == 200:
                    return
            time.sleep(_POLL_S)
        raise DeployError(
            f"the backend was not ready within {_READY_WITHIN_S:.0f} seconds",
            hint=f"its log is {running.log}",
        )

    def _running(self, model: str, version: str) -> Running | None:
        try:
            running = msgspec.json.decode(self._note(model, version).read_bytes(), type=Running)
        except (OSError, msgspec.MsgspecError):
            return None
        return running if _is_alive(running) else None

    def _note(self, model: str, version: str) -> Path:
        return self._state / model / f"{version}.json"

    @contextlib.contextmanager
    def _lock(self, model: str, version: str) -> Iterator[None]:
        """Two deploys of one version at once: one waits, and finds what the other made."""
        path = self._note(model, version).with_suffix(".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield


def _start_time(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat (proc(5)); None where there is no such process, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def _is_alive(running: Running) -> bool:
    return _start_time(running.pid) == running.started


def _end(running: Running) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.pid, number)
        give_up_at = time.monotonic() + _STOP_WITHIN_S
        while _is_alive(running) and time.monotonic() < give_up_at:
            time.sleep(_POLL_S)
        if not _is_alive(running):
            break
    child = _children.pop(running.pid, None)
    if child is not None:
        child.wait()


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return "(no log)"
    return "\n".join(lines[-8:])
