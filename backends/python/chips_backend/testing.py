"""For tests of a model and of this backend: write an artifact, start the backend as a process, talk to it.

write_artifact(folder, {"model.joblib": content}, signature=…, samples=…)
with running({"CHIPS_ARTIFACT": str(folder)}) as backend:
    answer = backend.post("/predict", {"instances": [[1.0, 2.0]]})
"""

import contextlib
import hashlib
import http.client
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

_PATIENCE_S = 45.0


def manifest_of(files: Mapping[str, bytes], /, **fields: Any) -> dict[str, Any]:
    """A manifest of `files`, as `chips publish` would write it; `fields` replace what it says by default."""
    return {
        "schema": 1,
        "model": "test",
        "version": "1",
        "created": "2026-01-01T00:00:00Z",
        "created_by": "test",
        "format": "joblib",
        "files": [
            {"path": path, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for path, content in files.items()
        ],
        **fields,
    }


def write_artifact(folder: Path, files: Mapping[str, bytes], /, **fields: Any) -> Path:
    """Write `files` and their manifest into `folder`."""
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    (folder / "manifest.json").write_text(json.dumps(manifest_of(files, **fields)))
    return folder


class Answer(NamedTuple):
    """A response of the backend under test."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Backend:
    """A running backend. Its log is read all the time, so that it never waits for us."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.port = 0
        self.log: list[dict[str, Any]] = []
        self.errors = b""
        self._new: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._readers = [
            threading.Thread(target=work, daemon=True) for work in (self._read_log, self._read_errors)
        ]
        for reader in self._readers:
            reader.start()

    def _read_log(self) -> None:
        assert self.process.stdout is not None  # noqa: S101
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):
                self._new.put(json.loads(line))
        self._new.put(None)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None  # noqa: S101
        self.errors = self.process.stderr.read()

    def wait_for(self, wanted: str | Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """The next log line that begins with a text, or for which a function is true."""
        matches = wanted if callable(wanted) else lambda line: str(line.get("message", "")).startswith(wanted)
        give_up_at = time.monotonic() + _PATIENCE_S
        while time.monotonic() < give_up_at:
            with contextlib.suppress(queue.Empty):
                line = self._new.get(timeout=1.0)
                if line is None:
                    self._new.put(None)
                    break
                self.log.append(line)
                if matches(line):
                    return line
        raise AssertionError(f"no such line in the log: {wanted}; it has {self.log[-5:]} {self.errors!r}")

    def listen(self) -> "Backend":
        self.port = self.wait_for("listening")["port"]
        return self

    def wait_until_ready(self) -> "Backend":
        self.listen()
        self.wait_for("ready")
        return self

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE_S)

    def ask(
        self, method: str, path: str, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, content, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return self.ask("GET", path, None, headers)

    def post(self, path: str, content: Any, headers: Mapping[str, str] | None = None) -> Answer:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return self.ask("POST", path, body, {"Content-Type": "application/json", **(headers or {})})

    def descendants(self) -> list[int]:
        """The processes that it has started, and those that they have started. One that has just ended may be missing."""
        return _descendants(self.process.pid)

    def end(self, number: int | None = None) -> int:
        """Send a signal, if one is given; return the exit code."""
        if number is not None:
            self.process.send_signal(number)
        code = self.process.wait(_PATIENCE_S)
        for reader in self._readers:
            reader.join(_PATIENCE_S)
        while (line := self._new.get()) is not None:
            self.log.append(line)
        self._new.put(None)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return code

    def kill(self) -> None:
        """End it without warning, where it has not ended yet."""
        self.process.kill()
        self.end()


def _descendants(pid: int) -> list[int]:
    children: list[int] = []
    gone = contextlib.suppress(FileNotFoundError, ProcessLookupError)
    with gone:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with gone:
                children += map(int, (task / "children").read_text().split())
    return children + [one for child in children for one in _descendants(child)]


def start(
    environ: Mapping[str, str], *, command: Sequence[str] = (sys.executable, "-m", "chips_backend")
) -> Backend:
    """Start a backend on a free port, with `environ` and nothing else of ours in its environment.

    Call its `end` or `kill` in the end, also where the test fails; `running` does.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CHIPS_", "AIP_", "GOOGLE_", "K_", "STORAGE_")) and name != "PORT"
    }
    process = subprocess.Popen(  # noqa: S603
        command,
        env={**kept, "PORT": "0", "CHIPS_CONCURRENCY": "2", **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    return Backend(process)


@contextmanager
def running(
    environ: Mapping[str, str], *, command: Sequence[str] = (sys.executable, "-m", "chips_backend")
) -> Iterator[Backend]:
    """As `start`, ready when it is handed over, ended afterwards."""
    backend = start(environ, command=command)
    try:
        yield backend.wait_until_ready()
    finally:
        if backend.process.poll() is None:
            backend.process.send_signal(signal.SIGTERM)
            try:
                backend.process.wait(15)
            except subprocess.TimeoutExpired:
                backend.process.kill()
        backend.end()
