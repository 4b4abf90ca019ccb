"""Checks that a backend refuses invalid requests.

Requests of every kind get the right status and error code. After each, the next good request is answered.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from gateway.verify.checks.open_inference_predictions import infer_request
from gateway.verify.conformance_check_type import (
    JSON,
    Check,
    CheckContext,
    CheckSkipped,
    ContractViolation,
    check,
    require_problem,
    require_status,
)
from gateway.verify.raw_http import Fields, RawRequest

Make = Callable[[CheckContext], RawRequest]

MALFORMED = "a body that is not JSON or not UTF-8: 400 malformed-json"
INVALID = "JSON, but not instances, or a wrong field, type, shape or datatype: 422 invalid-instances"
NUMERIC = ("FP", "INT", "UINT")


def refusal_check(
    name: str, contract: str, make: Make, status: int, code: str, *, short: bool = False
) -> Check:
    """Make a check that a bad request is refused with this status and code."""

    async def run(context: CheckContext) -> None:
        request = make(context)
        require_problem(request, await context.send_and_record(request), status, code)
        await context.require_still_serving()

    return Check(name, contract, run, short)


def make_predict_request(body: bytes) -> Make:
    """A function that makes a `POST /predict` request with `body`."""
    return lambda _: RawRequest("POST", "/predict", JSON, body)


def _not_json() -> Iterator[Check]:
    bodies = {
        "empty-body": b"",
        "open-object": b"{",
        "open-array": b'{"instances": [',
        "open-string": b'{"instances": ["a',
        "text-after": b'{"instances": []} and more',
        "two-documents": b'{"instances": []}{"instances": []}',
        "single-quotes": b"{'instances': []}",
        "bare-names": b"{instances: []}",
        "comma-at-the-end": b'{"instances": [],}',
        "comment": b'{"instances": [] /* none */}',
        "nan": b'{"instances": [[NaN]]}',
        "infinity": b'{"instances": [[-Infinity]]}',
        "leading-zero": b'{"instances": [[01]]}',
        "hexadecimal": b'{"instances": [[0x10]]}',
        "undefined": b'{"instances": [[undefined]]}',
        "control-in-string": b'{"instances": [["a\nb"]]}',
        "bad-escape": b'{"instances": [["\\x41"]]}',
        "not-utf-8": b'{"instances": [["\xff\xfe"]]}',
        "latin-1": '{"instances": [["Müller"]]}'.encode("latin-1"),
        "utf-16": '{"instances": []}'.encode("utf-16"),
        "nul": b"\x00",
        "plain-text": b"hello",
        "xml": b"<instances/>",
        "form": b"instances=1",
    }
    for name, body in bodies.items():
        yield refusal_check(
            f"malformed/{name}",
            MALFORMED,
            make_predict_request(body),
            400,
            "malformed-json",
            short=name == "open-array",
        )
    yield refusal_check(
        "malformed/name-twice",
        "a name that stands twice in one object: 400 malformed-json, since nobody knows which value counts",
        make_predict_request(b'{"instances": [{}], "instances": []}'),
        400,
        "malformed-json",
    )
    yield refusal_check(
        "malformed/infer",
        MALFORMED + ", on /v2/ too",
        lambda context: RawRequest("POST", f"{context.open_inference}/infer", JSON, b'{"inputs": ['),
        400,
        "malformed-json",
        short=True,
    )


@check("malformed/deep", "a body nested 100 000 deep is refused with 400 or 422, and breaks nothing")
async def deep(context: CheckContext) -> None:
    body = b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    response = await context.post("/predict", body)
    require_status(response, 400, 422)
    await context.require_still_serving()


@check("malformed/number-too-large", "a number that no computer holds is refused with 400 or 422")
async def number_too_large(context: CheckContext) -> None:
    inputs = context.require_inputs()
    for number in (b"1e999", b"-1e999", b"9" * 400):
        row = b"[" + b",".join([number] * len(inputs)) + b"]"
        require_status(await context.post("/predict", b'{"instances": [' + row + b"]}"), 400, 422)
    await context.require_still_serving()


def _not_instances() -> Iterator[Check]:
    bodies: dict[str, Any] = {
        "null": None,
        "array": [],
        "text": "text",
        "number": 42,
        "empty-object": {},
        "other-key": {"rows": []},
        "instances-null": {"instances": None},
        "instances-object": {"instances": {}},
        "instances-text": {"instances": "text"},
        "instances-number": {"instances": 1},
        "parameters-text": {"instances": [], "parameters": "text"},
    }
    for name, content in bodies.items():
        body = msgspec.json.encode(content)
        yield refusal_check(
            f"invalid/{name}",
            INVALID,
            make_predict_request(body),
            422,
            "invalid-instances",
            short=name == "empty-object",
        )


Change = Callable[[CheckContext, dict[str, Any]], Any]


def _instance(context: CheckContext) -> dict[str, Any]:
    """A good instance as an object by field name."""
    inputs, first = context.require_inputs(), context.require_good_request()["instances"][0]
    return first if isinstance(first, dict) else dict(zip([t.name for t in inputs], first, strict=False))


def _numeric(context: CheckContext) -> str:
    for tensor in context.require_inputs():
        if tensor.datatype.startswith(NUMERIC) and len(tensor.shape) <= 1:
            return tensor.name
    raise CheckSkipped("the model has no numeric input")


def _integer(context: CheckContext) -> str:
    for tensor in context.require_inputs():
        if "INT" in tensor.datatype and len(tensor.shape) <= 1:
            return tensor.name
    raise CheckSkipped("the model has no integer input")


def _text(context: CheckContext) -> str:
    for tensor in context.require_inputs():
        if tensor.datatype == "BYTES" and len(tensor.shape) <= 1:
            return tensor.name
    raise CheckSkipped("the model has no text input")


def _wrong_instances() -> Iterator[Check]:
    changes: dict[str, Change] = {
        "instance-null": lambda context, good: None,
        "instance-text": lambda context, good: "text",
        "instance-number": lambda context, good: 1,
        "unknown-field": lambda context, good: {**good, "no_such_field": 1},
        "missing-field": lambda context, good: {
            n: v for n, v in good.items() if n != context.require_inputs()[0].name
        },
        "no-fields": lambda context, good: {},
        "array-too-short": lambda context, good: list(good.values())[:-1],
        "array-too-long": lambda context, good: [*good.values(), 1],
        "text-for-number": lambda context, good: {**good, _numeric(context): "high"},
        "digits-in-text": lambda context, good: {**good, _numeric(context): "12.5"},
        "boolean-for-number": lambda context, good: {**good, _numeric(context): True},
        "object-for-number": lambda context, good: {**good, _numeric(context): {"value": 1}},
        "array-for-number": lambda context, good: {**good, _numeric(context): [1, 2]},
        "fraction-for-integer": lambda context, good: {**good, _integer(context): 1.5},
        "number-for-text": lambda context, good: {**good, _text(context): 1},
    }
    for name, change in changes.items():

        def make(context: CheckContext, change: Change = change) -> RawRequest:
            body = {"instances": [change(context, _instance(context))]}
            return RawRequest("POST", "/predict", JSON, msgspec.json.encode(body))

        yield refusal_check(
            f"invalid/{name}", INVALID, make, 422, "invalid-instances", short=name == "text-for-number"
        )


@check("invalid/place", 'the detail says where: instances[2].alcohol: expected a number, got "high"')
async def place(context: CheckContext) -> None:
    good, numeric = _instance(context), _numeric(context)
    request = RawRequest(
        "POST", "/predict", JSON, msgspec.json.encode({"instances": [good, good, {**good, numeric: "high"}]})
    )
    detail = require_problem(request, await context.send_and_record(request), 422, "invalid-instances")[
        "detail"
    ]
    if "instances[2]" not in detail or numeric not in detail:
        raise ContractViolation(f"the detail names neither instances[2] nor {numeric}: {detail}")


@check("invalid/many", "too many problems to list are cut at ten")
async def many(context: CheckContext) -> None:
    bad = {**_instance(context), _numeric(context): "high"}
    request = RawRequest("POST", "/predict", JSON, msgspec.json.encode({"instances": [bad] * 500}))
    detail = require_problem(request, await context.send_and_record(request), 422, "invalid-instances")[
        "detail"
    ]
    listed = detail.count("instances[")
    if not 1 <= listed <= 11:
        raise ContractViolation(f"{listed} problems are listed")
    await context.require_still_serving()


def _wrong_tensors() -> Iterator[Check]:
    def first(request: dict[str, Any], **changes: Any) -> dict[str, Any]:
        tensor = {
            name: value for name, value in {**request["inputs"][0], **changes}.items() if value is not ...
        }
        return {**request, "inputs": [tensor, *request["inputs"][1:]]}

    changes: dict[str, Callable[[dict[str, Any]], Any]] = {
        "array": lambda request: [],
        "no-inputs": lambda request: {"id": "1"},
        "empty-inputs": lambda request: {"inputs": []},
        "inputs-object": lambda request: {"inputs": {}},
        "tensor-text": lambda request: {"inputs": ["text"]},
        "no-name": lambda request: first(request, name=...),
        "no-shape": lambda request: first(request, shape=...),
        "no-datatype": lambda request: first(request, datatype=...),
        "no-data": lambda request: first(request, data=...),
        "unknown-input": lambda request: first(request, name="no_such_input"),
        "unknown-datatype": lambda request: first(request, datatype="COMPLEX128"),
        "datatype-number": lambda request: first(request, datatype=64),
        "shape-text": lambda request: first(request, shape="[1]"),
        "shape-negative": lambda request: first(request, shape=[-1]),
        "shape-too-large": lambda request: first(request, shape=[2**40, 2**40]),
        "shape-and-data-differ": lambda request: first(request, data=request["inputs"][0]["data"] * 3),
        "data-object": lambda request: first(request, data={}),
        "data-nested-wrong": lambda request: first(
            request, data=[{"value": 1}] * len(request["inputs"][0]["data"])
        ),
        "one-input-missing": lambda request: {**request, "inputs": request["inputs"][1:] or [{}]},
        "input-twice": lambda request: {**request, "inputs": [*request["inputs"], request["inputs"][0]]},
    }
    for name, change in changes.items():

        def make(context: CheckContext, change: Callable[[dict[str, Any]], Any] = change) -> RawRequest:
            body = msgspec.json.encode(change(infer_request(context)))
            return RawRequest("POST", f"{context.open_inference}/infer", JSON, body)

        yield refusal_check(
            f"tensors/{name}", INVALID, make, 422, "invalid-instances", short=name == "no-inputs"
        )


def _wrong_places() -> Iterator[Check]:
    missing = "an unknown path: 404 not-found"
    for name, make in {
        "path": lambda context: RawRequest("GET", "/no-such-path"),
        "path-with-body": lambda context: RawRequest("POST", "/no-such-path", JSON, b"{}"),
        "v2-path": lambda context: RawRequest("GET", "/v2/no-such-path"),
        "model": lambda context: RawRequest("GET", "/v2/models/no-such-model"),
        "model-infer": lambda context: RawRequest(
            "POST", "/v2/models/no-such-model/infer", JSON, b'{"inputs": []}'
        ),
        "version": lambda context: RawRequest("GET", f"{context.open_inference}/versions/no-such-version"),
    }.items():
        yield refusal_check(
            f"not-found/{name}", missing, make, 404, "not-found", short=name in {"path", "model"}
        )


def wrong_method_check(name: str, method: str, path: Callable[[CheckContext], str], allowed: str) -> Check:
    """Make a check that a wrong method on `path` gets 405 with Allow."""

    async def run(context: CheckContext) -> None:
        request = RawRequest(
            method, path(context), JSON if method != "GET" else (), b"{}" if method != "GET" else None
        )
        response = await context.send_and_record(request)
        require_problem(request, response, 405, "method-not-allowed")
        if allowed not in {word.strip() for word in response.get("Allow").split(",")}:
            raise ContractViolation(f"Allow is {response.get('Allow')!r}, without {allowed}")
        await context.require_still_serving()

    contract = "a wrong method: 405 method-not-allowed, with Allow"
    return Check(f"method/{name}", contract, run, short=name == "get-predict")


def _wrong_methods() -> Iterator[Check]:
    yield wrong_method_check("get-predict", "GET", lambda context: "/predict", "POST")
    yield wrong_method_check("delete-predict", "DELETE", lambda context: "/predict", "POST")
    yield wrong_method_check("get-infer", "GET", lambda context: f"{context.open_inference}/infer", "POST")
    yield wrong_method_check("post-live", "POST", lambda context: "/v2/health/live", "GET")
    yield wrong_method_check("put-metadata", "PUT", lambda context: context.open_inference, "GET")
    yield wrong_method_check("post-openapi", "POST", lambda context: "/openapi.json", "GET")


def _wrong_content_types() -> Iterator[Check]:
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "image/png",
    ):

        def make(context: CheckContext, fields: Fields = (("Content-Type", kind),)) -> RawRequest:
            body = msgspec.json.encode(context.good or {"instances": []})
            return RawRequest("POST", "/predict", fields, body)

        name = kind.partition(";")[0].replace("/", "-")
        contract = "a wrong content type: 415 unsupported-media-type"
        yield refusal_check(
            f"media-type/{name}", contract, make, 415, "unsupported-media-type", short=kind == "text/plain"
        )


def _too_large() -> Iterator[Check]:
    def make(context: CheckContext, *, chunked: bool) -> RawRequest:
        return RawRequest("POST", "/predict", JSON, b" " * (context.body_limit_bytes + 1), chunked=chunked)

    contract = "a body over the limit: 413 payload-too-large"
    yield refusal_check("size/declared", contract, lambda b: make(b, chunked=False), 413, "payload-too-large")
    yield refusal_check("size/chunked", contract, lambda b: make(b, chunked=True), 413, "payload-too-large")


CHECKS = (
    *_not_json(),
    deep,
    number_too_large,
    *_not_instances(),
    *_wrong_instances(),
    place,
    many,
    *_wrong_tensors(),
    *_wrong_places(),
    *_wrong_methods(),
    *_wrong_content_types(),
    *_too_large(),
)
