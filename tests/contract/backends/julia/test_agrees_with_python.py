"""The same requests to Julia and to Python, straight and through the gateway: the same statuses, codes and shapes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.backends.agreement import (
    ENVIRON,
    ask,
    differences,
    differences_through_the_gateway,
    wrong_answers,
)
from tests.contract.backends.cases import GOOD
from tests.contract.backends.julia.conftest import LINEAR
from tests.contract.backends.linear import publish, write_joblib
from tests.contract.backends.process import JULIA, PYTHON, Backend

pytestmark = pytest.mark.timeout(600)  # a Julia compiles its program at each start


@pytest.fixture(scope="module")
def backends(
    julia: str, linear_jls: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Backend]]:
    folder = tmp_path_factory.mktemp("agree")
    sources = {"julia": linear_jls, "python": write_joblib(folder / "model.joblib")}
    commands = {"julia": JULIA, "python": PYTHON}
    started = {}
    for language, source in sources.items():
        publish(str(folder / language), source)
        environ = {**ENVIRON, "CHIPS_ARTIFACT": str(folder / language / "linear" / "1")}
        started[language] = Backend(commands[language], {**environ, "JULIA": julia, "PREDICT": LINEAR})
    try:
        yield {language: backend.ready() for language, backend in started.items()}
    finally:
        for backend in started.values():
            backend.kill()


def test_it_answers_what_the_contract_says(backends: dict[str, Backend]):
    wrong = wrong_answers(backends["julia"])
    assert not wrong, "\n".join(wrong)
    assert ask(backends["julia"].url, GOOD[0]).status_code == 200


def test_the_shapes_and_headers_are_the_same(backends: dict[str, Backend]):
    different = differences(backends)
    assert not different, "\n".join(different)


def test_the_api_is_described_alike(backends: dict[str, Backend]):
    described = [backend.ask("GET", "/openapi.json").json() for backend in backends.values()]
    assert described[0] == described[1]


async def test_through_the_gateway(backends: dict[str, Backend]):
    wrong = await differences_through_the_gateway(backends)
    assert not wrong, "\n".join(wrong)
