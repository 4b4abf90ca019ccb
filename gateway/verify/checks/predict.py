"""Scores by `POST /predict`: their shape, and that they are what was published."""

import msgspec

from gateway.verify.check import (
    JSON,
    Bench,
    NotChecked,
    Wrong,
    check,
    is_close,
    predictions_of,
    require_json,
    require_problem,
    require_status,
)
from gateway.verify.wire import Ask


@check(
    "predict/answer", 'POST /predict answers {"predictions": [...], "model": ..., "version": ...}', short=True
)
async def answer(bench: Bench) -> None:
    good = bench.need_good()
    came = await bench.post("/predict", good)
    predictions = predictions_of(came)
    content = require_json(came)
    if len(predictions) != len(good["instances"]):
        raise Wrong(f"{len(predictions)} predictions for {len(good['instances'])} instances")
    if content.get("model") != bench.model or content.get("version") != bench.version:
        raise Wrong(
            f"it says {content.get('model')!r} version {content.get('version')!r} "
            f"instead of {bench.model!r} version {bench.version!r}"
        )


@check(
    "predict/samples",
    "each of the manifest's samples comes out as published, within its tolerance",
    short=True,
)
async def samples(bench: Bench) -> None:
    if not bench.samples:
        raise NotChecked("no samples: give --samples manifest.json")
    for number, sample in enumerate(bench.samples):
        predictions = predictions_of(await bench.post("/predict", sample.request))
        wanted = sample.response.get("predictions")
        if not is_close(predictions, wanted, sample.tolerance):
            raise Wrong(
                f"sample {number}: {str(predictions)[:200]} instead of {str(wanted)[:200]} (tolerance {sample.tolerance:g})"
            )


@check("predict/array-form", "an instance may be an array in the order of the signature")
async def array_form(bench: Bench) -> None:
    inputs = bench.need_inputs()
    first = bench.need_good()["instances"][0]
    if not isinstance(first, dict):
        raise NotChecked("the samples are arrays themselves")
    try:
        array = [first[tensor.name] for tensor in inputs]
    except KeyError as error:
        raise Wrong(f"the metadata names an input {error}, the samples do not") from None
    by_name = predictions_of(await bench.post("/predict", {"instances": [first]}))
    in_order = predictions_of(await bench.post("/predict", {"instances": [array]}))
    if not is_close(in_order, by_name, 1e-9):
        raise Wrong(f"as an array {in_order}, by name {by_name}")


@check("predict/field-order", "the order of an object's fields means nothing")
async def field_order(bench: Bench) -> None:
    first = bench.need_good()["instances"][0]
    if not isinstance(first, dict) or len(first) < 2:
        raise NotChecked("the instances have no fields to put in another order")
    turned = dict(reversed(first.items()))
    straight = predictions_of(await bench.post("/predict", {"instances": [first]}))
    if not is_close(predictions_of(await bench.post("/predict", {"instances": [turned]})), straight, 1e-9):
        raise Wrong("the same fields in another order got another prediction")


@check("predict/no-instances", "no instances: no predictions, or 422; never a failure")
async def no_instances(bench: Bench) -> None:
    came = await bench.post("/predict", {"instances": []})
    if came.status == 200 and predictions_of(came):
        raise Wrong("predictions for nothing")
    require_status(came, 200, 422)


@check("predict/many-instances", "a thousand instances are a thousand predictions, in one answer")
async def many_instances(bench: Bench) -> None:
    first = bench.need_good()["instances"][0]
    count = len(predictions_of(await bench.post("/predict", {"instances": [first] * 1000})))
    if count != 1000:
        raise Wrong(f"{count} predictions for 1000 instances")


@check(
    "predict/missing-value", "a missing value is null: it is a prediction or a 422, and the answer stays JSON"
)
async def missing_value(bench: Bench) -> None:
    inputs = bench.need_inputs()
    first = bench.need_good()["instances"][0]
    gaps = {**first, inputs[0].name: None} if isinstance(first, dict) else [None, *first[1:]]
    came = await bench.post("/predict", {"instances": [gaps]})
    if came.status == 200:
        predictions_of(came)
    elif came.status == 500:
        # The model itself cannot do it: that is the model's, and is said as such.
        require_problem(Ask("POST", "/predict"), came, 500, "prediction-failed")
    else:
        require_status(came, 200, 422, 500)
    await bench.still_good()


@check("predict/charset", "application/json; charset=utf-8 is application/json, and names are UTF-8")
async def charset(bench: Bench) -> None:
    fields = (("Content-Type", "application/json; charset=utf-8"),)
    predictions_of(await bench.post("/predict", bench.need_good(), fields))


@check("predict/white-space", "JSON may be laid out with white space, and escape any character of a name")
async def white_space(bench: Bench) -> None:
    good = bench.need_good()
    spread = (
        b"\n\t " + msgspec.json.format(msgspec.json.encode(good), indent=4).replace(b"\n", b"\r\n") + b"\r\n "
    )
    straight = predictions_of(await bench.post("/predict", good))
    if not is_close(
        predictions_of(await bench.post("/predict", spread.replace(b"instances", rb"inst\u0061nces"))),
        straight,
        1e-9,
    ):
        raise Wrong("the same JSON in another layout got another answer")


@check("predict/chunked", "a body may come in chunks, without its length")
async def chunked(bench: Bench) -> None:
    body = msgspec.json.encode(bench.need_good())
    predictions_of(await bench.ask(Ask("POST", "/predict", JSON, body, chunked=True)))


CHECKS = (
    answer, samples, array_form, field_order, no_instances, many_instances, missing_value, charset, white_space, chunked,
)  # fmt: skip
