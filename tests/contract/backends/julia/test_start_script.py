"""bin/serve: how it starts Julia, shown by a program that stands in for it."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.contract.backends.process import JULIA, ROOT

PROGRAM = """#!/bin/sh
echo "$OPENBLAS_NUM_THREADS $OMP_NUM_THREADS $*"
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "julia"
    path.write_text(PROGRAM)
    path.chmod(0o755)
    return path


def started(program: Path, **environ: str) -> list[str]:
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    done = subprocess.run(
        JULIA, env={**kept, "JULIA": str(program), **environ}, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_slots_share_the_processors(program: Path):
    processors = len(os.sched_getaffinity(0))
    blas, omp, *arguments = started(program, CHIPS_CONCURRENCY="1")
    assert blas == omp
    assert 1 <= int(blas) <= processors
    assert "--threads=1,1" in arguments
    blas, _, *arguments = started(program, CHIPS_CONCURRENCY="64")
    assert blas == "1"
    assert "--threads=64,1" in arguments
    assert started(program, OPENBLAS_NUM_THREADS="7")[0] == "7"


@pytest.mark.parametrize("wrong", ["0", "-1", "x", "99999"])
def test_what_is_no_number_is_left_to_the_program(program: Path, wrong: str):
    assert "--threads=1,1" in started(program, CHIPS_CONCURRENCY=wrong)


def test_the_project_is_the_backend_unless_named(program: Path):
    assert f"--project={ROOT}/backends/julia" in started(program)
    assert "--project=/elsewhere" in started(program, JULIA_PROJECT="/elsewhere")


def test_the_processors_to_compile_for_are_those_of_this_kind_of_machine():
    said = subprocess.run(
        [ROOT / "backends/julia/bin/processor-kinds"], capture_output=True, text=True, check=True
    )
    kinds = said.stdout.strip()
    assert kinds.startswith("generic")
    assert ("haswell" in kinds) is (os.uname().machine == "x86_64")
