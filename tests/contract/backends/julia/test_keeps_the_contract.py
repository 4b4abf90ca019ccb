"""The Julia backend keeps the contract, every sentence of it that the kit can check, with a model trained and published by Julia."""

import asyncio
import os
import shlex
import signal
from pathlib import Path

import pytest

from gateway.testing import BackendContract, BackendUnderTest
from gateway.verify.checks import binary
from gateway.verify.run import CHECKS, read_samples, verify
from tests.conftest import require
from tests.contract.backends.languages import Julia
from tests.contract.backends.process import JULIA, Backend

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
    assert float(said.rpartition(" ")[2]) > 0.9
    julia.run("-e", PUBLISH.format(folder=folder))
    return folder / "store/wine/1"


pytestmark = pytest.mark.timeout(600)  # a Julia compiles its program at each start


class TestJuliaBackend(BackendContract):
    @pytest.fixture(scope="class")
    @classmethod
    def backend(
        cls, julia: Julia, julia_wine: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> BackendUnderTest:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CHIPS_", "AIP_"))}
        cache = str(tmp_path_factory.mktemp("cache"))
        return BackendUnderTest(
            command=shlex.join(JULIA),
            environment={
                **kept,
                **julia.environ,
                "CHIPS_ARTIFACT": str(julia_wine),
                "CHIPS_CACHE_DIR": cache,
            },
            samples=julia_wine / "manifest.json",
            not_applicable={
                "invalid/fraction-for-integer": "all inputs of the wine model are FP64",
                "invalid/number-for-text": "all inputs of the wine model are FP64",
                **dict.fromkeys(
                    (check.name for check in binary.CHECKS), "Julia does not take binary tensors yet"
                ),
            },
        )


@pytest.fixture(scope="session")
def other_julias(julias: list[Julia]) -> list[Julia]:
    require("julia", available=len(julias) > 1, why="GENIE_MANIFESTS names one release of Genie only")
    return julias[1:]


def test_other_releases_of_genie_keep_it(other_julias: list[Julia], julia_wine: Path, tmp_path: Path):
    """What the kit asks of a backend that runs; its starts and its end depend on Genie only by listening and closing."""
    for julia in other_julias:
        environ = {**julia.environ, "CHIPS_ARTIFACT": str(julia_wine), "CHIPS_CACHE_DIR": str(tmp_path)}
        backend = Backend(JULIA, environ)
        try:
            url = backend.ready().url
            checks = [check for check in CHECKS if check.group not in {"life", "logs", "fetch"}]
            found = asyncio.run(
                verify(url, manifest=read_samples(julia_wine / "manifest.json"), checks=checks)
            )
            wrong = [(r.check.name, r.why) for r in found.results if r.outcome == "failed"]
            assert not wrong, wrong
            taken = Backend(JULIA, {**environ, "PORT": url.rpartition(":")[2]})
            assert taken.end() == 71
            assert "set PORT to another one" in taken.why()
        finally:
            backend.send_signal(signal.SIGTERM)
            assert backend.end() == 0


def test_its_own_tests_pass(julias: list[Julia]):
    for julia in julias:
        assert "Pass" in julia.run("--threads=2,1", "test/runtests.jl")


def test_its_style_is_clean(julia: Julia):
    julia.run("ci/format.jl")
