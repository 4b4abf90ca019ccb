"""Backends in real Julia, and their functions."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require
from tests.contract.backends.languages import JULIA_LINEAR, Julia
from tests.contract.backends.linear import SAMPLES, SIGNATURE
from tests.contract.backends.process import JULIA_PREDICT, Backend

Start = Callable[[Mapping[str, Any]], Backend]


@pytest.fixture(scope="session", params=["genie", pytest.param("other genie", marks=pytest.mark.slow)])
def each_julia(request: pytest.FixtureRequest, julias: list[Julia]) -> Julia:
    """Julia with the first release of Genie, and in slow tests with the second, for what depends on the web server."""
    at = 0 if request.param == "genie" else 1
    require("julia", available=at < len(julias), why="GENIE_MANIFESTS names one release of Genie only")
    return julias[at]


@pytest.fixture
def start_julia(each_julia: Julia) -> Iterator[Start]:
    """Start Julia backends, and kill those that still run at the end."""
    started: list[Backend] = []

    def start(environ: Mapping[str, Any]) -> Backend:
        given = {name: str(value) for name, value in environ.items()}
        started.append(Backend(JULIA_PREDICT, {**each_julia.environ, "PREDICT": JULIA_LINEAR, **given}))
        return started[-1]

    yield start
    for backend in started:
        backend.kill()


class Driver:
    """The backend's functions, called one after another in one Julia."""

    def __init__(self, julia: Julia) -> None:
        self._process = subprocess.Popen(
            [julia.program, "--startup-file=no", str(Path(__file__).with_name("driver.jl"))],
            env={**os.environ, **julia.environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _call(self, call: str, **given: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"call": call, **given}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def obtain(self, artifact: str, cache_dir: Path, **environ: str) -> dict[str, Any]:
        return self._call("obtain", artifact=artifact, cache_dir=str(cache_dir), environ=environ)

    def publish(self, source: Path, store: str, version: str = "1", **environ: str) -> dict[str, Any]:
        return self._call(
            "publish",
            source=str(source),
            model="linear",
            version=version,
            store=store,
            signature=SIGNATURE,
            samples=SAMPLES,
            environ=environ,
        )

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="session")
def driver(julia: Julia) -> Iterator[Driver]:
    driver = Driver(julia)
    yield driver
    driver.close()
