"""The same requests to R and to Python, straight and through the gateway: the same statuses, codes and shapes."""

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
from tests.contract.backends.cases import BAD, GOOD
from tests.contract.backends.linear import publish, write_joblib
from tests.contract.backends.process import PYTHON, Backend, R

LANGUAGES = {"r": R, "python": PYTHON}


@pytest.fixture(scope="module")
def backends(linear_rds: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Backend]]:
    folder = tmp_path_factory.mktemp("python")
    started = {}
    for language, source in (("r", linear_rds), ("python", write_joblib(folder / "model.joblib"))):
        publish(str(folder / language), source)
        artifact = str(folder / language / "linear" / "1")
        started[language] = Backend(LANGUAGES[language], {**ENVIRON, "CHIPS_ARTIFACT": artifact})
    try:
        yield {language: backend.ready() for language, backend in started.items()}
    finally:
        for backend in started.values():
            backend.kill()


def test_there_are_enough_cases():
    assert len(GOOD) >= 60
    assert len(BAD) >= 60


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_answers_what_the_contract_says(backends: dict[str, Backend], language: str):
    backend = backends[language]
    wrong = wrong_answers(backend)
    assert not wrong, "\n".join(wrong)
    assert ask(backend.url, GOOD[0]).status_code == 200


def test_the_shapes_and_headers_are_the_same(backends: dict[str, Backend]):
    different = differences(backends)
    assert not different, "\n".join(different)


def test_the_api_is_described_alike(backends: dict[str, Backend]):
    described = [backends[language].ask("GET", "/openapi.json").json() for language in LANGUAGES]
    assert described[0] == described[1]


async def test_through_the_gateway(backends: dict[str, Backend]):
    wrong = await differences_through_the_gateway(backends)
    assert not wrong, "\n".join(wrong)
