"""The R backend keeps the contract, every sentence of it that the kit can check, with a model that R published itself."""

import os
from pathlib import Path

import pytest

from gateway.testing import BackendContractTests, BackendUnderTest
from tests.contract.backends.languages import run_r
from tests.contract.backends.process import R
from tests.patience import patience

pytestmark = pytest.mark.timeout(300)  # all checks run before the first test reports

PUBLISH = """
seen <- data.frame(x = c(0, 1, 2, 0, 1, 3), n = c(0L, 2L, 1L, 5L, 3L, 2L), kind = c("a", "b", "b", "a", "a", "b"))
seen$y <- 2 * seen$x + 3 * seen$n + ifelse(seen$kind == "a", 1, 0)
model <- stats::lm(stats::as.formula("y ~ x + n + kind", globalenv()), seen)
row <- list(x = 1.5, n = 2L, kind = "b")
samples <- list(
  list(request = list(instances = list(row)), response = list(predictions = I(9))),
  list(request = list(instances = list(list(0.5, 1L, "a"), row)), response = list(predictions = c(5, 9)))
)
inputs <- list(chips_tensor("x", "FP64"), chips_tensor("n", "INT32"), chips_tensor("kind", "BYTES"))
chips_publish(model, "mixed", "1", inputs, list(chips_tensor("y")), samples, store = commandArgs(TRUE)[1])
"""


@pytest.fixture(scope="module")
def artifact(has_r: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("mixed")
    run_r(PUBLISH, str(store))
    return store / "mixed" / "1"


def under_test(artifact: Path, compiled: str, **not_applicable: str) -> BackendUnderTest:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CHIPS_", "AIP_"))}
    return BackendUnderTest(
        command=R[0],
        environment={
            **kept,
            "CHIPS_MODEL": "mixed",
            "CHIPS_VERSION": "1",
            "CHIPS_ARTIFACT": str(artifact),
            "CHIPS_CONCURRENCY": "2",
            "CHIPS_COMPILED": compiled,
        },
        samples=artifact / "manifest.json",
        ready_within_s=patience(120),
        not_applicable=not_applicable,
    )


class TestRBackend(BackendContractTests):
    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls, artifact: Path, has_compiler: None) -> BackendUnderTest:
        return under_test(artifact, "auto")


@pytest.mark.slow
class TestRBackendWithoutItsCompiledPart(BackendContractTests):
    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls, artifact: Path) -> BackendUnderTest:
        closes = {"headers/no-stall": "httpuv would stall, so each connection is closed"}
        return under_test(artifact, "off", **closes)
