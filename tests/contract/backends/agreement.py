"""Whether backends of different languages answer alike: the same statuses, codes and shapes."""

import math
from collections.abc import Mapping
from typing import Any

import requests

from gateway.core.model import Backend as Registered
from tests.contract.backends.cases import BAD, GOOD, Case
from tests.contract.backends.process import Backend
from tests.flow.scene import Scene

ENVIRON = {"CHIPS_MODEL": "linear", "CHIPS_VERSION": "1", "CHIPS_MAX_BODY_BYTES": "65000"}
BOTH = [*GOOD, *BAD]
FRAMES = ("X-Request-Id", "X-Chips-Model", "Server-Timing", "Content-Type", "Allow")


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


def wrong_answers(backend: Backend) -> list[str]:
    """Each answer that is not what the cases say."""
    return [
        f"{case.method} {case.path} {case.body[:60]!r}: {problem}"
        for case in BOTH
        if (problem := what_is_wrong(case, ask(backend.url, case)))
    ]


def differences(backends: Mapping[str, Backend]) -> list[str]:
    """Each case whose answers differ in shape or in headers."""
    different = []
    for case in BOTH:
        said = []
        for backend in backends.values():
            answer = ask(backend.url, case)
            document = shape(answer.json()) if answer.content and "openapi" not in case.path else None
            frames = {name: answer.headers.get(name) for name in ("Content-Type", "X-Chips-Model", "Allow")}
            present = sorted(name for name in FRAMES if name in answer.headers)
            said.append((document, frames, present))
        if any(other != said[0] for other in said):
            different.append(f"{case.method} {case.path} {case.body[:60]!r}:\n  {said}")
    return different


async def differences_through_the_gateway(backends: Mapping[str, Backend]) -> list[str]:
    async with Scene() as scene:
        for language, backend in backends.items():
            await scene.model(language, backends=(Registered(version="1", url=backend.url),))
        wrong = []
        for case in [case for case in BOTH if case.path == "/predict" and case.method == "POST"]:
            answers = []
            for language in backends:
                fields = (("Content-Type", case.content_type),)
                answer = await scene.call(target=f"/{language}", body=case.body, fields=fields)
                problem = answer.json() if case.status != 200 else {}
                answers.append((answer.status, problem.get("code", ""), sorted(problem)))
            if any(other != answers[0] for other in answers) or answers[0][:2] != (case.status, case.code):
                wrong.append(f"{case.body[:60]!r}: {answers}")
        return wrong
