"""Score each row alone, to compare that with its prediction among other rows.

A model whose predictions stay the same has batch invariance.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import msgspec

from gateway.core.model import Tensor
from gateway.verify.conformance_check_type import (
    JSON,
    CheckContext,
    CheckSkipped,
    ContractViolation,
    Sample,
    is_close_json,
    require_predictions,
)
from gateway.verify.raw_http import NoCompleteResponse, RawRequest, RawResponse

TOLERANCE: Final = (
    1e-5  # relative to the largest number at that place: FP32 sums in another order differ by less
)
TOGETHER: Final = "together"
_MOST_ROWS: Final = 8
_MOST_TRIES: Final = 16
_MOST_GROUPS: Final = 3
_EXACT: Final = 1e-6  # a sample's tolerance unless it names another


@dataclass
class RowGroup:
    """Rows that share request parameters, with the prediction that each got alone. Alone means in a request of its own."""

    rest: Mapping[str, Any]  # the request without its instances
    rows: list[Any]
    alone: list[Any] = field(default_factory=list)
    tolerance: float = 0.0  # what the samples allow, where they allow more than the usual

    def request(self, rows: Sequence[Any]) -> dict[str, Any]:
        return {**self.rest, "instances": list(rows)}


def declares_rows_together(context: CheckContext) -> bool:
    """Whether the model is declared to use all rows of a request (`rows = "together"`), as one that ranks them does.

    The command line or the manifest says so, else the backend's metadata.
    """
    parameters = context.metadata.get("parameters")
    said = parameters.get("rows") if isinstance(parameters, dict) else None
    return (context.rows_policy or said) == TOGETHER


async def predict_each_row_alone(context: CheckContext) -> list[RowGroup]:
    """Predict each known row in a request of its own, and return rows and predictions in groups.

    Raises CheckSkipped where no row is known, ContractViolation where one is not answered.
    """
    if declares_rows_together(context):
        raise CheckSkipped('the model says rows = "together": its answers depend on all rows of a request')
    if context.groups is None:
        found = _from_samples(context) or [
            RowGroup({}, _distinct(context.require_good_request()["instances"]))
        ]
        for group in found[:_MOST_GROUPS]:
            await _add_variants(context, group)
        if _has_probabilities(context) and not any(group.rest for group in found):
            found.append(RowGroup({"parameters": {"probabilities": True}}, found[0].rows))
        for group in found:
            group.alone = [(await predict_rows(context, group, [row]))[0] for row in group.rows]
        context.groups = found
    groups: list[RowGroup] = context.groups
    return groups


async def predict_rows(context: CheckContext, group: RowGroup, rows: Sequence[Any]) -> list[Any]:
    """Predict rows of a group in one request. Raises ContractViolation where there is not one prediction for each row."""
    predictions = require_predictions(await context.post("/predict", group.request(rows)))
    require_one_prediction_per_row(predictions, len(rows))
    return predictions


def require_one_prediction_per_row(predictions: Sequence[Any], count: int) -> None:
    """Raise ContractViolation unless there is one prediction for each row."""
    if len(predictions) != count:
        raise ContractViolation(f"{len(predictions)} predictions for {count} rows")


def predict_request(group: RowGroup, rows: Sequence[Any]) -> RawRequest:
    """The `POST /predict` request for `rows`."""
    return RawRequest("POST", "/predict", JSON, msgspec.json.encode(group.request(rows)))


def require_same_predictions(group: RowGroup, got: Sequence[Any], places: Sequence[int], how: str) -> None:
    """Raise ContractViolation unless the rows got the same predictions as alone.

    `got` are the predictions. `places`: where the rows stand in the group.
    """
    require_one_prediction_per_row(got, len(places))
    scales = _scales(group.alone)
    for at, place in enumerate(places):
        if not is_same_prediction(got[at], group.alone[place], scales, group.tolerance):
            raise ContractViolation(
                f"the row {_short(group.rows[place])} alone gets {_short(group.alone[place])}, "
                f"{how} {_short(got[at])}{_noted(group)}"
            )


def is_same_prediction(
    got: Any, wanted: Any, scales: Mapping[tuple[Any, ...], float], tolerance: float = 0.0
) -> bool:
    """Whether two predictions are the same, within a tolerance.

    Floats must be within TOLERANCE of the largest number at their place. A positive `tolerance` is allowed, too
    (absolute, or relative to the larger number).
    """
    if tolerance and is_close_json(got, wanted, tolerance):
        return True
    ours, theirs = dict(_leaves(got)), dict(_leaves(wanted))
    return ours.keys() == theirs.keys() and all(
        _same_leaf(ours[path], theirs[path], TOLERANCE * scales.get(path, 0.0)) for path in ours
    )


def _same_leaf(got: Any, wanted: Any, allowed: float) -> bool:
    if isinstance(got, bool) or isinstance(wanted, bool):
        return got is wanted
    if isinstance(got, float) or isinstance(wanted, float):
        numbers = isinstance(got, int | float) and isinstance(wanted, int | float)
        return bool(numbers and abs(got - wanted) <= allowed) or got == wanted
    return type(got) is type(wanted) and bool(got == wanted)


def _scales(predictions: Sequence[Any]) -> dict[tuple[Any, ...], float]:
    """By place in a prediction, the largest number that any row has there."""
    scales: dict[tuple[Any, ...], float] = {}
    for prediction in predictions:
        for path, leaf in _leaves(prediction):
            if isinstance(leaf, int | float) and not isinstance(leaf, bool):
                scales[path] = max(scales.get(path, 0.0), abs(leaf))
    return scales


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, list | dict) and value:
        entries = enumerate(value) if isinstance(value, list) else value.items()
        for key, entry in entries:
            yield from _leaves(entry, (*path, key))
    else:
        yield path, value


def _from_samples(context: CheckContext) -> list[RowGroup]:
    """The samples' rows, those with other parameters in a group of their own, different answers first."""
    by_rest: dict[str, tuple[Mapping[str, Any], list[tuple[Any, Any]], float]] = {}
    for sample in context.samples:
        rest = {name: value for name, value in sample.request.items() if name != "instances"}
        key = json.dumps(rest, sort_keys=True)
        _, pairs, tolerance = by_rest.setdefault(key, (rest, [], 0.0))
        pairs += _pairs(sample)
        allowed = sample.tolerance if sample.tolerance > _EXACT else 0.0
        by_rest[key] = (rest, pairs, max(tolerance, allowed))
    return [
        RowGroup(rest, _distinct(_most_different(pairs)), tolerance=tolerance)
        for rest, pairs, tolerance in by_rest.values()
        if pairs
    ][:_MOST_GROUPS]


def _pairs(sample: Sample) -> list[tuple[Any, Any]]:
    instances, predictions = sample.request.get("instances"), sample.response.get("predictions")
    if not isinstance(instances, list):
        return []
    known = predictions if isinstance(predictions, list) else []
    return [(row, known[at] if at < len(known) else None) for at, row in enumerate(instances)]


def _most_different(pairs: Sequence[tuple[Any, Any]]) -> list[Any]:
    first: dict[str, Any] = {}
    for row, prediction in pairs:
        first.setdefault(json.dumps(prediction), row)
    return [*first.values(), *(row for row, _ in pairs)]


def _distinct(rows: Sequence[Any]) -> list[Any]:
    found: dict[str, Any] = {}
    for row in rows:
        found.setdefault(json.dumps(row), row)
    return list(found.values())[:_MOST_ROWS]


async def _add_variants(context: CheckContext, group: RowGroup) -> None:
    """Where few rows are known, rows that differ in one value and that the backend answers too."""
    for variant in islice(_variants(context, group.rows[0]), _MOST_TRIES):
        if len(group.rows) >= _MOST_ROWS // 2:
            return
        if variant not in group.rows and await _is_answered(context, predict_request(group, [variant])):
            group.rows.append(variant)


async def _is_answered(context: CheckContext, request: RawRequest) -> bool:
    try:
        response: RawResponse = await context.client.request(request)
    except NoCompleteResponse:
        return False
    return response.status == 200


def _variants(context: CheckContext, row: Any) -> Iterator[Any]:
    """`row` with another value in one field: the categories that the backend names first, then other numbers."""
    parameters = context.metadata.get("parameters")
    named = parameters.get("categories") if isinstance(parameters, dict) else None
    categories: dict[str, Any] = named if isinstance(named, dict) else {}
    for wants_category in (True, False):
        for place, tensor in enumerate(context.inputs):
            given = categories.get(tensor.name)
            if bool(given) is not wants_category:
                continue
            for value in given if isinstance(given, list) else _other_values(_value(row, place, tensor)):
                changed = _with_value(row, place, tensor, value)
                if changed is not None:
                    yield changed


def _value(row: Any, place: int, tensor: Tensor) -> Any:
    if isinstance(row, dict):
        return row.get(tensor.name)
    return row[place] if isinstance(row, list) and place < len(row) else None


def _with_value(row: Any, place: int, tensor: Tensor, value: Any) -> Any:
    if isinstance(row, dict) and tensor.name in row:
        return {**row, tensor.name: value}
    if isinstance(row, list) and place < len(row):
        return [*row[:place], value, *row[place + 1 :]]
    return None


def _other_values(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    return [value + 1] if isinstance(value, int | float) else []


def _has_probabilities(context: CheckContext) -> bool:
    parameters = context.metadata.get("parameters")
    accepted = parameters.get("accepts") if isinstance(parameters, dict) else None
    return isinstance(accepted, list) and "probabilities" in accepted


def _noted(group: RowGroup) -> str:
    return f" (with {_short(dict(group.rest))})" if group.rest else ""


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else text[:117] + "…"
