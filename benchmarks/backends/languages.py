"""The three backends as they are measured: each with the same linear model, made by its own language."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.contract.backends.languages import JULIA_LINEAR, genie_manifests, make_julia, run_r
from tests.contract.backends.linear import write_joblib
from tests.contract.backends.process import JULIA_PREDICT, PYTHON, R

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
    program, manifests = shutil.which(os.environ.get("JULIA", "julia")), genie_manifests()
    if program and manifests:
        project = folder / "julia"
        project.mkdir()
        julia = make_julia(program, manifests[0], project)
        model = folder / "model.jls"
        julia.run("-e", f'using Serialization; serialize("{model}", [2.0, 3.0, 1.0])')
        version = julia.run("-e", "print(VERSION)")
        environ = {**julia.environ, "PREDICT": JULIA_LINEAR}
        command = (program, "--startup-file=no", str(HERE / "direct.jl"))
        yield Language("Julia", version, JULIA_PREDICT, environ, command, model)


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
