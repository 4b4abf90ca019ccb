"""The Python backend keeps the contract, every sentence of it that the kit can check."""

import shlex
import sys
from pathlib import Path

import pytest

from gateway.testing import BackendContractTests, BackendUnderTest
from tests.patience import patience

pytestmark = pytest.mark.timeout(300)  # all checks run before the first test reports


class TestPythonBackend(BackendContractTests):
    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls, wine: Path, python_environment: dict[str, str]) -> BackendUnderTest:
        return BackendUnderTest(
            command=shlex.join([sys.executable, "-m", "chips_backend"]),
            environment=python_environment,
            samples=wine / "manifest.json",
            ready_within_s=patience(120),
            not_applicable={
                "invalid/fraction-for-integer": "all inputs of the wine model are FP64",
                "invalid/number-for-text": "all inputs of the wine model are FP64",
            },
        )
