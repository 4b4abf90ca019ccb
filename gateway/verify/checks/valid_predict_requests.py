"""Checks that a backend answers valid `POST /predict` requests, in each form that the contract allows.

The predictions must have the right shape, and be what was published.
"""

import msgspec

from gateway.verify.conformance_check_type import (
    JSON,
    CheckContext,
    CheckSkipped,
    ContractViolation,
    check,
    is_close_json,
    require_json,
    require_predictions,
    require_problem,
    require_status,
)
from gateway.verify.raw_http import RawRequest


@check(
    "predict/answer", 'POST /predict answers {"predictions": [...], "model": ..., "version": ...}', short=True
)
async def answer(context: CheckContext) -> None:
    good = context.require_good_request()
    response = await context.post("/predict", good)
    predictions = require_predictions(response)
    content = require_json(response)
    if len(predictions) != len(good["instances"]):
        raise ContractViolation(f"{len(predictions)} predictions for {len(good['instances'])} instances")
    if content.get("model") != context.model or content.get("version") != context.version:
        raise ContractViolation(
            f"it says {content.get('model')!r} version {content.get('version')!r} "
            f"instead of {context.model!r} version {context.version!r}"
        )


@check(
    "predict/samples",
    "each of the manifest's samples comes out as published, within its tolerance",
    short=True,
)
async def samples(context: CheckContext) -> None:
    if not context.samples:
        raise CheckSkipped("no samples: give --samples manifest.json")
    for number, sample in enumerate(context.samples):
        predictions = require_predictions(await context.post("/predict", sample.request))
        wanted = sample.response.get("predictions")
        if not is_close_json(predictions, wanted, sample.tolerance):
            raise ContractViolation(
                f"sample {number}: {str(predictions)[:200]} instead of {str(wanted)[:200]} (tolerance {sample.tolerance:g})"
            )


@check("predict/array-form", "an instance may be an array in the order of the signature")
async def array_form(context: CheckContext) -> None:
    inputs = context.require_inputs()
    first = context.require_good_request()["instances"][0]
    if not isinstance(first, dict):
        raise CheckSkipped("the samples are arrays themselves")
    try:
        array = [first[tensor.name] for tensor in inputs]
    except KeyError as error:
        raise ContractViolation(f"the metadata names an input {error}, the samples do not") from None
    by_name = require_predictions(await context.post("/predict", {"instances": [first]}))
    in_order = require_predictions(await context.post("/predict", {"instances": [array]}))
    if not is_close_json(in_order, by_name, 1e-9):
        raise ContractViolation(f"as an array {in_order}, by name {by_name}")


@check("predict/field-order", "the order of an object's fields means nothing")
async def field_order(context: CheckContext) -> None:
    first = context.require_good_request()["instances"][0]
    if not isinstance(first, dict) or len(first) < 2:
        raise CheckSkipped("the instances have no fields to put in another order")
    turned = dict(reversed(first.items()))
    straight = require_predictions(await context.post("/predict", {"instances": [first]}))
    if not is_close_json(
        require_predictions(await context.post("/predict", {"instances": [turned]})), straight, 1e-9
    ):
        raise ContractViolation("the same fields in another order got another prediction")


@check("predict/no-instances", "no instances: no predictions, or 422; never a failure")
async def no_instances(context: CheckContext) -> None:
    response = await context.post("/predict", {"instances": []})
    if response.status == 200 and require_predictions(response):
        raise ContractViolation("predictions for nothing")
    require_status(response, 200, 422)


@check("predict/many-instances", "a thousand instances are a thousand predictions, in one answer")
async def many_instances(context: CheckContext) -> None:
    first = context.require_good_request()["instances"][0]
    count = len(require_predictions(await context.post("/predict", {"instances": [first] * 1000})))
    if count != 1000:
        raise ContractViolation(f"{count} predictions for 1000 instances")


@check(
    "predict/missing-value", "a missing value is null: it is a prediction or a 422, and the answer stays JSON"
)
async def missing_value(context: CheckContext) -> None:
    inputs = context.require_inputs()
    first = context.require_good_request()["instances"][0]
    gaps = {**first, inputs[0].name: None} if isinstance(first, dict) else [None, *first[1:]]
    response = await context.post("/predict", {"instances": [gaps]})
    if response.status == 200:
        require_predictions(response)
    elif response.status == 500:
        # The model itself cannot do it: that is the model's, and is said as such.
        require_problem(RawRequest("POST", "/predict"), response, 500, "prediction-failed")
    else:
        require_status(response, 200, 422, 500)
    await context.require_still_serving()


@check("predict/charset", "application/json; charset=utf-8 is application/json, and names are UTF-8")
async def charset(context: CheckContext) -> None:
    fields = (("Content-Type", "application/json; charset=utf-8"),)
    require_predictions(await context.post("/predict", context.require_good_request(), fields))


@check("predict/white-space", "JSON may be laid out with white space, and escape any character of a name")
async def white_space(context: CheckContext) -> None:
    good = context.require_good_request()
    spread = (
        b"\n\t " + msgspec.json.format(msgspec.json.encode(good), indent=4).replace(b"\n", b"\r\n") + b"\r\n "
    )
    straight = require_predictions(await context.post("/predict", good))
    if not is_close_json(
        require_predictions(await context.post("/predict", spread.replace(b"instances", rb"inst\u0061nces"))),
        straight,
        1e-9,
    ):
        raise ContractViolation("the same JSON in another layout got another answer")


@check("predict/chunked", "a body may come in chunks, without its length")
async def chunked(context: CheckContext) -> None:
    body = msgspec.json.encode(context.require_good_request())
    require_predictions(
        await context.send_and_record(RawRequest("POST", "/predict", JSON, body, chunked=True))
    )


CHECKS = (
    answer, samples, array_form, field_order, no_instances, many_instances, missing_value, charset, white_space, chunked,
)  # fmt: skip
