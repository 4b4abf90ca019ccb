"""Decode the instances of a caller's JSON into rows in the order of the signature. Every problem says where it is."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from chips_backend.manifest import Signature, Tensor
from chips_backend.model import Rows
from chips_backend.problem_details import invalid_instances

ENOUGH_PROBLEMS: Final = 11  # ten are shown, one more says that there are more
EXACT: Final = 2**53  # a number with a fraction or an exponent is an integer up to here
INTEGERS = {
    **{f"INT{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}
FLOATS = {"FP16": 65504.0, "FP32": 3.4028234663852886e38, "FP64": math.inf}


class Forms(NamedTuple):
    """In which form outputs come: as bytes behind the JSON, or in it."""

    default: bool = False
    by_name: Mapping[str, bool] = {}

    def __call__(self, name: str) -> bool:
        return self.by_name.get(name, self.default)


class Scoring(NamedTuple):
    """A request for predictions, checked."""

    rows: Rows
    parameters: dict[str, Any]
    place: Callable[[int, int | None], str]  # of a row, or of one of its fields, as this request wrote it
    id: str | None = None
    outputs: tuple[str, ...] | None = None  # by name; None: all
    forms: Forms = Forms()


def read_instances(body: Any, signature: Signature, known: Mapping[str, str] = {}) -> Scoring:
    """`{"instances": […], "parameters": {…}}`: each instance an object by field name, or an array in signature order.

    `known` are the request parameters that the model knows, with the kind of each.
    """
    if not isinstance(body, dict):
        raise invalid_instances([f'expected an object with "instances", got {kind_of(body)}'])
    instances = body.get("instances")
    if not isinstance(instances, list):
        what = "is missing" if "instances" not in body else f"must be an array, got {kind_of(instances)}"
        raise invalid_instances([f"instances {what}"])
    check_fields(body, ("instances", "parameters"))
    parameters = read_parameters(body, known)
    inputs = signature.inputs

    def place(row: int, field: int | None) -> str:
        where = f"instances[{row}]"
        if field is None:
            return where
        if not isinstance(instances[row], dict):
            return f"{where}[{field}]"
        return f"{where}.{inputs[field].name if inputs else list(instances[row])[field]}"

    if not inputs:
        return Scoring(instances, parameters, place)
    problems: list[str] = []
    rows: list[list[Any]] = []
    for index, instance in enumerate(instances):
        rows.append(_row(instance, inputs, f"instances[{index}]", problems))
        if len(problems) >= ENOUGH_PROBLEMS:
            break
    if problems:
        raise invalid_instances(problems)
    return Scoring(rows, parameters, place)


def check_fields(body: dict[str, Any], known: Sequence[str]) -> None:
    """A field in the wrong place would be ignored: refuse it. Raises Problem."""
    unknown = [name for name in body if name not in known]
    if unknown:
        listed = ", ".join(map(shown, unknown[:10]))
        raise invalid_instances([f"there is no field {listed} here; the request has {', '.join(known)}"])


def read_parameters(
    body: dict[str, Any],
    known: Mapping[str, str],
    ignored: Sequence[str] = (),
    *,
    where: str = "parameters",
) -> dict[str, Any]:
    """What the caller asks besides the rows; `ignored` are known and change nothing. Raises Problem."""
    parameters = body.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise invalid_instances([f"{where} must be an object, got {kind_of(parameters)}"])
    problems, read = [], {}
    for name, value in parameters.items():
        if name in known:
            wrong = _wrong_kind(value, known[name])
            if wrong:
                problems.append(f"{where}.{name}: {wrong}")
            elif value is not None:
                read[name] = value
        elif name not in ignored:
            names = f"those it knows are {', '.join(known)}" if known else "it knows none"
            problems.append(f"{where}: this model does not know {shown(name)}; {names}")
    if problems:
        raise invalid_instances(problems)
    return read


def _wrong_kind(value: Any, kind: str) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = {
        "any": True,
        "boolean": isinstance(value, bool),
        "integer": is_number and value == int(value),
        "number": is_number,
        "string": isinstance(value, str),
        "array": isinstance(value, list),
        "object": isinstance(value, dict),
    }[kind]
    if value is None or fits:
        return ""
    expected = "true or false" if kind == "boolean" else f"{'an' if kind[0] in 'aio' else 'a'} {kind}"
    return f"expected {expected}, got {shown(value)}"


def _row(instance: Any, inputs: Sequence[Tensor], where: str, problems: list[str]) -> list[Any]:
    if isinstance(instance, dict):
        names = {tensor.name for tensor in inputs}
        problems += [f"{where}: there is no input {shown(name)}" for name in instance if name not in names]
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
        problems.append(f"{where}: expected an object or an array, got {kind_of(instance)}")
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
        values[column] = checked(value, tensor, place, problems)
    return values


def checked(value: Any, tensor: Tensor, place: str, problems: list[str]) -> Any:
    """`value` of the input `tensor` as the model gets it: 1.0 is an integer. What is wrong is added to `problems`."""
    if value is None or len(problems) >= ENOUGH_PROBLEMS:
        return value
    if len(tensor.shape) > 1:
        return _array(value, tensor.datatype, tensor.shape[1:], place, problems)
    before = len(problems)
    value = _scalar(value, tensor.datatype, place, problems)
    if tensor.categories is not None and len(problems) == before and value not in tensor.members:
        problems.append(f"{place}: expected {one_of(tensor.categories)}, got {shown(value)}")
    return value


def one_of(categories: Sequence[str | int]) -> str:
    listed = ", ".join(shown(value) for value in categories[:10])
    return f"one of {listed}" + (f" and {len(categories) - 10} more" if len(categories) > 10 else "")


def _array(value: Any, datatype: str, shape: Sequence[int], place: str, problems: list[str]) -> Any:
    if not isinstance(value, list):
        problems.append(f"{place}: expected an array, got {kind_of(value)}")
    elif shape[0] not in {-1, len(value)}:
        problems.append(f"{place}: expected {shape[0]} values, got {len(value)}")
    else:
        for index, inner in enumerate(value):
            if inner is None or len(problems) >= ENOUGH_PROBLEMS:
                continue
            where = f"{place}[{index}]"
            value[index] = (
                _array(inner, datatype, shape[1:], where, problems)
                if len(shape) > 1
                else _scalar(inner, datatype, where, problems)
            )
    return value


def _scalar(value: Any, datatype: str, place: str, problems: list[str]) -> Any:
    wrong = CHECKS[datatype](value, datatype)
    if wrong:
        problems.append(f"{place}: {wrong}")
        return value
    if type(value) is float and datatype in INTEGERS:
        return int(value)
    return float(value) if type(value) is int and datatype in FLOATS else value


def _integer(value: Any, datatype: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"expected an integer, got {shown(value)}"
    if isinstance(value, float) and not (abs(value) <= EXACT and value.is_integer()):
        return f"expected an integer, got {shown(value)}" + (
            "; write it without fraction or exponent" if value.is_integer() else ""
        )
    low, high = INTEGERS[datatype]
    return "" if low <= value <= high else f"expected {datatype}, got {shown(value)}, which does not fit"


def _number(value: Any, datatype: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"expected a number, got {shown(value)}"
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    fits = math.isfinite(number) and abs(number) <= FLOATS[datatype]
    return "" if fits else f"expected {datatype}, got {shown(value)}, which does not fit"


def _boolean(value: Any, _: str) -> str:
    return "" if isinstance(value, bool) else f"expected true or false, got {shown(value)}"


def _text(value: Any, _: str) -> str:
    return "" if isinstance(value, str) else f"expected a string, got {shown(value)}"


CHECKS: Final[dict[str, Callable[[Any, str], str]]] = {
    **dict.fromkeys(INTEGERS, _integer),
    **dict.fromkeys(FLOATS, _number),
    "BOOL": _boolean,
    "BYTES": _text,
}


def kind_of(value: Any) -> str:
    return {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}.get(
        type(value), "a number"
    )


def shown(value: Any) -> str:
    """A caller's value in a message: short, and JSON."""
    if isinstance(value, dict | list):
        return kind_of(value)
    try:
        text = msgspec.json.encode(value).decode()
    except (OverflowError, ValueError):
        text = "a number with many digits" if isinstance(value, int) else repr(value)
    return text if len(text) <= 40 else text[:37] + "…"
