"""Real Julia, artifacts for it, and its functions."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require
from tests.contract.backends.linear import SAMPLES, SIGNATURE
from tests.contract.backends.process import JULIA, ROOT, Backend

LINEAR = str(Path(__file__).with_name("linear.jl"))


@pytest.fixture(scope="session")
def julia() -> str:
    """The program, which the environment may name: backends/julia/ci/install.sh makes one."""
    found = shutil.which(os.environ.get("JULIA", "julia"))
    require("julia", available=found is not None, why="there is no julia, and JULIA names none")
    return str(found)


def run_julia(julia: str, *arguments: str, **environ: str) -> str:
    done = subprocess.run(
        [julia, "--startup-file=no", *arguments],
        cwd=ROOT / "backends/julia",
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def linear_jls(julia: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of 2x + 3n + k, as Julia serializes them."""
    path = tmp_path_factory.mktemp("linear") / "model.jls"
    run_julia(julia, "-e", f'using Serialization; serialize("{path}", [2.0, 3.0, 1.0])')
    return path


Start = Callable[[Mapping[str, Any]], Backend]


@pytest.fixture
def start_julia(julia: str) -> Iterator[Start]:
    """Start Julia backends; what still runs at the end is killed."""
    started: list[Backend] = []

    def start(environ: Mapping[str, Any]) -> Backend:
        given = {name: str(value) for name, value in environ.items()}
        started.append(Backend(JULIA, {"JULIA": julia, "PREDICT": LINEAR, **given}))
        return started[-1]

    yield start
    for backend in started:
        backend.kill()


class Driver:
    """The backend's functions, called one after another in one Julia."""

    def __init__(self, julia: str) -> None:
        self._process = subprocess.Popen(
            [julia, "--startup-file=no", "--optimize=1", str(Path(__file__).with_name("driver.jl"))],
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
def driver(julia: str) -> Iterator[Driver]:
    driver = Driver(julia)
    yield driver
    driver.close()
