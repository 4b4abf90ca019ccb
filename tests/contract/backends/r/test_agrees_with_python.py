"""The same requests to R and to Python, straight and through the gateway: the same statuses, codes and shapes."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import requests
from sklearn.linear_model import LinearRegression

from gateway.core.model import Backend as Registered
from tests.contract.backends.cases import BAD, GOOD, Case
from tests.contract.backends.process import PYTHON, Backend, R
from tests.contract.backends.r.conftest import publish
from tests.flow.scene import Scene

LANGUAGES = {"r": R, "python": PYTHON}
ENVIRON = {"CHIPS_MODEL": "linear", "CHIPS_VERSION": "1", "CHIPS_MAX_BODY_BYTES": "65000"}
BOTH = [*GOOD, *BAD]
FRAMES = ("X-Request-Id", "X-Chips-Model", "Server-Timing", "Content-Type", "Allow")


@pytest.fixture(scope="module")
def backends(linear_rds: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Backend]]:
    folder = tmp_path_factory.mktemp("python")
    model = LinearRegression().fit(np.eye(3), np.zeros(3))
    model.coef_, model.intercept_ = np.array([2.0, 3.0, 1.0]), 0.0
    joblib.dump(model, folder / "model.joblib")
    started = {}
    for language, source in (("r", linear_rds), ("python", folder / "model.joblib")):
        publish(str(folder / language), source, "linear")
        artifact = str(folder / language / "linear" / "1")
        started[language] = Backend(LANGUAGES[language], {**ENVIRON, "CHIPS_ARTIFACT": artifact})
    try:
        yield {language: backend.ready() for language, backend in started.items()}
    finally:
        for backend in started.values():
            backend.kill()


def ask(url: str, case: Case, **headers: str) -> requests.Response:
    return requests.request(
        case.method,
        url + case.path,
        data=case.body,
        headers={"Content-Type": case.content_type, **headers},
        timeout=60,
    )


def shape(value: Any) -> Any:
    """A document without its values."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value[:1]]
    return (
        "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__
    )


def what_is_wrong(case: Case, answer: requests.Response) -> str:
    if answer.status_code != case.status:
        return f"{answer.status_code} {answer.text[:200]}"
    if case.method == "HEAD":
        return "" if not answer.content else "HEAD has a body"
    body = answer.json()
    if case.code and body["code"] != case.code:
        return f"code {body['code']}"
    if case.predictions is not None:
        got = body["outputs"][0]["data"] if "/v2/" in case.path else body["predictions"]
        same = len(got) == len(case.predictions) and all(
            math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9) for a, b in zip(got, case.predictions, strict=True)
        )
        return "" if same else f"predictions {str(got)[:200]}"
    return ""


def test_there_are_enough_cases():
    assert len(GOOD) >= 60
    assert len(BAD) >= 60


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_answers_what_the_contract_says(backends: dict[str, Backend], language: str):
    backend = backends[language]
    wrong = [
        f"{case.method} {case.path} {case.body[:60]!r}: {problem}"
        for case in BOTH
        if (problem := what_is_wrong(case, ask(backend.url, case)))
    ]
    assert not wrong, "\n".join(wrong)
    assert ask(backend.url, GOOD[0]).status_code == 200


def test_the_shapes_and_headers_are_the_same(backends: dict[str, Backend]):
    different = []
    for case in BOTH:
        answers = [ask(backends[language].url, case) for language in LANGUAGES]
        said = []
        for answer in answers:
            document = shape(answer.json()) if answer.content and "openapi" not in case.path else None
            frames = {name: answer.headers.get(name) for name in ("Content-Type", "X-Chips-Model", "Allow")}
            present = sorted(name for name in FRAMES if name in answer.headers)
            said.append((document, frames, present))
        if said[0] != said[1]:
            different.append(f"{case.method} {case.path} {case.body[:60]!r}:\n  {said[0]}\n  {said[1]}")
    assert not different, "\n".join(different)


def test_the_api_is_described_alike(backends: dict[str, Backend]):
    described = [backends[language].ask("GET", "/openapi.json").json() for language in LANGUAGES]
    assert described[0] == described[1]


async def test_through_the_gateway(backends: dict[str, Backend]):
    async with Scene() as scene:
        for language, backend in backends.items():
            await scene.model(language, backends=(Registered(version="1", url=backend.url),))
        wrong = []
        for case in [case for case in BOTH if case.path == "/predict" and case.method == "POST"]:
            answers = []
            for language in LANGUAGES:
                fields = (("Content-Type", case.content_type),)
                answer = await scene.call(target=f"/{language}", body=case.body, fields=fields)
                problem = answer.json() if case.status != 200 else {}
                answers.append((answer.status, problem.get("code", ""), sorted(problem)))
            if answers[0] != answers[1] or answers[0][:2] != (case.status, case.code):
                wrong.append(f"{case.body[:60]!r}: {answers}")
        assert not wrong, "\n".join(wrong)
