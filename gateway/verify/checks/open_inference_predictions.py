"""Checks that the Open Inference Protocol v2 gives the same predictions, as tensors, as `/predict`."""

import math
from collections.abc import Sequence
from typing import Any

from gateway.core.model import Tensor
from gateway.verify.conformance_check_type import (
    CheckContext,
    CheckSkipped,
    ContractViolation,
    check,
    is_close_json,
    require_json,
    require_predictions,
    require_status,
)
from gateway.verify.raw_http import RawResponse


def infer_request(context: CheckContext, rows: Sequence[Any] = ()) -> dict[str, Any]:
    """Make an inference request.

    It is of `rows`, or else of the good request: a tensor for each input. Raises CheckSkipped where that cannot be said.
    """
    inputs, instances = context.require_inputs(), rows or context.require_good_request()["instances"]
    tensors = []
    for place, tensor in enumerate(inputs):
        try:
            column = [row[tensor.name] if isinstance(row, dict) else row[place] for row in instances]
        except (KeyError, IndexError):
            raise CheckSkipped(f"the good request says nothing of the input {tensor.name}") from None
        shape = [len(column), *_inner_shape(column[0])]
        tensors.append(
            {"name": tensor.name, "datatype": tensor.datatype, "shape": shape, "data": flatten(column)}
        )
    return {"id": "chips-verify-1", "inputs": tensors}


def _inner_shape(value: object) -> list[int]:
    return [len(value), *(_inner_shape(value[0]) if value else [])] if isinstance(value, list) else []


def flatten(values: list[Any]) -> list[Any]:
    """Flatten a nested list. The values come in row-major order."""
    return [leaf for value in values for leaf in (flatten(value) if isinstance(value, list) else [value])]


def require_outputs(context: CheckContext, response: RawResponse) -> list[dict[str, Any]]:
    """Require a v2 inference response, and return its `outputs`. Raises ContractViolation otherwise."""
    require_status(response, 200)
    content = require_json(response)
    outputs = content.get("outputs") if isinstance(content, dict) else None
    if not isinstance(outputs, list) or not outputs:
        raise ContractViolation('the answer holds no "outputs"')
    if content.get("model_name") != context.model:
        raise ContractViolation(f"model_name is {content.get('model_name')!r}")
    for output in outputs:
        missing = [name for name in ("name", "datatype", "shape", "data") if name not in output]
        if missing:
            raise ContractViolation(f"an output has no {', '.join(missing)}")
        if math.prod(output["shape"]) != len(flatten(output["data"])):
            raise ContractViolation(
                f"shape {output['shape']} does not fit {len(flatten(output['data']))} values"
            )
    return outputs


@check(
    "infer/answer",
    "POST /v2/models/{model}/infer answers outputs with name, shape, datatype and data",
    short=True,
)
async def answer(context: CheckContext) -> None:
    require_outputs(context, await context.post(f"{context.open_inference}/infer", infer_request(context)))


@check("infer/version", "…/versions/{v}/infer answers the same, and model_version says which")
async def version(context: CheckContext) -> None:
    path = f"{context.open_inference}/versions/{context.version}/infer"
    response = await context.post(path, infer_request(context))
    require_outputs(context, response)
    said = require_json(response).get("model_version")
    if said != context.version:
        raise ContractViolation(f"model_version is {said!r} instead of {context.version!r}")


@check("infer/id", "the request's id is echoed; without one, none is made up")
async def identifier(context: CheckContext) -> None:
    request = infer_request(context)
    path = f"{context.open_inference}/infer"
    given = require_json(await context.post(path, request)).get("id")
    if given != request["id"]:
        raise ContractViolation(f"id is {given!r} instead of {request['id']!r}")
    del request["id"]
    made_up = require_json(await context.post(path, request)).get("id")
    if made_up:
        raise ContractViolation(f"id is {made_up!r}, though none was sent")


@check("infer/same-scores", "both ways to ask come to the same scores")
async def same_scores(context: CheckContext) -> None:
    predictions = require_predictions(await context.post("/predict", context.require_good_request()))
    outputs = require_outputs(
        context, await context.post(f"{context.open_inference}/infer", infer_request(context))
    )
    if len(outputs) != 1:
        raise CheckSkipped("the model has several outputs")
    if not is_close_json(flatten(outputs[0]["data"]), flatten(predictions), 1e-6):
        raise ContractViolation(f"as tensors {outputs[0]['data']}, as predictions {predictions}")


@check("infer/datatype", "an output's datatype and name are the ones that the metadata names")
async def datatype(context: CheckContext) -> None:
    declared = [Tensor(name=t["name"], datatype=t["datatype"]) for t in context.metadata.get("outputs") or ()]
    if not declared:
        raise CheckSkipped("the backend's metadata names no outputs")
    outputs = require_outputs(
        context, await context.post(f"{context.open_inference}/infer", infer_request(context))
    )
    response = [Tensor(name=output["name"], datatype=output["datatype"]) for output in outputs]
    if response != declared[: len(response)]:
        raise ContractViolation(
            f"{[(t.name, t.datatype) for t in response]} instead of {[(t.name, t.datatype) for t in declared]}"
        )


CHECKS = (answer, version, identifier, same_scores, datatype)
