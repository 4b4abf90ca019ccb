"""What the backend's tests share. They also run in a copy of this folder alone; what needs Cloud Storage is skipped there."""

import importlib
import importlib.util
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chips_backend import testing
from chips_backend.logs import Log
from chips_backend.testing import Backend, running, write_artifact
from hypothesis import HealthCheck, settings

# A busy machine is slow: no test may fail by the time that one example takes. The examples are the same in each run.
settings.register_profile(
    "chips-backend",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("chips-backend")

_REPOSITORY = Path(__file__).resolve().parents[3]

if (_REPOSITORY / "tests/gcs/fixture.py").exists():
    if str(_REPOSITORY) not in sys.path:
        sys.path.append(str(_REPOSITORY))
    pytest.register_assert_rewrite("tests.gcs.fixture")
    _fixture = importlib.import_module("tests.gcs.fixture")
    gcs_url, gcs = _fixture.gcs_url, _fixture.gcs
    pytest_plugins = ["tests.leftovers"]
    _QUIET_S = testing._PATIENCE_S

    def pytest_runtest_setup() -> None:
        """Each test has what the machine needs by then."""
        testing._PATIENCE_S = importlib.import_module("tests.patience").patience(_QUIET_S)

else:

    @pytest.fixture
    def gcs() -> None:
        pytest.skip("Cloud Storage: the server for tests lies in the repository of CHIPS")


# A model whose requests say what it must do: the sum of each row, or trouble.
MODEL = """
import asyncio, os, time
from pathlib import Path

from chips_backend.model import Refused

PARAMETERS = {"begun": str, "gate": str, "as": object, "flag": bool}

def load(folder):
    if (folder / "broken").exists():
        raise RuntimeError("cannot be loaded")
    return folder

def predict(model, rows, parameters):
    if "begun" in parameters:
        Path(parameters["begun"], str(time.monotonic_ns())).touch()
    while "gate" in parameters and not Path(parameters["gate"]).exists():
        time.sleep(0.005)
    for row in rows:
        if row[0] == -1.0:
            raise RuntimeError("the model's secret reason")
        if row[0] == -2.0:
            raise Refused("there is no such wine")
        if row[0] == -3.0:
            os._exit(3)
        if row[0] == -4.0:
            next(iter(()))
        if row[0] == -5.0:
            raise SystemExit(3)
        if row[0] == -6.0:
            raise KeyboardInterrupt
        if row[0] == -7.0:
            raise asyncio.CancelledError
        if row[0] == -8.0:
            raise GeneratorExit
        while row[0] == -9.0:
            time.sleep(0.01)
    return [parameters.get("as", sum(value or 0 for value in row)) for row in rows]
"""

SIGNATURE = {
    "inputs": [
        {"name": "a", "datatype": "FP64", "shape": [-1]},
        {"name": "b", "datatype": "INT64", "shape": [-1]},
    ],
    "outputs": [{"name": "sum", "datatype": "FP64", "shape": [-1]}],
}
SAMPLES = [{"request": {"instances": [{"a": 1.5, "b": 2}]}, "response": {"predictions": [3.5]}}]


def _write_model(folder: Path, **fields: Any) -> Path:
    return write_artifact(
        folder,
        {"model.py": MODEL.encode()},
        **{"format": "python", "signature": SIGNATURE, "samples": SAMPLES, **fields},
    )


@pytest.fixture
def write_model() -> Callable[..., Path]:
    """Write an artifact of the model above; what is named replaces what its manifest says."""
    return _write_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return _write_model(tmp_path / "artifact")


@pytest.fixture
def in_processes() -> tuple[str, ...]:
    """The command, with the model in processes instead of threads."""
    code = "from chips_backend import predict; predict.RUNS_IN = 'process'; from chips_backend.__main__ import run; run()"
    return (sys.executable, "-c", code)


@pytest.fixture
def start() -> Iterator[Callable[..., Backend]]:
    """`testing.start`; however the test goes, what it started ends with it."""
    started: list[Backend] = []

    def begin(*positional: Any, **named: Any) -> Backend:
        started.append(testing.start(*positional, **named))
        return started[-1]

    yield begin
    for one in started:
        one.kill()


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """One backend for all tests of a file: each leaves it as it was."""
    artifact = _write_model(tmp_path_factory.mktemp("backend") / "artifact")
    environ = {
        "CHIPS_ARTIFACT": str(artifact),
        "CHIPS_MODEL": "test",
        "CHIPS_VERSION": "1",
        "CHIPS_MAX_BODY_BYTES": "100000",
        "GOOGLE_CLOUD_PROJECT": "the-project",
        "K_SERVICE": "wine-backend",
    }
    with running(environ) as started:
        yield started


@pytest.fixture
def log() -> Log:
    return Log(io.StringIO())
