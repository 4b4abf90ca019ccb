"""The Julia backend keeps the contract, every sentence of it that the kit can check, with a model trained and published by Julia."""

import os
import shlex
from pathlib import Path

import pytest

from gateway.testing import BackendContractTests, BackendUnderTest
from tests.contract.backends.languages import Julia
from tests.contract.backends.process import JULIA
from tests.patience import patience

PUBLISH = """
using ChipsBackend
publish("{folder}/model.jls"; model = "wine", version = "1", store = "{folder}/store",
    signature = "{folder}/signature.json", samples = "{folder}/samples.json")
"""


@pytest.fixture(scope="session")
def julia_wine(julia: Julia, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a published artifact: the wine model of the Julia examples."""
    folder = tmp_path_factory.mktemp("julia-wine")
    said = julia.run("examples/wine/train.jl", str(folder))
    assert float(said.splitlines()[0].rpartition(" ")[2]) > 0.9
    julia.run("-e", PUBLISH.format(folder=folder))
    return folder / "store/wine/1"


pytestmark = pytest.mark.timeout(600)  # a Julia compiles its program at each start


class TestJuliaBackend(BackendContractTests):
    @pytest.fixture(scope="class")
    @classmethod
    def backend(
        cls, each_julia: Julia, julia_wine: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> BackendUnderTest:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CHIPS_", "AIP_"))}
        cache = str(tmp_path_factory.mktemp("cache"))
        return BackendUnderTest(
            command=shlex.join(JULIA),
            environment={
                **kept,
                **each_julia.environ,
                "CHIPS_ARTIFACT": str(julia_wine),
                "CHIPS_CACHE_DIR": cache,
            },
            samples=julia_wine / "manifest.json",
            ready_within_s=patience(120),
            not_applicable={
                "invalid/fraction-for-integer": "all inputs of the wine model are FP64",
                "invalid/number-for-text": "all inputs of the wine model are FP64",
            },
        )


def test_its_own_tests_pass(julias: list[Julia]):
    for julia in julias:
        assert "Pass" in julia.run("--threads=2,1", "test/runtests.jl")


def test_its_style_is_clean(julia: Julia):
    julia.run("ci/format.jl")
