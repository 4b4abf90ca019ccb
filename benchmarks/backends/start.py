"""From a process's start to live, fetched and ready: with nothing in the cache, and with everything."""

import http.client
import json
import os
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.backends.languages import Language
from benchmarks.machine import rss_mb, tree
from gateway.free_ports import claim_free_port
from tests.contract.backends.process import ROOT

_PATIENCE_S = 120.0
_LOOK_S = 0.01


class Started:
    """A backend, and the moment of each line of its log."""

    def __init__(self, language: Language, artifact: str, cache: Path, **environ: str) -> None:
        self.port = claim_free_port()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CHIPS_", "AIP_"))}
        ours = {
            "PORT": str(self.port),
            "CHIPS_ARTIFACT": artifact,
            "CHIPS_CACHE_DIR": str(cache),
            "CHIPS_CONCURRENCY": "1",
        }
        self._began = time.perf_counter()
        self.process = subprocess.Popen(
            language.command,
            cwd=ROOT,
            env={**kept, **ours, **language.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.times: dict[str, float] = {}
        self._said: list[str] = []
        self._is_ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            now = time.perf_counter() - self._began
            self._said.append(raw.decode("utf-8", "replace"))
            message = str(json.loads(raw).get("message")) if raw.startswith(b"{") else ""
            if message.endswith("is complete and checked"):
                self.times["fetched_s"] = now
            elif message.startswith("ready"):
                self.times["ready_s"] = now
                self._is_ready.set()
        self._is_ready.set()

    def wait(self) -> "Started":
        while "live_s" not in self.times and self.process.poll() is None:
            if self._answers():
                self.times["live_s"] = time.perf_counter() - self._began
            elif time.perf_counter() - self._began > _PATIENCE_S:
                break
            else:
                time.sleep(_LOOK_S)
        self._is_ready.wait(_PATIENCE_S)
        if len(self.times) != 3:
            raise RuntimeError("".join(self._said[-20:]))
        return self

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE_S)
        try:
            connection.request("GET", "/v2/health/live")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def running(language: Language, artifact: str, cache: Path, **environ: str) -> Iterator[Started]:
    backend = Started(language, artifact, cache, **environ)
    try:
        yield backend.wait()
    finally:
        if backend.process.poll() is None:
            backend.stop()


def measure(language: Language, artifact: str, *, times: int, **environ: str) -> list[dict[str, Any]]:
    """Medians of `times` starts with an empty cache, each followed by one with what that has left there."""
    found: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    for _ in range(times):
        with tempfile.TemporaryDirectory() as cache:
            for starts in found.values():
                with running(language, artifact, Path(cache), **environ) as backend:
                    starts.append({**backend.times, "rss_mb": rss_mb(tree(backend.process.pid))})
    return [
        {
            "language": language.name,
            "cache": kind,
            **{name: round(statistics.median(start[name] for start in starts), 3) for name in starts[0]},
        }
        for kind, starts in found.items()
    ]
