"""The three backends as they are measured: each with the same linear model, made by its own language."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.contract.backends.languages import JULIA_LINEAR, run_julia, run_r
from tests.contract.backends.linear import write_joblib
from tests.contract.backends.process import JULIA, PYTHON, R

HERE = Path(__file__).parent
_FIT_IN_R = """
grid <- expand.grid(x = c(-2, 0, 5), n = c(-1L, 0L, 4L), k = c(0, 2, 9))
grid$y <- 2 * grid$x + 3 * grid$n + grid$k
model <- stats::lm(stats::as.formula("y ~ x + n + k", globalenv()), grid)
model$coefficients <- c("(Intercept)" = 0, x = 2, n = 3, k = 1)
saveRDS(model, commandArgs(TRUE)[[1]])
"""


class Language(NamedTuple):
    name: str
    version: str
    command: tuple[str, ...]  # the backend, as its image starts it
    environ: dict[str, str]
    direct: tuple[str, ...]  # calls the model without a backend: FOLDER SECONDS ROWS...
    model: Path


def languages(folder: Path) -> Iterator[Language]:
    """Those whose toolchains are here; their models are written to `folder`."""
    direct = (sys.executable, "-m", "benchmarks.backends.direct")
    model = write_joblib(folder / "model.joblib")
    yield Language("Python", platform.python_version(), PYTHON, {}, direct, model)
    if shutil.which("Rscript"):
        model = folder / "model.rds"
        run_r(_FIT_IN_R, str(model))
        version = run_r("cat(as.character(getRversion()))")
        yield Language("R", version, R, {}, ("Rscript", "--vanilla", str(HERE / "direct.R")), model)
    julia = shutil.which(os.environ.get("JULIA", "julia"))
    if julia:
        model = folder / "model.jls"
        run_julia(julia, "-e", f'using Serialization; serialize("{model}", [2.0, 3.0, 1.0])')
        version = run_julia(julia, "-e", "print(VERSION)")
        environ = {"JULIA": julia, "PREDICT": JULIA_LINEAR}
        command = (julia, "--startup-file=no", str(HERE / "direct.jl"))
        yield Language("Julia", version, JULIA, environ, command, model)


def call(language: Language, *arguments: str) -> str:
    """What the language's own program prints that calls the model directly."""
    done = subprocess.run(
        [*language.direct, *arguments],
        env={**os.environ, **language.environ},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout
