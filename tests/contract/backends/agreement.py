"""Whether backends of different languages answer alike: the same statuses, codes and shapes."""

import json
import math
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import requests

from gateway.core.model import Backend as Registered
from gateway.core.model import Model
from gateway.verify.checks.binary_tensors import (
    LENGTH_HEADER,
    MEDIA_TYPE,
    BinaryRequest,
    binary_request,
    require_same_outputs,
    unpack_tensor,
)
from gateway.verify.checks.open_inference_predictions import flatten
from gateway.verify.conformance_check_type import ContractViolation
from tests.contract.backends.cases import BAD, GOOD, INFER, Case
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


# -- tensors as bytes


def _in_json(case: Case) -> dict[str, Any] | None:
    """The inference request of a good case whose tensors have a binary form."""
    if not case.path.endswith("/infer") or case.method != "POST":
        return None
    content: dict[str, Any] = json.loads(case.body)
    for tensor in content["inputs"]:
        tensor["data"] = flatten(tensor["data"])
    return content


def _ask_in_binary(backend: Backend, binary: BinaryRequest) -> requests.Response:
    fields, body = binary.fields_and_body()
    return ask(backend.url, Case(body, path=INFER, content_type=MEDIA_TYPE, fields=fields[1:]))


def _outputs(answer: requests.Response) -> list[dict[str, Any]]:
    """The outputs of an answer in binary form, with their values."""
    assert answer.headers["Content-Type"] == MEDIA_TYPE, answer.headers
    length = int(answer.headers[LENGTH_HEADER])
    outputs: list[dict[str, Any]] = json.loads(answer.content[:length])["outputs"]
    rest = answer.content[length:]
    for output in outputs:
        size = output.pop("parameters")["binary_data_size"]
        output["data"], rest = unpack_tensor(rest[:size], output["datatype"]), rest[size:]
    assert not rest
    return outputs


# Numbers that a detour through text, or through a smaller type, would change.
EXACT = {
    "inputs": [
        {
            "name": "x",
            "shape": [6],
            "datatype": "FP64",
            "data": [5e-324, 1 / 3, 1e308 / 4, -0.0, 2**53 + 2.0, 0.1],
        },
        {"name": "n", "shape": [6], "datatype": "INT32", "data": [0, 1, 0, 0, 0, -1]},
        {"name": "k", "shape": [6], "datatype": "INT64", "data": [0, -7, 0, 0, 2**40, 1]},
    ]
}


def wrong_in_binary(backend: Backend) -> list[str]:
    """Each good inference request that has another answer when it, or its answer, is in binary form."""
    wrong = []
    contents = [content for case in GOOD if (content := _in_json(case)) is not None]
    for content in [*contents, EXACT]:
        body = json.dumps(content).encode()
        wanted = ask(backend.url, Case(body, path=INFER)).json()["outputs"]
        for asks in (False, True):
            parameters = {**(content.get("parameters") or {}), "binary_data_output": asks}
            answer = _ask_in_binary(backend, binary_request(content, parameters=parameters))
            try:
                require_same_outputs(_outputs(answer) if asks else answer.json()["outputs"], wanted)
            except (ContractViolation, AssertionError, KeyError, ValueError) as error:
                wrong.append(f"{content}, answered in binary: {asks}: {error!r} {answer.content[:300]!r}")
    return wrong


def wrong_binary_refusals(backend: Backend) -> list[str]:
    """Each binary request that does not add up and is not refused as the contract says."""
    good = binary_request(EXACT)
    first, *others = good.request["inputs"]

    def changed(**changes: Any) -> BinaryRequest:
        return good._replace(request={**good.request, "inputs": [{**first, **changes}, *others]})

    bad = [
        good._replace(behind=good.behind + b"\0"),
        good._replace(behind=good.behind[:-1]),
        good._replace(behind=struct.pack("<d", math.inf) + good.behind[8:]),
        *(good._replace(length=length) for length in ("1000000", "-1", "", "0x10", "1e2", "9" * 30)),
        *(changed(parameters={"binary_data_size": size}) for size in (0, 40, 47, 49, -48, 48.5, "48", True)),
        changed(shape=[5]),
        changed(datatype="BOOL"),
        changed(datatype="BYTES"),
        changed(datatype="FP32"),
        changed(data=[0.0] * 6),
        changed(parameters={}),
        binary_request(EXACT, parameters={"binary_data_output": "true"}),
        binary_request(EXACT, outputs=[{"name": "y", "parameters": {"binary_data": 1}}]),
        binary_request(EXACT, outputs=[{"name": "y", "parameters": {"classification": 1}}]),
        binary_request(EXACT, outputs=[{"name": "y", "parameters": []}]),
    ]
    wrong = []
    for binary in bad:
        answer = _ask_in_binary(backend, binary)
        if answer.status_code != 422 or answer.json()["code"] != "invalid-instances":
            wrong.append(f"{binary}: {answer.status_code} {answer.text[:200]}")
    malformed = _ask_in_binary(backend, good._replace(length="7"))
    if malformed.status_code != 400 or malformed.json()["code"] != "malformed-json":
        wrong.append(f"half the JSON: {malformed.status_code} {malformed.text[:200]}")
    return wrong


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
    is_description = "openapi" in document  # compared with each other by a test of its own
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
