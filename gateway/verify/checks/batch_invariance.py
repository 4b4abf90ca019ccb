"""Checks of batch invariance: the answer for a row does not depend on the rows around it.

It is the same alone, with other rows, in any order, and next to other callers.
"""

import asyncio
from typing import Any, Final

from gateway.verify.checks.open_inference_predictions import flatten, infer_request, require_outputs
from gateway.verify.conformance_check_type import (
    CheckContext,
    CheckSkipped,
    ContractViolation,
    check,
    require_predictions,
)
from gateway.verify.raw_http import NoCompleteResponse, RawRequest
from gateway.verify.score_rows_alone import (
    RowGroup,
    predict_each_row_alone,
    predict_request,
    predict_rows,
    require_same_predictions,
)

_COPIES: Final = 3
_MOST_IN_SHAPE: Final = 64


@check("rows/repeated", "predicting is a pure function: the same row gets the same answer again", short=True)
async def repeated(context: CheckContext) -> None:
    for group in await predict_each_row_alone(context):
        for place, row in enumerate(group.rows[:2]):
            require_same_predictions(
                group, await predict_rows(context, group, [row]), [place], "and once more"
            )


@check("rows/together", "the answer for a row is the same alone and in one request with others", short=True)
async def together(context: CheckContext) -> None:
    for group in await predict_each_row_alone(context):
        await _in_company(context, group, list(range(len(group.rows))), "together with others")


@check("rows/reversed", "the order of the predictions is that of the instances, whatever it is", short=True)
async def turned(context: CheckContext) -> None:
    for group in await predict_each_row_alone(context):
        await _in_company(context, group, list(range(len(group.rows)))[::-1], "in reverse order")


@check("rows/doubled", "the answer for a row is the same where the row comes twice", short=True)
async def doubled(context: CheckContext) -> None:
    for group in await predict_each_row_alone(context):
        places = [place for place in range(len(group.rows)) for _ in range(2)]
        await _in_company(context, group, places, "doubled")


@check(
    "rows/any-number",
    "one prediction for each row, also where there are as many rows as a row has outputs or inputs",
    short=True,
)
async def any_number(context: CheckContext) -> None:
    for group in await predict_each_row_alone(context):
        widths = {_width(prediction) for prediction in group.alone}
        counts = widths | {len(context.inputs), len(context.metadata.get("outputs") or ()), 2}
        for count in sorted(count for count in counts if 2 <= count <= _MOST_IN_SHAPE):
            places = [place % len(group.rows) for place in range(count)]
            await _in_company(context, group, places, f"as one of {count} rows")


@check("rows/at-once", "requests that run at once do not mix: each gets its own answer", short=True)
async def at_once(context: CheckContext) -> None:
    for group in await predict_each_row_alone(context):
        alone = [[place] for place in range(len(group.rows))]
        every = list(range(len(group.rows)))
        await asyncio.gather(
            *(_beside(context, group, places) for places in [*alone, every, every[::-1]] * _COPIES)
        )


@check(
    "rows/tensors", "as tensors the rows get the same predictions, each output under its own name", short=True
)
async def tensors(context: CheckContext) -> None:
    group = (await predict_each_row_alone(context))[0]
    if group.rest:
        raise CheckSkipped("the samples have parameters of their own")
    if len({_width(prediction) for prediction in group.alone}) > 1:
        raise CheckSkipped("the predictions have differing lengths, which no tensor has")
    response = await context.post(f"{context.open_inference}/infer", infer_request(context, group.rows))
    outputs = require_outputs(context, response)
    wanted = [_by_output(prediction, outputs[0]["name"]) for prediction in group.alone]
    as_tensors = RowGroup(group.rest, group.rows, wanted, group.tolerance)
    require_same_predictions(
        as_tensors, _rows_of(outputs, len(group.rows)), range(len(group.rows)), "as tensors"
    )


async def _in_company(context: CheckContext, group: RowGroup, places: list[int], how: str) -> None:
    found = require_predictions(
        await context.post("/predict", group.request([group.rows[p] for p in places]))
    )
    require_same_predictions(group, found, places, how)


async def _beside(context: CheckContext, group: RowGroup, places: list[int]) -> None:
    request: RawRequest = predict_request(group, [group.rows[place] for place in places])
    try:
        response = await context.client.request(request)
    except NoCompleteResponse as error:
        context.last = (request, error)
        raise ContractViolation(f"of many requests at once one got no answer: {error}") from None
    if response.status == 503:  # a full queue is no mixing; load/burst looks at it
        return
    try:
        require_same_predictions(group, require_predictions(response), places, "next to other requests")
    except ContractViolation:
        context.last = (request, response)
        raise


def _width(prediction: Any) -> int:
    return len(prediction) if isinstance(prediction, list | dict) else 1


def _by_output(prediction: Any, name: str) -> dict[str, list[Any]]:
    """A prediction as the values of each output by its name; `name` is that of the only one."""
    outputs = prediction if isinstance(prediction, dict) else {name: prediction}
    return {key: flatten(value) if isinstance(value, list) else [value] for key, value in outputs.items()}


def _rows_of(outputs: list[dict[str, Any]], count: int) -> list[dict[str, list[Any]]]:
    """The same of the rows of tensors."""
    rows: list[dict[str, list[Any]]] = [{} for _ in range(count)]
    for output in outputs:
        if not output["shape"] or output["shape"][0] != count:
            raise ContractViolation(f"{output['name']} has the shape {output['shape']} for {count} rows")
        data = flatten(output["data"])
        width = len(data) // count
        for at, row in enumerate(rows):
            row[output["name"]] = data[at * width : (at + 1) * width]
    return rows


CHECKS = (repeated, together, turned, doubled, any_number, at_once, tensors)
