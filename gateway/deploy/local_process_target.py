"""The deployment target that runs backends as local processes.

Each is supervised, and recorded in a small JSON file. A version that is deployed again, with other code or another
artifact, starts next to the one that runs. That one is ended only when the new one is registered: what fails on the way
costs nothing.
"""

import contextlib
import fcntl
import glob
import hashlib
import http.client
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.artifacts.manifest import MANIFEST_NAME
from gateway.deploy.backend_folder import BackendFolder
from gateway.deploy.backend_supervisor import STOP_GRACE_S, process_start_time, status_path, write_atomically
from gateway.deploy.python_with_requirements import python_with_requirements
from gateway.deploy.target import DeployedBackend, DeployError, StepSummary, Tell
from gateway.deploy.try_unpublished_artifact import failure_reason
from gateway.free_ports import claim_free_port

_READY_WITHIN_S: Final = 120.0
_POLL_S: Final = 0.1
_STANDS_STILL_S: Final = 10.0
_LOG_LINES: Final = 40
# Those that this very process started: they are meant to outlive it, and their ends must be collected while it lives.
_children: dict[int, subprocess.Popen[bytes]] = {}


class ProcessIdentity(msgspec.Struct, frozen=True):
    """A process by id and start time. So a reused id is not mistaken for it."""

    pid: int
    started: int | None

    @property
    def is_alive(self) -> bool:
        return self.started is not None and process_start_time(self.pid) == self.started


class BackendSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The specification of a local backend. It is the desired state: commands write it, and the supervisor reads it."""

    model: str
    version: str
    command: tuple[str, ...]
    folder: str
    environment: dict[str, str]
    port: int
    artifact: str
    identity: str  # digest of the sources and the artifact
    log: str
    confirmed: bool = False  # it got as far as the registry
    wanted: bool = True  # False: stopped by hand, so `chips up` leaves it

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class BackendStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The status of a local backend. It is the actual state: the supervisor writes it."""

    supervisor: ProcessIdentity
    backend: ProcessIdentity | None = None
    since: float | None = None  # seconds since the epoch
    ends: int = 0  # how often it ended by itself
    last_exit: int | None = None


class LocalBackend:
    """One backend that runs on this machine. Its note (a JSON file) describes it."""

    def __init__(self, note: Path) -> None:
        self.note = note

    @property
    def spec(self) -> BackendSpec | None:
        spec: BackendSpec | None = _read(self.note, BackendSpec)
        return spec

    @property
    def status(self) -> BackendStatus | None:
        """The status that the supervisor of the backend wrote. None where no supervisor runs."""
        state: BackendStatus | None = _read(status_path(self.note), BackendStatus)
        return state if state is not None and state.supervisor.is_alive else None

    def write_spec(self, spec: BackendSpec) -> None:
        self.note.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.note, msgspec.to_builtins(spec))

    def launch_supervisor(self, environ: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        """Launch the process that supervises the backend. A backend that was left without one is ended first."""
        left: BackendStatus | None = _read(status_path(self.note), BackendStatus)
        if left is not None and left.backend is not None and not left.supervisor.is_alive:
            _signal(left.backend, signal.SIGTERM)
            _wait_for_end(left.backend)
            status_path(self.note).unlink(missing_ok=True)
        spec = self.spec
        if spec is None:
            raise DeployError(f"{self.note} cannot be read", hint="chips deploy writes it again")
        plain = {n: v for n, v in environ.items() if not n.startswith(("CHIPS_", "AIP_"))}
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "gateway.deploy.backend_supervisor", str(self.note)],
            env={**plain, **spec.environment},  # the backend inherits it
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # it runs on when this command, or its terminal, is gone
        )
        _children[process.pid] = process
        return process

    def end(self) -> bool:
        """End the backend and its supervisor. False where none ran."""
        state: BackendStatus | None = _read(status_path(self.note), BackendStatus)
        if state is None:
            return False
        ran = state.supervisor.is_alive or (state.backend is not None and state.backend.is_alive)
        for process in filter(None, (state.supervisor, state.backend)):
            _signal(process, signal.SIGTERM)
            _wait_for_end(process)
            _signal(process, signal.SIGKILL)
        child = _children.pop(state.supervisor.pid, None)
        if child is not None:
            child.wait()
        status_path(self.note).unlink(missing_ok=True)
        return ran

    def delete_note(self) -> None:
        spec = self.spec
        for path in (self.note, status_path(self.note), *([Path(spec.log)] if spec is not None else [])):
            path.unlink(missing_ok=True)

    def is_ready(self, *, timeout_s: float = 2.0) -> bool:
        """Whether the backend says within `timeout_s` that it is ready."""
        spec = self.spec
        if spec is None:
            return False
        try:
            with urllib.request.urlopen(f"{spec.url}/v2/health/ready", timeout=timeout_s) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (OSError, ValueError, http.client.HTTPException):  # another program may have its port
            return False


class LocalProcessTarget:
    """Runs backends as processes of this machine. They are noted below `root` as MODEL/VERSION/PORT.json."""

    name = "local"

    def __init__(self, root: Path, environ: Mapping[str, str]) -> None:
        self._root = root
        self._environ = environ

    def require_deployable(self, folder: BackendFolder) -> StepSummary:
        command = folder.command("python")
        if "/" in command[0] and not (folder.path / command[0]).exists():
            raise DeployError(f"there is no {command[0]}, which backend.toml's command begins with", code=65)
        return f"a process on this machine: {' '.join(command)}"

    def python_interpreter(self, folder: BackendFolder, tell: Tell) -> str:
        """The Python interpreter for a backend folder. The requirements of the folder are installed."""
        return (
            python_with_requirements(folder.path, self._root.parent / "environments", tell)
            if folder.runs_in_python
            else ""
        )

    def build_image(self, folder: BackendFolder, tell: Tell) -> str:  # noqa: ARG002  (a process needs no image)
        return ""

    def start_without_traffic(
        self,
        folder: BackendFolder,
        image: str,  # noqa: ARG002  (a process needs no image)
        artifact: str,
        tell: Tell,
    ) -> DeployedBackend:
        with self._lock(folder.model, folder.version):
            identity = _identity(folder, artifact)
            for local in self.list_backends(folder.model, folder.version):
                spec = local.spec
                if (
                    spec is not None
                    and spec.identity == identity
                    and local.status is not None
                    # One that runs is not given up for a moment in which it stands still.
                    and local.is_ready(timeout_s=_STANDS_STILL_S)
                ):
                    return _deployed(local, tell, "runs already")._replace(is_new=False)
                if spec is None or not spec.confirmed:  # left over from an attempt that went wrong
                    local.end()
                    local.delete_note()
            spec = self._spec(folder, artifact, identity, self.python_interpreter(folder, tell))
            local = LocalBackend(self._note(spec))
            local.write_spec(spec)
            supervisor = local.launch_supervisor(self._environ)
            try:
                tell(f"started; its log is {spec.log}")
                self._wait(local, supervisor)
            except BaseException:
                _end_supervisor(supervisor)
                local.end()
                local.note.unlink(missing_ok=True)  # the log stays
                raise
            return _deployed(local, tell, "is ready")

    def remove_replaced_deployments(self, folder: BackendFolder, deployed: DeployedBackend) -> None:
        with self._lock(folder.model, folder.version):
            for local in self.list_backends(folder.model, folder.version):
                spec = local.spec
                if spec is not None and spec.url == deployed.url:
                    local.write_spec(msgspec.structs.replace(spec, confirmed=True))
                else:
                    local.end()
                    local.delete_note()

    def credentials(self, url: str) -> dict[str, str]:  # noqa: ARG002
        return {}

    def stop(self, model: str, version: str) -> bool:
        with self._lock(model, version):
            ended = False
            for local in self.list_backends(model, version):
                ended = local.end() or ended
                local.delete_note()
        return ended

    def list_backends(self, model: str | None = None, version: str | None = None) -> list[LocalBackend]:
        """List the backends on this machine. They are those noted here, or those of one model or version."""
        wanted = ["*" if part is None else glob.escape(part) for part in (model, version)]
        return [LocalBackend(note) for note in sorted(self._root.glob(f"{wanted[0]}/{wanted[1]}/*.json"))]

    def _note(self, spec: BackendSpec) -> Path:
        return self._root / spec.model / spec.version / f"{spec.port}.json"

    def _spec(self, folder: BackendFolder, artifact: str, identity: str, python: str) -> BackendSpec:
        port = self._free_port()
        return BackendSpec(
            model=folder.model,
            version=folder.version,
            command=tuple(folder.command(python)),
            folder=str(folder.path.absolute()),
            environment={
                "CHIPS_MODEL": folder.model,
                "CHIPS_VERSION": folder.version,
                "CHIPS_ARTIFACT": artifact,
                "CHIPS_CONCURRENCY": str(folder.settings.concurrency),
                "PORT": str(port),
                **folder.environment(),
            },
            port=port,
            artifact=artifact,
            identity=identity,
            log=str(self._root / folder.model / folder.version / f"{port}.log"),
        )

    def _free_port(self) -> int:
        noted = {spec.port for local in self.list_backends() if (spec := local.spec) is not None}
        try:
            return claim_free_port(noted)
        except OSError as error:
            raise DeployError(str(error)) from None

    def _wait(self, local: LocalBackend, supervisor: "subprocess.Popen[bytes]") -> None:
        give_up_at = time.monotonic() + _READY_WITHIN_S
        while time.monotonic() < give_up_at:
            state = local.status
            if (state is not None and state.ends) or supervisor.poll() is not None:
                raise DeployError(f"the backend ended before it was ready:\n{_tail(local)}", code=70)
            if local.is_ready():
                return
            time.sleep(_POLL_S)
        spec = local.spec
        raise DeployError(
            f"the backend was not ready within {_READY_WITHIN_S:.0f} seconds",
            hint=f"its log is {spec.log}" if spec is not None else "",
        )

    @contextlib.contextmanager
    def _lock(self, model: str, version: str) -> Iterator[None]:
        """Two deploys of one version at once: one waits, and finds what the other made."""
        path = self._root / model / version / "lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield


def _identity(folder: BackendFolder, artifact: str) -> str:
    """What runs, as a digest: the folder's own files, and the artifact where it lies in a folder, else its address."""
    found = hashlib.sha256(folder.sources_fingerprint_for_restart().encode())
    try:
        found.update((Path(artifact.removeprefix("file://")) / MANIFEST_NAME).read_bytes())
    except OSError:
        found.update(artifact.encode())
    return found.hexdigest()


def _deployed(local: LocalBackend, tell: Tell, what: str) -> DeployedBackend:
    spec, state = local.spec, local.status
    if spec is None or state is None or state.backend is None:
        raise DeployError("the backend ended just now", hint="run the same command again", code=70)
    tell(f"process {state.backend.pid} {what}")
    return DeployedBackend(spec.url, f"process {state.backend.pid}")


def _read(path: Path, kind: Any) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _signal(process: ProcessIdentity, number: int) -> None:
    if process.is_alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def _end_supervisor(supervisor: "subprocess.Popen[bytes]") -> None:
    """End a supervisor of ours, also one that has not written its status yet. It ends its backend first."""
    supervisor.terminate()
    try:
        supervisor.wait(STOP_GRACE_S + 2)
    except subprocess.TimeoutExpired:
        supervisor.kill()
        supervisor.wait()
    _children.pop(supervisor.pid, None)


def _wait_for_end(process: ProcessIdentity) -> None:
    give_up_at = time.monotonic() + STOP_GRACE_S + 2
    while process.is_alive and time.monotonic() < give_up_at:
        time.sleep(_POLL_S / 5)


def _tail(local: LocalBackend) -> str:
    spec = local.spec
    try:
        lines = Path(spec.log if spec is not None else "").read_text(errors="replace").splitlines()
    except OSError:
        return "(no log)"
    return failure_reason(lines[-_LOG_LINES:]) or "(it said nothing)"
