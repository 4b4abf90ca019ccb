"""Make the OpenAPI 3.1 document of models. For example, those that a caller may call."""

import math
from collections.abc import Iterable
from typing import Any

from gateway import __version__
from gateway.core.errors import GatewayError
from gateway.core.model import Backend, Model, Tensor

_JSON_TYPES = {
    "BOOL": {"type": "boolean"},
    **{f"{sign}INT{bits}": {"type": "integer"} for sign in ("", "U") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": {"type": "number"} for bits in (16, 32, 64)},
    "BYTES": {"type": "string"},
}
# How platforms begin that `chips register` has recognised as servers of other kinds: they take JSON of their own.
_OTHER_KINDS = (
    *("MLServer", "Triton", "KServe", "Open Inference Protocol", "TensorFlow Serving", "OpenAI-compatible", "MLflow"),
    *("LitServe", "Ray Serve", "TorchServe", "vetiver", "BentoML", "OpenAPI", "a service of another kind"),
)  # fmt: skip
_OUR_PATH = "/predict"
_PROBLEM = {"$ref": "#/components/responses/problem"}
# What a model's backend may answer beyond 200 is its own affair; these are the contract's and ours.
_FAILURES = (
    *("400", "401", "403", "404", "405", "413", "414", "415", "422", "429", "431"),
    *("500", "501", "502", "503", "504", "505", "508"),
)


def openapi(models: Iterable[Model], *, server: str = "/") -> dict[str, Any]:
    """The OpenAPI 3.1 document of `models`. It has a path for each of them."""
    models = list(models)
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {"problem": _problem_schema()}
    for model in models:
        backend = _leading(model)
        if backend is None:
            continue
        name = model.name
        if takes_instances(backend):
            schemas[f"{name}.instance"] = one_instance_schema(backend.inputs)
            schemas[f"{name}.prediction"] = one_prediction_schema(backend.outputs)
        paths[f"/{name}"] = {"post": _score(model, backend), "get": _about(model)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "CHIPS",
            "version": __version__,
            "description": "The models that you may call through this gateway.",
        },
        "servers": [{"url": server}],
        "security": [{"key": []}, {"bearer": []}],
        "tags": [{"name": model.name, "description": model.description} for model in models],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {
                "problem": {
                    "description": "A problem (RFC 9457). With a header `chips-error` the gateway refused or failed, without one the backend did.",
                    "content": {
                        "application/problem+json": {"schema": {"$ref": "#/components/schemas/problem"}}
                    },
                }
            },
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _leading(model: Model) -> Backend | None:
    """The backend whose signature speaks for the model: the one with most of the traffic."""
    return max(model.backends, key=lambda backend: model.traffic.get(backend.version, 0), default=None)


def takes_instances(backend: Backend) -> bool:
    """Whether the backend takes `{"instances": [...]}`, as ours do. Others have a JSON format of their own.

    A backend that was never asked is known by its path.
    """
    if backend.platform:
        return not backend.platform.startswith(_OTHER_KINDS)
    return backend.predict_path == _OUR_PATH


def _score(model: Model, backend: Backend) -> dict[str, Any]:
    if not takes_instances(backend):
        return _score_of_other_kind(model, backend)
    name = model.name
    body: dict[str, Any] = {
        "type": "object",
        "required": ["instances"],
        "properties": {
            "instances": {
                "type": "array",
                "items": {"$ref": f"#/components/schemas/{name}.instance"},
                "minItems": 1,
            },
            "parameters": {"type": "object"},
        },
    }
    media: dict[str, Any] = {"schema": body}
    example = example_instance(backend.inputs)
    if example is not None:
        media["example"] = {"instances": [example]}
    answer = {
        "type": "object",
        "required": ["predictions"],
        "properties": {
            "predictions": {"type": "array", "items": {"$ref": f"#/components/schemas/{name}.prediction"}},
            "model": {"type": "string"},
            "version": {"type": "string"},
        },
    }
    about = model.description or f"Version {backend.version} answers most requests."
    return _operation(model, about, media, "A prediction for each instance, in their order.", answer)


def _score_of_other_kind(model: Model, backend: Backend) -> dict[str, Any]:
    media: dict[str, Any] = {"schema": {}}
    if backend.predict_path.startswith("/v2/") and backend.inputs:
        media["example"] = {"inputs": [_example_tensor(tensor) for tensor in backend.inputs]}
    kind = backend.platform or "a service of another kind"
    about = f"It is {kind}, so it takes and answers what that documents: the gateway passes bodies on."
    return _operation(model, f"{model.description} {about}".strip(), media, "What the service answers.", {})


def _example_tensor(tensor: Tensor) -> dict[str, Any]:
    shape = [size if size > 0 else 1 for size in tensor.shape] or [1]
    value = _example(tensor.datatype, ())
    return {
        "name": tensor.name,
        "shape": shape,
        "datatype": tensor.datatype,
        "data": [value] * min(math.prod(shape), 64),
    }


def _operation(
    model: Model, description: str, media: dict[str, Any], answers: str, answer: dict[str, Any]
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"score.{model.name}",
        "tags": [model.name],
        "summary": f"Score with {model.name}",
        "description": description,
        "requestBody": {"required": True, "content": {"application/json": media}},
        "responses": {
            "200": {"description": answers, "content": {"application/json": {"schema": answer}}},
            **dict.fromkeys(_FAILURES, _PROBLEM),
        },
    }
    if model.policy.access == "public":
        operation["security"] = []
    return operation


def _about(model: Model) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"about.{model.name}",
        "tags": [model.name],
        "summary": f"What {model.name} is",
        "responses": {
            "200": {
                "description": "Its versions, inputs and outputs.",
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "required": ["name", "versions"],
                            "properties": {"name": {"type": "string"}, "versions": {"type": "array"}},
                        }
                    }
                },
            },
            **dict.fromkeys(_FAILURES, _PROBLEM),
        },
    }
    if model.policy.access == "public":
        operation["security"] = []
    return operation


def one_instance_schema(inputs: tuple[Tensor, ...]) -> dict[str, Any]:
    """The JSON schema of one instance.

    It is an item of `instances`: an object by field name, or an array in the signature's order. Without a signature, it
    is anything.
    """
    if not inputs:
        return {}
    fields = {tensor.name: _value_schema(tensor) for tensor in inputs}
    return {
        "anyOf": [
            {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False},
            {
                "type": "array",
                "prefixItems": list(fields.values()),
                "minItems": len(fields),
                "maxItems": len(fields),
            },
        ]
    }


def one_prediction_schema(outputs: tuple[Tensor, ...]) -> dict[str, Any]:
    """The JSON schema of one prediction. It is an item of `predictions`; without a signature, it is anything."""
    if not outputs:
        return {}
    fields = {tensor.name: _value_schema(tensor) for tensor in outputs}
    by_name = {"type": "object", "properties": fields}
    return {"anyOf": [next(iter(fields.values())), by_name]} if len(fields) == 1 else by_name


def _value_schema(tensor: Tensor) -> dict[str, Any]:
    """The first axis counts instances; what is left is nested arrays."""
    schema: dict[str, Any] = dict(_JSON_TYPES.get(tensor.datatype, {}))
    if "type" in schema:
        schema["type"] = [schema["type"], "null"]  # null is a missing value
    for length in reversed(tensor.shape[1:]):
        schema = {"type": "array", "items": schema}
        if length >= 0:
            schema |= {"minItems": length, "maxItems": length}
    return schema


_EXAMPLES: dict[str, Any] = {"boolean": True, "integer": 1, "number": 1.0, "string": "text"}


def example_instance(inputs: tuple[Tensor, ...]) -> dict[str, Any] | None:
    """An example instance of the right types. None without a signature."""
    if not inputs:
        return None
    return {tensor.name: _example(tensor.datatype, tensor.shape[1:]) for tensor in inputs}


def _example(datatype: str, shape: tuple[int, ...]) -> Any:
    if shape:
        return [_example(datatype, shape[1:])] * min(shape[0] if shape[0] > 0 else 1, 64)
    return _EXAMPLES.get(_JSON_TYPES.get(datatype, {}).get("type", ""))


def _problem_schema() -> dict[str, Any]:
    codes = sorted(_codes(GatewayError))
    return {
        "type": "object",
        "required": ["status", "code", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "code": {"type": "string", "description": f"The gateway's own: {', '.join(codes)}."},
            "detail": {"type": "string"},
            "request_id": {"type": ["string", "null"]},
        },
    }


def _codes(kind: type[GatewayError]) -> set[str]:
    own = {kind.code} if "code" in vars(kind) else set()
    return own.union(*(_codes(child) for child in kind.__subclasses__()))
