"""Real R, and artifacts for it."""

import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require
from tests.contract.backends.linear import publish
from tests.contract.backends.process import ROOT, Backend, R

PACKAGES = "plumber jsonlite curl openssl filelock"


@pytest.fixture(scope="session")
def has_r() -> None:
    found = shutil.which("Rscript")
    script = f'for (p in strsplit("{PACKAGES}", " ")[[1]]) loadNamespace(p)'
    missing = (
        found is None
        or subprocess.run([found, "--vanilla", "-e", script], capture_output=True, check=False).returncode
    )
    require("r", available=not missing, why=f"there is no Rscript with the packages {PACKAGES}")


def run_r(code: str, *arguments: str) -> str:
    """Run R code with the backend's functions at hand."""
    sources = f'for (f in sort(Sys.glob("{ROOT}/backends/r/R/*.R"))) source(f)'
    done = subprocess.run(
        ["Rscript", "--vanilla", "-e", sources, "-e", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def linear_rds(has_r: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2x + 3n + k, as R fits it."""
    path = tmp_path_factory.mktemp("linear") / "model.rds"
    run_r(
        "grid <- expand.grid(x = c(-2, 0, 5), n = c(-1L, 0L, 4L), k = c(0, 2, 9));"
        "grid$y <- 2 * grid$x + 3 * grid$n + grid$k;"
        "formula <- stats::as.formula('y ~ x + n + k', globalenv());"
        "model <- stats::lm(formula, grid);"
        "model$coefficients <- c('(Intercept)' = 0, x = 2, n = 3, k = 1);"
        f"saveRDS(model, '{path}')"
    )
    return path


@pytest.fixture(scope="session")
def linear_store(linear_rds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store")
    publish(str(store), linear_rds, "linear")
    return store


Start = Callable[..., Backend]


@pytest.fixture
def start_r(has_r: None) -> Iterator[Start]:
    """Start R backends; what still runs at the end is killed."""
    started: list[Backend] = []

    def start(environ: Mapping[str, Any], command: Sequence[str] = R) -> Backend:
        backend = Backend(
            command,
            {"CHIPS_MODEL": "linear", "CHIPS_VERSION": "1", **{k: str(v) for k, v in environ.items()}},
        )
        started.append(backend)
        return backend

    yield start
    for backend in started:
        backend.kill()
