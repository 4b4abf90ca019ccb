"""The R backend's own unit tests, by the word that its Makefile has for them."""

import subprocess

import pytest

from tests.contract.backends.process import ROOT


@pytest.mark.timeout(240)
@pytest.mark.slow
def test_testthat(has_r: None):
    done = subprocess.run(
        ["make", "-C", str(ROOT / "backends/r"), "test"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "workers: ..." in done.stdout
