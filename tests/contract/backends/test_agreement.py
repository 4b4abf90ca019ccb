"""The same requests to Python, R and Julia, straight and through the gateway: the same statuses, codes and shapes."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.contract.backends.agreement import (
    ENVIRON,
    ask,
    differences,
    hear_all,
    told,
    wrong_answers,
    wrong_binary_refusals,
    wrong_in_binary,
)
from tests.contract.backends.cases import BAD, GOOD, INFER, Case
from tests.contract.backends.languages import JULIA_LINEAR, Julia
from tests.contract.backends.linear import TENSORS, publish, write_joblib
from tests.contract.backends.process import JULIA_PREDICT, PYTHON, ROOT, Backend, R

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # a Julia compiles its program at each start

COMMANDS = {"python": PYTHON, "r": R, "julia": JULIA_PREDICT}
TAKE_BINARY = (*COMMANDS, "r_without_compiled_part")


class Difference(NamedTuple):
    """What the contract lets differ, in its own words, and what each language answers there: a status, and a code."""

    contract: str
    case: Case
    answers: Mapping[str, tuple[int, str]]


_ID_WITH_NUL = json.dumps({"id": "\0", "inputs": TENSORS}).encode()
ANSWERED, REFUSED = (200, ""), (422, "invalid-instances")
INTEGERS = "An integer that a language cannot hold exactly is refused with 422 there (R: from ±2⁵³ on, and \N{MINUS SIGN}2³¹ as INT32)."
PERMITTED = (
    Difference(
        INTEGERS,
        Case(b'{"instances": [[0, 0, 9007199254740993]]}'),
        {"python": ANSWERED, "r": REFUSED, "julia": ANSWERED},
    ),
    Difference(
        INTEGERS,
        Case(b'{"instances": [[0, -2147483648, 0]]}'),
        {"python": ANSWERED, "r": REFUSED, "julia": ANSWERED},
    ),
    Difference(
        "A text with U+0000 is refused with 422 by a language that cannot hold it (R).",
        Case(_ID_WITH_NUL, path=INFER),
        {"python": ANSWERED, "r": REFUSED, "julia": ANSWERED},
    ),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("agreement")


@pytest.fixture(scope="module")
def python_backend(folder: Path) -> Iterator[Backend]:
    yield from started("python", write_joblib(folder / "model.joblib"), folder)


@pytest.fixture(scope="module")
def r_backend(linear_rds: Path, folder: Path) -> Iterator[Backend]:
    yield from started("r", linear_rds, folder)


@pytest.fixture(scope="module")
def r_without_compiled_part_backend(linear_rds: Path, folder: Path) -> Iterator[Backend]:
    yield from started("r", linear_rds, folder, CHIPS_COMPILED="off")


@pytest.fixture(scope="module")
def julia_backend(julia: Julia, linear_jls: Path, folder: Path) -> Iterator[Backend]:
    yield from started("julia", linear_jls, folder, **julia.environ, PREDICT=JULIA_LINEAR)


def started(language: str, source: Path, folder: Path, **environ: str) -> Iterator[Backend]:
    publish(str(folder / language), source)
    artifact = str(folder / language / "linear" / "1")
    backend = Backend(COMMANDS[language], {**ENVIRON, "CHIPS_ARTIFACT": artifact, **environ})
    try:
        yield backend
    finally:
        backend.kill()


@pytest.fixture(scope="module")
def backends(python_backend: Backend, r_backend: Backend, julia_backend: Backend) -> dict[str, Backend]:
    started = {"python": python_backend, "r": r_backend, "julia": julia_backend}
    return {language: backend.ready() for language, backend in started.items()}


@pytest.mark.parametrize("language", [*COMMANDS, "r_without_compiled_part"])
def test_each_answers_what_the_contract_says(request: pytest.FixtureRequest, language: str):
    backend: Backend = request.getfixturevalue(f"{language}_backend").ready()
    wrong = wrong_answers(backend)
    assert not wrong, "\n".join(wrong)
    assert ask(backend.url, GOOD[0]).status_code == 200


@pytest.mark.parametrize("language", TAKE_BINARY)
def test_binary_tensors_are_the_same_requests_and_answers_as_json(
    request: pytest.FixtureRequest, language: str
):
    backend: Backend = request.getfixturevalue(f"{language}_backend").ready()
    wrong = wrong_in_binary(backend) + wrong_binary_refusals(backend)
    assert not wrong, "\n".join(wrong)


def test_the_shapes_and_headers_are_the_same(backends: dict[str, Backend]):
    different = differences(backends)
    assert not different, "\n".join(different)


def test_r_reads_alike_with_and_without_its_compiled_part(
    r_backend: Backend, r_without_compiled_part_backend: Backend, has_compiler: None
):
    backends = {"compiled": r_backend.ready(), "not": r_without_compiled_part_backend.ready()}
    different = differences(backends)
    assert not different, "\n".join(different)


def test_the_api_is_described_alike(backends: dict[str, Backend]):
    described = {
        language: backend.ask("GET", "/openapi.json").json() for language, backend in backends.items()
    }
    assert described["python"] == described["r"] == described["julia"]


async def test_through_the_gateway_all_three_are_one(backends: dict[str, Backend]):
    """At least sixty good and sixty bad requests reach the backends, and nobody can tell which language answered."""
    heard = await hear_all(backends)
    wrong = [f"{told(case)}: {problem}" for case, _, problem in heard if problem]
    assert not wrong, "\n".join(wrong)
    reached = [case for case, got, _ in heard if not got["python"].by_the_gateway]
    assert len([case for case in reached if case in GOOD]) >= 60
    assert len([case for case in reached if case in BAD]) >= 60


@pytest.mark.parametrize("permitted", PERMITTED, ids=lambda permitted: permitted.case.body.decode())
def test_what_differs_is_what_the_contract_lets_differ(backends: dict[str, Backend], permitted: Difference):
    contract = re.sub(r"\s+", " ", (ROOT / "backends/CONTRACT.md").read_text(encoding="utf-8"))
    assert permitted.contract in contract
    for language, backend in backends.items():
        answer = ask(backend.url, permitted.case)
        code = answer.json().get("code", "")
        assert (answer.status_code, code) == permitted.answers[language], language
