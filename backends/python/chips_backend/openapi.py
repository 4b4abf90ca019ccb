# Long: one OpenAPI document, written as a document.
"""The backend's OpenAPI 3.1 document, with the model's real fields taken from its signature."""

from typing import Any

from chips_backend.manifest import Manifest, Tensor


def describe(manifest: Manifest) -> dict[str, Any]:
    inputs, outputs = manifest.signature.inputs, manifest.signature.outputs
    model = f"/v2/models/{manifest.model}"
    problem = {
        "description": "A problem (RFC 9457)",
        "content": {"application/problem+json": {"schema": _ref("Problem")}},
    }
    errors = dict.fromkeys(("400", "413", "415", "422", "500", "503", "504"), problem)

    def post(summary: str, request: str, response: str) -> dict[str, Any]:
        return {
            "post": {
                "summary": summary,
                "operationId": summary.lower().replace(" ", "_"),
                "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(request)}}},
                "responses": {"200": _json("Predictions", _ref(response)), **errors},
            }
        }

    def get(summary: str, schema: dict[str, Any]) -> dict[str, Any]:
        return {"get": {"summary": summary, "responses": {"200": _json(summary, schema), "default": problem}}}

    return {
        "openapi": "3.1.0",
        "info": {"title": manifest.model, "version": manifest.version},
        "paths": {
            "/predict": post("Predict", "Request", "Response"),
            f"{model}/infer": post("Infer", "InferRequest", "InferResponse"),
            model: get("Metadata", {"type": "object"}),
            f"{model}/ready": get("Readiness of the model", {"type": "object"}),
            "/v2/health/live": get("Liveness", {"type": "object"}),
            "/v2/health/ready": get("Readiness", {"type": "object"}),
        },
        "components": {
            "schemas": {
                "Instance": _instance(inputs),
                "Request": {
                    "type": "object",
                    "required": ["instances"],
                    "properties": {
                        "instances": {"type": "array", "items": _ref("Instance")},
                        "parameters": {"type": "object"},
                    },
                    **({"examples": [manifest.samples[0].request]} if manifest.samples else {}),
                },
                "Response": {
                    "type": "object",
                    "required": ["predictions", "model", "version"],
                    "properties": {
                        "predictions": {"type": "array", "items": _prediction(outputs)},
                        "model": {"const": manifest.model},
                        "version": {"const": manifest.version},
                    },
                },
                "InferRequest": {
                    "type": "object",
                    "required": ["inputs"],
                    "properties": {
                        "id": {"type": "string"},
                        "inputs": {"type": "array", "items": _ref("Tensor"), "minItems": 1},
                    },
                },
                "InferResponse": {
                    "type": "object",
                    "required": ["model_name", "outputs"],
                    "properties": {
                        "model_name": {"type": "string"},
                        "model_version": {"type": "string"},
                        "id": {"type": "string"},
                        "outputs": {"type": "array", "items": _ref("Tensor")},
                    },
                },
                "Tensor": {
                    "type": "object",
                    "required": ["name", "shape", "datatype", "data"],
                    "properties": {
                        "name": {"type": "string"},
                        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                        "datatype": {"type": "string"},
                        "data": {"type": "array"},
                    },
                },
                "Problem": {
                    "type": "object",
                    "required": ["type", "title", "status", "code", "detail", "request_id"],
                    "properties": {
                        "type": {"type": "string"},
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "code": {"type": "string"},
                        "detail": {"type": "string"},
                        "request_id": {"type": "string"},
                        "error": {"type": "string"},
                    },
                },
            }
        },
    }


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _instance(inputs: tuple[Tensor, ...]) -> dict[str, Any]:
    if not inputs:
        return {}
    by_name = {
        "type": "object",
        "required": [tensor.name for tensor in inputs],
        "properties": {tensor.name: _value(tensor, 1) for tensor in inputs},
        "additionalProperties": False,
    }
    in_order = {"type": "array", "prefixItems": [_value(tensor, 1) for tensor in inputs], "items": False}
    return {"oneOf": [by_name, in_order | {"minItems": len(inputs)}]}


def _prediction(outputs: tuple[Tensor, ...]) -> dict[str, Any]:
    if len(outputs) < 2:
        return _value(outputs[0], 1) if outputs else {}
    return {
        "type": "object",
        "required": [tensor.name for tensor in outputs],
        "properties": {tensor.name: _value(tensor, 1) for tensor in outputs},
    }


def _value(tensor: Tensor, dimension: int) -> dict[str, Any]:
    if dimension < len(tensor.shape):
        size = tensor.shape[dimension]
        bounds = {} if size < 0 else {"minItems": size, "maxItems": size}
        return {"type": "array", "items": _value(tensor, dimension + 1), **bounds}
    if tensor.categories is not None:
        return {"enum": [*tensor.categories, None]}
    kind = {"BOOL": "boolean", "BYTES": "string"}.get(tensor.datatype)
    if kind is None:
        kind = "number" if tensor.datatype.startswith("FP") else "integer"
    return {"type": [kind, "null"]}
