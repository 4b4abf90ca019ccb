"""Code run in R and in Julia, with their backend's functions at hand."""

import os
import subprocess
from pathlib import Path

from tests.contract.backends.process import ROOT

R_PACKAGES = "plumber jsonlite curl openssl filelock"
JULIA_LINEAR = str(Path(__file__).with_name("julia") / "linear.jl")


def run_r(code: str, *arguments: str) -> str:
    sources = f'for (f in sort(Sys.glob("{ROOT}/backends/r/R/*.R"))) source(f)'
    done = subprocess.run(
        ["Rscript", "--vanilla", "-e", sources, "-e", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


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
