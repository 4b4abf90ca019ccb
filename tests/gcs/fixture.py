"""The fixture `gcs`: the server as a process, one for the whole run, with a bucket for each test."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.patience import patience

_ROOT = Path(__file__).parents[2]


class Gcs:
    def __init__(self, url: str) -> None:
        self.url = url
        self.bucket = f"test-{uuid4().hex[:12]}"
        self._ask("POST", "/storage/v1/b", {"name": self.bucket})

    def fault(self, **fault: Any) -> None:
        """Plan a fault: see tests/gcs/faults.py for its fields."""
        self._ask("POST", "/_faults", fault)

    def clear(self) -> None:
        self._ask("DELETE", "/_faults")
        self._ask("DELETE", "/_requests")

    def requests(self) -> list[tuple[str, str]]:
        """The requests since the last `clear`, as (method, path)."""
        return [(seen["method"], seen["path"]) for seen in self._ask("GET", "/_requests")]

    def _ask(self, method: str, path: str, content: Any = None) -> Any:
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(
            self.url + path, data=body, method=method, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=patience(10)) as response:
            text = response.read()
        return json.loads(text) if text else None


@pytest.fixture(scope="session")
def gcs_url() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.gcs"], cwd=_ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    yield line.removeprefix("listening on ").strip()
    process.terminate()
    process.wait(patience(10))
    process.stdout.close()


@pytest.fixture
def gcs(gcs_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gcs]:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_url)
    server = Gcs(gcs_url)
    server.clear()
    yield server
    server.clear()
