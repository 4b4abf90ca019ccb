"""The Open Inference Protocol, version 2: tensors to rows in the order of the signature, and predictions to tensors."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from chips_backend import binary
from chips_backend.column_block import array_of_floats, listed
from chips_backend.decode_instances import (
    CHECKS,
    EXACT,
    FLOATS,
    INTEGERS,
    Forms,
    Scoring,
    check_fields,
    checked,
    kind_of,
    read_parameters,
    shown,
)
from chips_backend.manifest import Signature, Tensor
from chips_backend.problem_details import invalid_instances

_FIELDS: Final = ("id", "parameters", "inputs", "outputs", "model_name", "model_version")
_IGNORED: Final = ("content_type",)  # the signature says what goes in
_BINARY_OUTPUT: Final = (
    "binary_data_output"  # of the request: in which form outputs come that say nothing themselves
)
_BINARY: Final = "binary_data"  # of an output
PREDICTION: Final = "prediction"  # the output's name where the signature declares none


def read_tensors(
    body: Any,
    signature: Signature,
    known: Mapping[str, str] = {},
    behind: memoryview | None = None,
) -> Scoring:
    """An inference request: a tensor for each input, or one tensor [rows, inputs] for all of them.

    `behind` are the bytes behind the JSON, where the request has any.
    """
    if not isinstance(body, dict):
        raise invalid_instances([f'expected an object with "inputs", got {kind_of(body)}'])
    identifier = body.get("id")
    if identifier is not None and not isinstance(identifier, str):
        raise invalid_instances([f"id must be a string, got {kind_of(identifier)}"])
    given = body.get("inputs")
    if not isinstance(given, list) or not given:
        raise invalid_instances(["inputs must be an array with at least one tensor"])
    check_fields(body, _FIELDS)
    parameters, requested, wanted = read_asked(body, known, signature.outputs)
    tensors = _tensors(given, behind)
    inputs = signature.inputs
    names = [tensor.name for tensor in inputs]

    def place(row: int, field: int | None) -> str:
        return f"row {row}" if field is None else f"{names[field] if names else tensors[0].name}[{row}]"

    if not inputs:
        return Scoring(tensors[0].rows(), parameters, place, identifier, requested, wanted)
    if len(tensors) == 1 and len(inputs) > 1 and tensors[0].name not in names:
        rows = _matrix(tensors[0], len(inputs))
    else:
        rows = _columns(tensors, inputs)
    problems: list[str] = []
    for index, row in enumerate(rows):
        for column, tensor in enumerate(inputs):
            row[column] = checked(row[column], tensor, f"{tensor.name}[{index}]", problems)
    if problems:
        raise invalid_instances(problems)
    return Scoring(rows, parameters, place, identifier, requested, wanted)


def read_asked(
    body: dict[str, Any], known: Mapping[str, str], declared: Sequence[Tensor]
) -> tuple[dict[str, Any], tuple[str, ...] | None, Forms]:
    """The request's parameters, the outputs that it names (None: all), and in which form each is wanted. Raises Problem."""
    parameters: dict[str, Any] = {}
    form = False
    if body.get("parameters") is not None:
        parameters = read_parameters(body, {**known, _BINARY_OUTPUT: "boolean"}, _IGNORED)
        form = parameters.pop(_BINARY_OUTPUT, False)
    requested, forms = _requested(body.get("outputs"), declared)
    return parameters, requested, Forms(form, forms)


def _requested(outputs: Any, declared: Sequence[Tensor]) -> tuple[tuple[str, ...] | None, Mapping[str, bool]]:
    """The outputs that are asked for by name, None for all; and which of them in binary form, where it is said."""
    if outputs is None or outputs == []:
        return None, {}
    if not isinstance(outputs, list) or not all(
        isinstance(output, dict) and isinstance(output.get("name"), str) for output in outputs
    ):
        raise invalid_instances(["outputs must be an array of objects with a name"])
    names = tuple(output["name"] for output in outputs)
    check_outputs(names, [tensor.name for tensor in declared])
    if len(set(names)) < len(names):
        raise invalid_instances(["an output is asked for twice"])
    forms = {}
    for index, output in enumerate(outputs):
        asked = read_parameters(output, {_BINARY: "boolean"}, _IGNORED, where=f"outputs[{index}].parameters")
        if _BINARY in asked:
            forms[output["name"]] = asked[_BINARY]
    return names, forms


def check_outputs(names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse outputs that the model does not have; where nothing is declared, its answer will tell. Raises Problem."""
    unknown = [name for name in names if name not in known]
    if known and unknown:
        raise invalid_instances(
            [f"there is no output {', '.join(map(shown, unknown[:10]))}; this model has {', '.join(known)}"]
        )


class _Tensor(NamedTuple):
    name: str
    shape: list[int]
    data: list[Any]  # flat

    def rows(self) -> list[list[Any]]:
        width = math.prod(self.shape[1:])
        return [self.data[at : at + width] for at in range(0, len(self.data), width)]


def _tensors(given: list[Any], behind: memoryview | None) -> list[_Tensor]:
    """All tensors of a request, those in binary form from the bytes `behind` the JSON, in their order."""
    tensors = []
    for index, tensor in enumerate(given):
        content = None
        parameters = tensor.get("parameters") if isinstance(tensor, dict) else None
        if isinstance(parameters, dict) and parameters.get(binary.SIZE) is not None:
            where = f"inputs[{index}]"
            if behind is None:
                raise invalid_instances([f"{where}: {binary.SIZE} needs the header {binary.LENGTH_HEADER}"])
            if tensor.get("data") is not None:
                raise invalid_instances([f"{where}: give either data or {binary.SIZE}"])
            content, behind = binary.take(behind, parameters[binary.SIZE], where)
        tensors.append(_tensor(tensor, index, content))
    binary.check_all_taken(behind)
    return tensors


def _tensor(given: Any, index: int, content: memoryview | None) -> _Tensor:
    where = f"inputs[{index}]"
    if not isinstance(given, dict):
        raise invalid_instances([f"{where}: expected an object, got {kind_of(given)}"])
    name, shape, datatype, data = (given.get(key) for key in ("name", "shape", "datatype", "data"))
    if not isinstance(name, str):
        raise invalid_instances([f"{where}.name must be a string"])
    if not isinstance(datatype, str) or datatype not in CHECKS:
        raise invalid_instances([f"{where}.datatype: {shown(datatype)} is not a datatype"])
    if (
        not isinstance(shape, list)
        or not shape
        or not all(
            isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 2**31 for size in shape
        )
    ):
        raise invalid_instances([f"{where}.shape must be an array of sizes"])
    if 0 in shape[1:]:
        raise invalid_instances([f"{where}.shape: rows without values, {shape}"])
    if content is not None:
        return _Tensor(name, shape, listed(binary.unpack(content, datatype, shape, where)))
    if not isinstance(data, list):
        raise invalid_instances(
            [
                f"{where}.data must be an array, or parameters.{binary.SIZE} the number of its bytes behind the JSON"
            ]
        )
    flat = _flatten(data)
    if len(flat) != math.prod(shape):
        raise invalid_instances(
            [f"{where}: shape {shape} means {math.prod(shape)} values, data has {len(flat)}"]
        )
    problems: list[str] = []
    declared = Tensor(name=name, datatype=datatype)
    for at, value in enumerate(flat):
        if type(value) is not float or datatype != "FP64":
            flat[at] = checked(value, declared, f"{where}.data[{at}]", problems)
    if problems:
        raise invalid_instances(problems)
    return _Tensor(name, shape, flat)


def _flatten(data: list[Any]) -> list[Any]:
    """The values of a nested array in row-major order; a loop, since a caller decides how deep it is."""
    flat: list[Any] = []
    waiting = [iter(data)]
    while waiting:
        for item in waiting[-1]:
            if isinstance(item, list):
                waiting.append(iter(item))
                break
            flat.append(item)
        else:
            waiting.pop()
    return flat


def _matrix(tensor: _Tensor, width: int) -> list[list[Any]]:
    if len(tensor.shape) != 2 or tensor.shape[1] != width:
        raise invalid_instances([f"{tensor.name}: expected shape [rows, {width}], got {tensor.shape}"])
    return tensor.rows()


def _nested(flat: list[Any], shape: Sequence[int]) -> list[Any]:
    """The values of one row in the form of its shape."""
    for size in reversed(shape[1:]):
        flat = [flat[at : at + size] for at in range(0, len(flat), size)] if size else []
    return flat


def _columns(tensors: Sequence[_Tensor], inputs: Sequence[Tensor]) -> list[list[Any]]:
    names = [tensor.name for tensor in inputs]
    by_name = {tensor.name: tensor for tensor in tensors}
    problems = [f"there is no input {shown(name)}" for name in by_name if name not in names]
    problems += [f"input {name} is missing" for name in names if name not in by_name]
    if len(by_name) < len(tensors):
        problems.append("an input is there twice")
    if problems:
        raise invalid_instances(problems)
    counts = {name: by_name[name].shape[0] for name in names}
    if len(set(counts.values())) > 1:
        raise invalid_instances([f"the inputs differ in their number of rows: {counts}"])
    columns = []
    for tensor in inputs:
        given = by_name[tensor.name]
        if len(tensor.shape) <= 1 and given.shape[1:] in ([], [1]):
            columns.append(given.data)
        else:
            columns.append([_nested(row, given.shape[1:]) for row in given.rows()])
    return [list(row) for row in zip(*columns, strict=True)]


def tensor_outputs(
    predictions: list[Any], signature: Signature, requested: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """One tensor for each output of the signature, or for each that was asked for by name. Raises Problem."""
    declared = {tensor.name: tensor for tensor in signature.outputs}
    columns = _outputs(predictions, list(declared))
    if requested is not None:
        check_outputs(requested, list(columns))
        columns = {name: columns[name] for name in requested}
    return [_output(name, column, declared.get(name)) for name, column in columns.items()]


def packed(outputs: list[dict[str, Any]], forms: Forms) -> bytes | None:
    """Take the outputs that are wanted in binary form out of `outputs`; their bytes, one after the other. None: no output is.

    One with a missing value stays as it is where its datatype has none in that form.
    """
    if not (forms.default or forms.by_name):
        return None
    contents: list[bytes] = []
    for output in outputs:
        content = binary.pack(output["data"], output["datatype"]) if forms(output["name"]) else None
        if content is not None:
            del output["data"]
            output["parameters"] = {binary.SIZE: len(content)}
            contents.append(content)
    return b"".join(contents) if any("data" not in output for output in outputs) else None


def _outputs(predictions: list[Any], names: list[str]) -> dict[str, list[Any]]:
    if len(names) > 1:
        return {name: [row[name] for row in predictions] for name in names}
    if not names and predictions and isinstance(predictions[0], dict):
        found = list(predictions[0])
        if found and all(isinstance(row, dict) and list(row) == found for row in predictions):
            return {name: [row[name] for row in predictions] for name in found}
    return {names[0] if names else PREDICTION: predictions}


def _output(name: str, column: list[Any], declared: Tensor | None) -> dict[str, Any]:
    """A tensor; what has no such form, as text that is JSON."""
    shape, data = [len(column)], column
    while (
        data
        and isinstance(data[0], list)
        and all(isinstance(item, list) and len(item) == len(data[0]) for item in data)
    ):
        shape.append(len(data[0]))
        data = [value for item in data for value in item]
    kinds = set(map(type, data))
    if list in kinds or dict in kinds:
        shape, data = [len(column)], [msgspec.json.encode(item).decode() for item in column]
        kinds = {str} if data else set()
    datatype, data = _typed(data, kinds, declared)
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


def _typed(data: list[Any], kinds: set[type], declared: Tensor | None) -> tuple[str, list[Any]]:
    """The declared datatype where all values fit it, else their own; and the values, of these types, as it has them."""
    if declared is not None and _fit_as_they_are(data, kinds, declared.datatype):
        return declared.datatype, data
    present = [value for value in data if value is not None and value == value]  # noqa: PLR0124  (without NaN)
    if declared is not None:
        check, datatype = CHECKS[declared.datatype], declared.datatype
        is_float = datatype in FLOATS
        if all(not check(value, datatype) or (is_float and _is_infinite(value)) for value in present):
            return datatype, [_whole(value) for value in data] if "INT" in datatype else data
    kinds = {type(value) for value in present}
    if kinds <= {int, float}:
        if kinds == {int}:
            for datatype in ("INT64", "UINT64"):
                if all(not CHECKS[datatype](value, datatype) for value in present):
                    return datatype, data
        return "FP64", data
    if kinds == {bool}:
        return "BOOL", data
    if kinds == {str}:
        return "BYTES", data
    return "BYTES", [None if value is None else msgspec.json.encode(value).decode() for value in data]


def _fit_as_they_are(data: list[Any], kinds: set[type], datatype: str) -> bool:
    """Whether all values are of the one type that the datatype is sent as, and in its range. Most answers are like that."""
    if kinds == {int} and datatype in INTEGERS:
        return binary.pack_integers(data, datatype) is not None
    if kinds == {float} and datatype in FLOATS:
        numbers = np.abs(array_of_floats(data))
        return bool((~np.isfinite(numbers) | (numbers <= FLOATS[datatype])).all())
    return kinds == _KINDS.get(datatype, set())


_KINDS: Final[dict[str, set[type]]] = {"BOOL": {bool}, "BYTES": {str}}


def _is_infinite(value: Any) -> bool:
    return isinstance(value, float) and math.isinf(value)


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and abs(value) <= EXACT else value
