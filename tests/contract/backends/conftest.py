"""Real models, made once for all tests here."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import require
from tests.contract.backends.languages import (
    JULIA_BACKEND,
    R_PACKAGES,
    Julia,
    genie_manifests,
    make_julia,
    run_r,
)

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def wine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a published artifact: the wine model of the examples."""
    folder = tmp_path_factory.mktemp("wine")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CHIPS_")}
    for arguments in (
        ("examples/wine/train.py", str(folder / "out")),
        (
            *("-m", "gateway.cli", "publish", str(folder / "out/model.joblib"), "--model", "wine"),
            *("--version", "1", "--store", str(folder / "store"), "--by", "test"),
            *(
                "--signature",
                str(folder / "out/signature.json"),
                "--samples",
                str(folder / "out/samples.json"),
            ),
        ),
    ):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done
    return folder / "store/wine/1"


@pytest.fixture(scope="session")
def python_environment(wine: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a Python backend that serves it."""
    cache = tmp_path_factory.mktemp("cache")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CHIPS_", "AIP_"))}
    return {
        **kept,
        "CHIPS_MODEL": "wine",
        "CHIPS_VERSION": "1",
        "CHIPS_ARTIFACT": str(wine),
        "CHIPS_CACHE_DIR": str(cache),
        "CHIPS_CONCURRENCY": "2",
    }


@pytest.fixture(scope="session")
def has_r() -> None:
    found = shutil.which("Rscript")
    script = f'for (p in strsplit("{R_PACKAGES}", " ")[[1]]) loadNamespace(p)'
    missing = (
        found is None
        or subprocess.run([found, "--vanilla", "-e", script], capture_output=True, check=False).returncode
    )
    require(
        "r",
        available=not missing,
        why=f"there is no Rscript with the packages {R_PACKAGES} (apt install r-base-core r-cran-…)",
    )


@pytest.fixture(scope="session")
def has_compiler(has_r: None) -> None:
    """Of the R backend's compiled part."""
    require(
        "r",
        available=bool(shutil.which("g++") and shutil.which("make")),
        why="there is no g++ or no make, which the R backend's compiled part needs (apt install g++ make)",
    )


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
def julias(tmp_path_factory: pytest.TempPathFactory) -> list[Julia]:
    """Julia with each release of Genie that is here, as CONTRIBUTING.md says where."""
    program = shutil.which(os.environ.get("JULIA", "julia"))
    require("julia", available=program is not None, why="there is no julia, and JULIA names none")
    manifests = genie_manifests()
    require(
        "julia",
        available=bool(manifests),
        why=f"there is no {JULIA_BACKEND}/Manifest.toml (make -C backends/julia setup), and GENIE_MANIFESTS names none",
    )
    return [make_julia(str(program), path, tmp_path_factory.mktemp("julia")) for path in manifests]


@pytest.fixture(scope="session")
def julia(julias: list[Julia]) -> Julia:
    return julias[0]


@pytest.fixture(scope="session")
def linear_jls(julia: Julia, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of 2x + 3n + k, as Julia serializes them."""
    path = tmp_path_factory.mktemp("linear") / "model.jls"
    julia.run("-e", f'using Serialization; serialize("{path}", [2.0, 3.0, 1.0])')
    return path
