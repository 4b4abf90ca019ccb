"""A real backend as a process, in any language: its address, its log, its end."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import requests

from gateway.free_ports import claim_free_port
from tests.patience import patience

ROOT = Path(__file__).resolve().parents[3]
PYTHON = (sys.executable, "-m", "chips_backend")
R = (str(ROOT / "backends/r/entrypoint.sh"),)
JULIA = (str(ROOT / "backends/julia/bin/serve"),)
# As it ships, but with the predict.jl that PREDICT names.
JULIA_PREDICT = (*JULIA, str(ROOT / "backends/julia/test/serve.jl"))
TIMEOUT_S = 180.0  # on a quiet machine


class Backend:
    """Started at once; `ready` waits until it says that it is."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CHIPS_", "AIP_")) and name not in {"PORT", "GOOGLE_CLOUD_PROJECT"}
        }
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**kept, "PORT": str(claim_free_port()), **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.output: list[str] = []
        self._told = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._told:
                self.output.append(line.decode("utf-8").rstrip("\n"))
                self._told.notify_all()
        with self._told:
            self.output.append("")  # the end, also for who waits for a line
            self._told.notify_all()

    @property
    def log(self) -> list[dict[str, Any]]:
        """The lines of the log; what else was written is in `output`."""
        found = []
        with self._told:
            for line in self.output:
                with contextlib.suppress(ValueError):  # it is no entry, or was cut off by kill -9
                    found += [json.loads(line)] if line.startswith("{") else []
        return found

    def wait_for(self, line: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            return next((entry for entry in self.log if line(entry)), None)

        with self._told:
            self._told.wait_for(lambda: found() or self.output[-1:] == [""], patience(TIMEOUT_S))
        entry = found()
        assert entry is not None, "\n".join(self.output)
        return entry

    def ready(self) -> "Backend":
        self.wait_for(lambda entry: str(entry["message"]).startswith("ready"))
        return self

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.wait_for(lambda entry: 'port' in entry)['port']}"

    def ask(self, method: str, path: str, **more: Any) -> requests.Response:
        return requests.request(method, self.url + path, timeout=patience(TIMEOUT_S), **more)

    def predict(self, *instances: Any, **headers: str) -> requests.Response:
        return self.ask("POST", "/predict", json={"instances": instances}, headers=headers)

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> int:
        """Wait for the end; the exit code."""
        code = self._process.wait(patience(TIMEOUT_S))
        self._reader.join(patience(TIMEOUT_S))
        assert not self._reader.is_alive(), "something that it started still runs"
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code

    def stop(self) -> int:
        if self._process.poll() is None:
            self.send_signal(signal.SIGTERM)
        return self.end()

    def kill(self) -> None:
        """End it and all it started, without warning."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self.end()

    def why(self) -> str:
        """Its last words."""
        return str(self.log[-1]["message"]) if self.log else "\n".join(self.output)
