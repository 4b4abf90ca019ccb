"""From a caller's JSON to rows in the order of the signature, and back. Every problem says where it is."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from chips_backend.manifest import Signature, Tensor
from chips_backend.problem import invalid_instances, malformed_json

_ENOUGH_PROBLEMS = 11  # ten are shown, one more says that there are more
_INTEGERS = {
    **{f"INT{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}
_FLOATS = {"FP16": 65504.0, "FP32": 3.4028234663852886e38, "FP64": math.inf}

Rows = list[list[Any]]


class Scoring(NamedTuple):
    """A request for predictions, checked."""

    rows: Rows
    parameters: dict[str, Any]
    id: str | None = None


def parse_json(content: bytes) -> Any:
    """Parse a body; a Problem says at which line and column it is not JSON."""
    try:
        return msgspec.json.decode(content)
    except UnicodeDecodeError as error:
        raise malformed_json(f"the body is not UTF-8: {_place(content, error.start)}") from None
    except msgspec.DecodeError as error:
        text = str(error).removeprefix("JSON is malformed: ")
        what, _, at = text.rpartition(" (byte ")
        if what:
            raise malformed_json(
                f"the body is not JSON: {what} at {_place(content, int(at.rstrip(')')))}"
            ) from None
        raise malformed_json(f"the body is not JSON: {text[:1].lower()}{text[1:]}") from None
    except RecursionError:
        raise malformed_json("the body is nested too deeply") from None


def _place(content: bytes, offset: int) -> str:
    line = content.count(b"\n", 0, offset) + 1
    column = offset - (content.rfind(b"\n", 0, offset) + 1) + 1
    return f"line {line}, column {column}"


def read_instances(body: Any, signature: Signature) -> Scoring:
    """`{"instances": […], "parameters": {…}}`: each instance an object by field name, or an array in signature order."""
    if not isinstance(body, dict):
        raise invalid_instances([f'expected an object with "instances", got {_kind(body)}'])
    instances = body.get("instances")
    parameters = _parameters(body)
    if not isinstance(instances, list):
        what = "is missing" if "instances" not in body else f"must be an array, got {_kind(instances)}"
        raise invalid_instances([f"instances {what}"])
    if not signature.inputs:
        return Scoring(instances, parameters)
    problems: list[str] = []
    rows = []
    for index, instance in enumerate(instances):
        rows.append(_row(instance, signature.inputs, f"instances[{index}]", problems))
        if len(problems) >= _ENOUGH_PROBLEMS:
            break
    if problems:
        raise invalid_instances(problems)
    return Scoring(rows, parameters)


def _parameters(body: dict[str, Any]) -> dict[str, Any]:
    parameters = body.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise invalid_instances([f"parameters must be an object, got {_kind(parameters)}"])
    return parameters


def _row(instance: Any, inputs: Sequence[Tensor], where: str, problems: list[str]) -> list[Any]:
    if isinstance(instance, dict):
        names = {tensor.name for tensor in inputs}
        problems += [f"{where}: there is no input {_shown(name)}" for name in instance if name not in names]
        missing = [tensor.name for tensor in inputs if tensor.name not in instance]
        problems += [f"{where}.{name} is missing" for name in missing]
        if missing:
            return []
        values = [instance[tensor.name] for tensor in inputs]
    elif isinstance(instance, list):
        if len(instance) != len(inputs):
            problems.append(f"{where}: expected {len(inputs)} values, got {len(instance)}")
            return []
        values = instance
    else:
        problems.append(f"{where}: expected an object or an array, got {_kind(instance)}")
        return []
    for column, (tensor, value) in enumerate(zip(inputs, values, strict=True)):
        if (
            type(value) is float
            and tensor.datatype == "FP64"
            and len(tensor.shape) <= 1
            and math.isfinite(value)
        ):
            continue  # by far the most
        place = f"{where}.{tensor.name}" if isinstance(instance, dict) else f"{where}[{column}]"
        _check(value, tensor.datatype, tensor.shape[1:], place, problems)
    return values


def _check(value: Any, datatype: str, shape: Sequence[int], place: str, problems: list[str]) -> None:
    if value is None or len(problems) >= _ENOUGH_PROBLEMS:
        return
    if shape:
        if not isinstance(value, list):
            problems.append(f"{place}: expected an array, got {_kind(value)}")
        elif shape[0] not in {-1, len(value)}:
            problems.append(f"{place}: expected {shape[0]} values, got {len(value)}")
        else:
            for index, inner in enumerate(value):
                _check(inner, datatype, shape[1:], f"{place}[{index}]", problems)
        return
    wrong = _CHECKS.get(datatype, _unknown)(value, datatype)
    if wrong:
        problems.append(f"{place}: {wrong}")


def _integer(value: Any, datatype: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int):
        return f"expected an integer, got {_shown(value)}"
    low, high = _INTEGERS[datatype]
    return "" if low <= value <= high else f"expected {datatype}, got {_shown(value)}, which does not fit"


def _number(value: Any, datatype: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"expected a number, got {_shown(value)}"
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    fits = math.isfinite(number) and abs(number) <= _FLOATS[datatype]
    return "" if fits else f"expected {datatype}, got {_shown(value)}, which does not fit"


def _boolean(value: Any, _: str) -> str:
    return "" if isinstance(value, bool) else f"expected true or false, got {_shown(value)}"


def _text(value: Any, _: str) -> str:
    return "" if isinstance(value, str) else f"expected a string, got {_shown(value)}"


def _unknown(_: Any, datatype: str) -> str:
    return f"the signature says {datatype}, which is not a datatype"


_CHECKS: dict[str, Callable[[Any, str], str]] = {
    **dict.fromkeys(_INTEGERS, _integer),
    **dict.fromkeys(_FLOATS, _number),
    "BOOL": _boolean,
    "BYTES": _text,
}


def read_tensors(body: Any, signature: Signature) -> Scoring:
    """An Open Inference Protocol request: a tensor for each input, or one tensor [rows, inputs] for all of them."""
    if not isinstance(body, dict):
        raise invalid_instances([f'expected an object with "inputs", got {_kind(body)}'])
    identifier = body.get("id")
    if identifier is not None and not isinstance(identifier, str):
        raise invalid_instances([f"id must be a string, got {_kind(identifier)}"])
    given = body.get("inputs")
    if not isinstance(given, list) or not given:
        raise invalid_instances(["inputs must be an array with at least one tensor"])
    parameters = _parameters(body)
    tensors = [_tensor(tensor, index) for index, tensor in enumerate(given)]
    inputs = signature.inputs
    if not inputs:
        return Scoring(tensors[0].rows(), parameters, identifier)
    names = [tensor.name for tensor in inputs]
    if len(tensors) == 1 and len(inputs) > 1 and tensors[0].name not in names:
        rows = _matrix(tensors[0], len(inputs))
    else:
        rows = _columns(tensors, inputs)
    problems: list[str] = []
    for index, row in enumerate(rows):
        for tensor, value in zip(inputs, row, strict=True):
            _check(value, tensor.datatype, tensor.shape[1:], f"{tensor.name}[{index}]", problems)
    if problems:
        raise invalid_instances(problems)
    return Scoring(rows, parameters, identifier)


class _Tensor(NamedTuple):
    name: str
    shape: list[int]
    data: list[Any]  # flat

    def rows(self) -> Rows:
        width = math.prod(self.shape[1:])
        return [self.data[at : at + width] for at in range(0, len(self.data), width)]


def _tensor(given: Any, index: int) -> _Tensor:
    where = f"inputs[{index}]"
    if not isinstance(given, dict):
        raise invalid_instances([f"{where}: expected an object, got {_kind(given)}"])
    name, shape, datatype, data = (given.get(key) for key in ("name", "shape", "datatype", "data"))
    if not isinstance(name, str):
        raise invalid_instances([f"{where}.name must be a string"])
    if not isinstance(datatype, str) or datatype not in _CHECKS:
        raise invalid_instances([f"{where}.datatype: {_shown(datatype)} is not a datatype"])
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
    if not isinstance(data, list):
        raise invalid_instances([f"{where}.data must be an array (binary tensors are not taken)"])
    flat = _flatten(data)
    if len(flat) != math.prod(shape):
        raise invalid_instances(
            [f"{where}: shape {shape} means {math.prod(shape)} values, data has {len(flat)}"]
        )
    problems: list[str] = []
    for at, value in enumerate(flat):
        _check(value, datatype, (), f"{where}.data[{at}]", problems)
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


def _matrix(tensor: _Tensor, width: int) -> Rows:
    if len(tensor.shape) != 2 or tensor.shape[1] != width:
        raise invalid_instances([f"{tensor.name}: expected shape [rows, {width}], got {tensor.shape}"])
    return tensor.rows()


def _nested(flat: list[Any], shape: Sequence[int]) -> list[Any]:
    """The values of one row in the form of its shape."""
    for size in reversed(shape[1:]):
        flat = [flat[at : at + size] for at in range(0, len(flat), size)] if size else []
    return flat


def _columns(tensors: Sequence[_Tensor], inputs: Sequence[Tensor]) -> Rows:
    names = [tensor.name for tensor in inputs]
    by_name = {tensor.name: tensor for tensor in tensors}
    problems = [f"there is no input {_shown(name)}" for name in by_name if name not in names]
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


def tensor_outputs(predictions: list[Any], signature: Signature) -> list[dict[str, Any]]:
    """Predictions as one Open Inference Protocol tensor; what has no such form, as text that is JSON."""
    declared = signature.outputs[0] if signature.outputs else None
    shape, data = [len(predictions)], predictions
    while data and all(isinstance(item, list) and len(item) == len(data[0]) for item in data):
        shape.append(len(data[0]))
        data = [value for item in data for value in item]
    if any(isinstance(item, list | dict) for item in data):
        shape, data = [len(predictions)], [msgspec.json.encode(item).decode() for item in predictions]
    return [
        {
            "name": declared.name if declared is not None else "prediction",
            "shape": shape,
            "datatype": _datatype(data, declared),
            "data": data,
        }
    ]


def _datatype(data: list[Any], declared: Tensor | None) -> str:
    if declared is not None and all(
        not _CHECKS[declared.datatype](value, declared.datatype) for value in data[:100]
    ):
        return declared.datatype
    first = data[0] if data else 0.0
    if isinstance(first, bool):
        return "BOOL"
    if isinstance(first, str):
        return "BYTES"
    return "INT64" if isinstance(first, int) else "FP64"


def _kind(value: Any) -> str:
    return {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}.get(
        type(value), "a number"
    )


def _shown(value: Any) -> str:
    """A caller's value in a message: short, and JSON."""
    if isinstance(value, dict | list):
        return _kind(value)
    try:
        text = msgspec.json.encode(value).decode()
    except (OverflowError, ValueError):
        text = "a number with many digits" if isinstance(value, int) else repr(value)
    return text if len(text) <= 40 else text[:37] + "…"
