"""What a run of tests prints, of a run in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = """
import pytest

@pytest.mark.parametrize("number", range(3))
def test_of_something_missing(number):
    pytest.skip("redis: it is not installed")

@pytest.mark.slow
def test_slow(): ...

def test_that_fails_at_length():
    print("begin" + 3_000_000 * "x" + "end")
    assert 3_000_000 * "y" == ""
"""


@pytest.mark.parametrize("workers", ["0", pytest.param("2", marks=pytest.mark.slow)])
def test_what_did_not_run_is_told_once_and_a_failure_never_fills_the_screen(tmp_path: Path, workers: str):
    (tmp_path / "test_them.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "tests.closing",
            "-n",
            workers,
            "-m",
            "not slow",
            str(tmp_path),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CI": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    assert "    3  redis: it is not installed  (test_them.py)\n" in done.stdout
    assert "    1  left out by -m or -k" in done.stdout
    assert done.stdout.count("redis") == 1
    assert "begin" in done.stdout
    assert "characters left out" in done.stdout
    assert len(done.stdout) < 100_000
