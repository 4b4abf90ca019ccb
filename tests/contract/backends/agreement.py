"""Whether backends of different languages answer alike: the same statuses, codes and shapes."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import requests

from gateway.core.model import Backend as Registered
from gateway.core.model import Model
from tests.contract.backends.cases import BAD, GOOD, Case
from tests.contract.backends.process import Backend
from tests.flow.scene import Scene
from tests.flow.scripted import Message
from tests.patience import patience

ENVIRON = {"CHIPS_MODEL": "linear", "CHIPS_VERSION": "1", "CHIPS_MAX_BODY_BYTES": "65000"}
BOTH = [*GOOD, *BAD]
FRAMES = ("X-Request-Id", "X-Chips-Model", "Server-Timing", "Content-Type", "Allow", "Accept-Encoding")


def ask(url: str, case: Case, **headers: str) -> requests.Response:
    return requests.request(
        case.method,
        url + case.path,
        data=case.body,
        headers={"Content-Type": case.content_type, **dict(case.fields), **headers},
        timeout=patience(60),
    )


def shape(value: Any) -> Any:
    """
    A document without its values.

    How many parameters a model accepts depends on the model and not on its language.
    """
    if isinstance(value, dict):
        return {
            key: "sorted names" if key == "accepts" and _are_sorted_names(inner) else shape(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [shape(inner) for inner in value[:1]]
    return (
        "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__
    )


def _are_sorted_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value) and value == sorted(value)


def what_is_wrong(case: Case, answer: requests.Response) -> str:
    if answer.status_code != case.status:
        return f"{answer.status_code} {answer.text[:200]}"
    if case.method == "HEAD":
        return "" if not answer.content else "HEAD has a body"
    body = answer.json()
    if case.code and body["code"] != case.code:
        return f"code {body['code']}"
    return wrong_predictions(case, body)


def wrong_predictions(case: Case, body: Any) -> str:
    if case.predictions is None:
        return ""
    got = body["outputs"][0]["data"] if "/v2/" in case.path else body["predictions"]
    same = len(got) == len(case.predictions) and all(
        math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9) for a, b in zip(got, case.predictions, strict=True)
    )
    return "" if same else f"predictions {str(got)[:200]}"


def wrong_answers(backend: Backend) -> list[str]:
    """Each answer that is not what the cases say."""
    return [
        f"{told(case)}: {problem}"
        for case in BOTH
        if (problem := what_is_wrong(case, ask(backend.url, case)))
    ]


def told(case: Case) -> str:
    return f"{case.method} {case.path} {case.body[:60]!r}"


def differences(backends: Mapping[str, Backend]) -> list[str]:
    """Each case whose answers differ in shape or in headers."""
    different = []
    for case in BOTH:
        said = {}
        for language, backend in backends.items():
            answer = ask(backend.url, case)
            document = shape(answer.json()) if answer.content and "openapi" not in case.path else None
            frames = {name: answer.headers.get(name) for name in ("Content-Type", "X-Chips-Model", "Allow")}
            present = sorted(name for name in FRAMES if name in answer.headers)
            said[language] = (document, frames, present)
        if not all_the_same(said):
            different.append(f"{told(case)}:\n  {said}")
    return different


def all_the_same(said: Mapping[str, Any]) -> bool:
    first, *others = said.values()
    return all(other == first for other in others)


# -- through the gateway


class Got(NamedTuple):
    """What a caller of the gateway gets, without the values that may differ."""

    status: int
    code: str
    shape: Any
    headers: tuple[str, ...]  # all that came, but for those that may differ
    content_type: str | None
    model: str | None
    allow: str | None
    by_the_gateway: bool  # it answered itself, and no backend was asked


class Heard(NamedTuple):
    case: Case
    got: dict[str, Got]  # by language
    wrong: str


def through_the_gateway(case: Case) -> str:
    """The target by which a caller reaches it: the model's own path, the Open Inference Protocol, or a path below the model."""
    path, mark, query = case.path.partition("?")
    if path == "/predict" and case.method == "POST":
        return "/linear" + mark + query
    return case.path if path.startswith("/v2/models/") else "/linear" + case.path


async def hear_all(backends: Mapping[str, Backend]) -> list[Heard]:
    """Each case, sent to one gateway, whose model is served by one language after the other."""
    cases = [case for case in BOTH if case.path != "/"]  # through the gateway that is the model's own path
    answers: dict[str, list[Message]] = {}
    async with Scene() as scene:
        for language, backend in backends.items():
            served = Registered(version="1", url=backend.url)
            await scene.put_model(Model(name="linear", backends=(served,), traffic={"1": 100}))
            answers[language] = [
                await scene.call(
                    case.method,
                    through_the_gateway(case),
                    body=case.body,
                    fields=(("Content-Type", case.content_type), *case.fields),
                )
                for case in cases
            ]
    return [
        _compare(case, {language: answers[language][at] for language in backends})
        for at, case in enumerate(cases)
    ]


def _compare(case: Case, answers: Mapping[str, Message]) -> Heard:
    got = {language: _got(case, answer) for language, answer in answers.items()}
    wrong = [] if all_the_same(got) else [f"they differ: {got}"]
    for language, answer in answers.items():
        if got[language].by_the_gateway:
            continue
        if got[language].status != case.status or (case.code and got[language].code != case.code):
            wrong.append(f"{language}: {got[language].status} {got[language].code}")
        elif case.method != "HEAD" and (problem := wrong_predictions(case, answer.json())):
            wrong.append(f"{language}: {problem}")
    return Heard(case, got, "; ".join(wrong))


def _got(case: Case, answer: Message) -> Got:
    document = answer.json() if answer.body else {}
    # RFC 9110, section 9.3.2, lets a server leave the length out of an answer to HEAD, and HTTP.jl 2 does.
    may_differ = {"connection", "keep-alive"} | ({"content-length"} if case.method == "HEAD" else set())
    is_description = "openapi" in document  # held against each other by a test of its own
    return Got(
        answer.status,
        str(document.get("code", "")),
        None if is_description else shape(document),
        tuple(sorted({name.lower() for name, _ in answer.fields} - may_differ)),
        answer.get("Content-Type"),
        answer.get("X-Chips-Model"),
        answer.get("Allow"),
        answer.get("chips-error") is not None,
    )
