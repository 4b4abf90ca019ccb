"""The Open Inference Protocol v2: the same scores, as tensors."""

import math
from collections.abc import Sequence
from typing import Any

from gateway.core.model import Tensor
from gateway.verify.check import (
    Bench,
    NotChecked,
    Wrong,
    check,
    is_close,
    predictions_of,
    require_json,
    require_status,
)
from gateway.verify.wire import Came


def infer_request(bench: Bench, rows: Sequence[Any] = ()) -> dict[str, Any]:
    """`rows`, or else the good request, as tensors, one for each input. Raises NotChecked where that cannot be said."""
    inputs, instances = bench.need_inputs(), rows or bench.need_good()["instances"]
    tensors = []
    for place, tensor in enumerate(inputs):
        try:
            column = [row[tensor.name] if isinstance(row, dict) else row[place] for row in instances]
        except (KeyError, IndexError):
            raise NotChecked(f"the good request says nothing of the input {tensor.name}") from None
        shape = [len(column), *_inner_shape(column[0])]
        tensors.append(
            {"name": tensor.name, "datatype": tensor.datatype, "shape": shape, "data": flat(column)}
        )
    return {"id": "chips-verify-1", "inputs": tensors}


def _inner_shape(value: object) -> list[int]:
    return [len(value), *(_inner_shape(value[0]) if value else [])] if isinstance(value, list) else []


def flat(values: list[Any]) -> list[Any]:
    return [leaf for value in values for leaf in (flat(value) if isinstance(value, list) else [value])]


def outputs_of(bench: Bench, came: Came) -> list[dict[str, Any]]:
    require_status(came, 200)
    content = require_json(came)
    outputs = content.get("outputs") if isinstance(content, dict) else None
    if not isinstance(outputs, list) or not outputs:
        raise Wrong('the answer holds no "outputs"')
    if content.get("model_name") != bench.model:
        raise Wrong(f"model_name is {content.get('model_name')!r}")
    for output in outputs:
        missing = [name for name in ("name", "datatype", "shape", "data") if name not in output]
        if missing:
            raise Wrong(f"an output has no {', '.join(missing)}")
        if math.prod(output["shape"]) != len(flat(output["data"])):
            raise Wrong(f"shape {output['shape']} does not fit {len(flat(output['data']))} values")
    return outputs


@check(
    "infer/answer",
    "POST /v2/models/{model}/infer answers outputs with name, shape, datatype and data",
    short=True,
)
async def answer(bench: Bench) -> None:
    outputs_of(bench, await bench.post(f"{bench.open_inference}/infer", infer_request(bench)))


@check("infer/version", "…/versions/{v}/infer answers the same, and model_version says which")
async def version(bench: Bench) -> None:
    path = f"{bench.open_inference}/versions/{bench.version}/infer"
    came = await bench.post(path, infer_request(bench))
    outputs_of(bench, came)
    said = require_json(came).get("model_version")
    if said != bench.version:
        raise Wrong(f"model_version is {said!r} instead of {bench.version!r}")


@check("infer/id", "the request's id is echoed; without one, none is made up")
async def identifier(bench: Bench) -> None:
    request = infer_request(bench)
    path = f"{bench.open_inference}/infer"
    given = require_json(await bench.post(path, request)).get("id")
    if given != request["id"]:
        raise Wrong(f"id is {given!r} instead of {request['id']!r}")
    del request["id"]
    made_up = require_json(await bench.post(path, request)).get("id")
    if made_up:
        raise Wrong(f"id is {made_up!r}, though none was sent")


@check("infer/same-scores", "both ways to ask come to the same scores")
async def same_scores(bench: Bench) -> None:
    predictions = predictions_of(await bench.post("/predict", bench.need_good()))
    outputs = outputs_of(bench, await bench.post(f"{bench.open_inference}/infer", infer_request(bench)))
    if len(outputs) != 1:
        raise NotChecked("the model has several outputs")
    if not is_close(flat(outputs[0]["data"]), flat(predictions), 1e-6):
        raise Wrong(f"as tensors {outputs[0]['data']}, as predictions {predictions}")


@check("infer/datatype", "an output's datatype and name are the ones that the metadata names")
async def datatype(bench: Bench) -> None:
    declared = [Tensor(name=t["name"], datatype=t["datatype"]) for t in bench.metadata.get("outputs") or ()]
    if not declared:
        raise NotChecked("the backend's metadata names no outputs")
    outputs = outputs_of(bench, await bench.post(f"{bench.open_inference}/infer", infer_request(bench)))
    came = [Tensor(name=output["name"], datatype=output["datatype"]) for output in outputs]
    if came != declared[: len(came)]:
        raise Wrong(
            f"{[(t.name, t.datatype) for t in came]} instead of {[(t.name, t.datatype) for t in declared]}"
        )


CHECKS = (answer, version, identifier, same_scores, datatype)
