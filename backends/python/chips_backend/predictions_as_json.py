"""Convert what a model returned to predictions as JSON values, one for each row. The contract's "What comes out".

Models return lists, arrays, Series, DataFrames, sparse matrices, dictionaries of columns. Everything that has no single
meaning as one prediction for each row is refused, so that parts of an answer are never taken for rows.
"""

import datetime as dt
import decimal
import inspect
import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np


class WrongAnswer(TypeError):
    """What a model returned is not one prediction for each row."""


def as_predictions(result: Any, count: int, names: Sequence[str] = ()) -> list[Any]:
    """One JSON value for each of `count` rows; an object by name where there are several outputs.

    `names` are the outputs that the signature declares. Raises WrongAnswer.
    """
    parts = _parts(result)
    if parts is not None:
        return _by_name(parts, count, names, is_table=hasattr(result, "columns"))
    values = _column(result)
    if len(values) != count:
        raise WrongAnswer(f"the model returned {len(values)} predictions for {count} rows")
    if len(names) > 1:
        return [_named(value, names) for value in values]
    if len(names) == 1 and values and isinstance(values[0], dict):
        return [_only(value, names[0]) for value in values]
    return values


def _parts(result: Any) -> dict[str, Any] | None:
    """Columns by name: of a DataFrame, of a dictionary, of an array with named fields."""
    if isinstance(result, Mapping):
        return {str(name): part for name, part in result.items()}
    if hasattr(result, "columns") and hasattr(result, "__getitem__"):
        if hasattr(result, "iloc"):
            columns = [result.iloc[:, at] for at in range(result.shape[1])]
        else:
            columns = [result[name] for name in result.columns]
        names = [str(name) for name in result.columns]
        if len(set(names)) < len(names):
            raise WrongAnswer("the model returned a table with two columns of one name")
        return dict(zip(names, columns, strict=True))
    fields = getattr(getattr(result, "dtype", None), "names", None)
    return None if fields is None else {name: result[name] for name in fields}


def _by_name(parts: dict[str, Any], count: int, names: Sequence[str], *, is_table: bool) -> list[Any]:
    if not names:
        order = list(parts)
    elif set(names) == set(parts):
        order = list(names)
    elif len(names) == len(parts) == 1 and is_table:
        order = list(parts)
    else:
        raise WrongAnswer(
            f"the model returned {', '.join(parts) or 'nothing'} by name, but the signature's outputs are {', '.join(names)}"
        )
    if not order:
        raise WrongAnswer("the model returned no outputs")
    columns = []
    for name in order:
        column = _column(parts[name])
        if len(column) != count:
            raise WrongAnswer(f"the model returned {len(column)} values of {name} for {count} rows")
        columns.append(column)
    if len(order) == 1:
        return columns[0]
    return [dict(zip(order, row, strict=True)) for row in zip(*columns, strict=True)]


def _named(value: Any, names: Sequence[str]) -> dict[str, Any]:
    if isinstance(value, dict) and set(value) == set(names):
        return {name: value[name] for name in names}
    if isinstance(value, list) and len(value) == len(names):
        return dict(zip(names, value, strict=True))
    got = (
        f"{len(value)} values"
        if isinstance(value, list)
        else ", ".join(value)
        if isinstance(value, dict)
        else "one value"
    )
    raise WrongAnswer(
        f"the model returned {got} for a row, but the signature's outputs are {', '.join(names)}"
    )


def _only(value: Any, name: str) -> Any:
    return value[name] if isinstance(value, dict) and set(value) == {name} else value


def _column(result: Any) -> list[Any]:
    """One JSON value for each entry of what should be rows."""
    if hasattr(result, "toarray") and hasattr(result, "nnz"):  # SciPy's sparse matrices and arrays
        result = result.toarray()
    if isinstance(result, np.ndarray | np.generic):
        return _array(np.asarray(result) if not isinstance(result, np.ma.MaskedArray) else result)
    if isinstance(result, str | bytes | bytearray | Mapping | set | frozenset) or not isinstance(
        result, Iterable
    ):
        if inspect.iscoroutine(result):
            result.close()  # nobody awaits it, and Python would complain of that
        raise WrongAnswer(
            f"the model returned a single {type(result).__name__}, not one prediction for each row"
        )
    if hasattr(
        result, "to_numpy"
    ):  # of pandas or Polars: item by item, so that integers next to a missing one stay such
        column: Any = result
        is_plain = isinstance(column.dtype, np.dtype) and column.dtype.kind in "fiub"
        return _array(result.to_numpy()) if is_plain else [_value(item) for item in result]
    if hasattr(result, "detach"):  # a PyTorch tensor
        return _array(result.detach().cpu().numpy())
    if hasattr(result, "__array__") and not isinstance(result, list | tuple):
        return _array(np.asarray(result))
    return [_value(item) for item in result]


def _array(array: Any) -> list[Any]:
    if array.ndim == 0:
        raise WrongAnswer("the model returned a single value, not one prediction for each row")
    kind = array.dtype.kind
    if kind == "f":
        listed: list[Any] = (array if array.dtype.itemsize <= 8 else array.astype(np.float64)).tolist()
        return listed  # NaN and infinity become null when JSON is written
    if kind in "iubU":
        return list(array.tolist())
    if kind in "OSMmV" or np.ma.isMaskedArray(array):
        return [_value(item) for item in array]
    raise WrongAnswer(f"the model returned values of the type {array.dtype}, which JSON does not know")


def _value(value: Any) -> Any:  # noqa: C901, PLR0911  (a table of types)
    """One value as JSON has it."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, int):
        return int(value)
    if isinstance(value, np.generic | np.ndarray):
        return _numpy(value)
    if isinstance(value, list | tuple):
        return [_value(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): _value(item) for name, item in value.items()}
    if type(value).__name__ in {"NAType", "NaTType"}:
        return None
    if isinstance(value, dt.date | dt.timedelta):
        return _time(value)
    if isinstance(value, bytes | bytearray):
        return _text(bytes(value))
    if isinstance(value, decimal.Decimal):
        return float(value) if value.is_finite() else None
    if isinstance(value, uuid.UUID | dt.time) or type(value).__name__ in {"Interval", "Period"}:
        return str(value)
    if hasattr(value, "to_numpy") or hasattr(value, "toarray") or hasattr(value, "detach"):
        return _column(value)
    raise WrongAnswer(f"a prediction holds a {type(value).__name__}, which JSON does not know")


def _numpy(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _array(value) if value.ndim else _value(value[()])
    if value is np.ma.masked:
        return None
    if isinstance(value, np.datetime64 | np.timedelta64):
        return _time(value)
    if isinstance(value, np.void) and value.dtype.names:
        return {name: _value(value[name]) for name in value.dtype.names}
    plain = float(value) if value.dtype.kind == "f" else value.item()
    if isinstance(plain, np.generic):
        raise WrongAnswer(f"a prediction holds a {type(plain).__name__}, which JSON does not know")
    return _value(plain)


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise WrongAnswer("a prediction holds bytes that are not UTF-8, which JSON does not know") from None


def _time(value: Any) -> Any:
    """ISO 8601: a day, a time without zone, a time in UTC. A duration is a number of seconds. Missing is None."""
    if isinstance(value, np.datetime64 | np.timedelta64):
        if np.isnat(value):
            return None
        if isinstance(value, np.timedelta64):
            return float(value / np.timedelta64(1, "ns")) / 1e9
        text = str(value)
        return text if "T" not in text else _without_zeros(text)
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if not isinstance(value, dt.datetime):
        return value.isoformat()
    zone = value.utcoffset() is not None
    text = (value.astimezone(dt.UTC).replace(tzinfo=None) if zone else value).isoformat()
    return _without_zeros(text) + ("Z" if zone else "")


def _without_zeros(text: str) -> str:
    whole, point, fraction = text.partition(".")
    fraction = fraction.rstrip("0")
    whole += ":00" * (2 - whole.count(":"))
    return whole + point + fraction if fraction else whole


def is_close(got: Any, wanted: Any, tolerance: float) -> bool:
    """Whether two JSON values are the same, numbers within `tolerance` (absolute, and relative to the larger one)."""
    if isinstance(got, float) and not math.isfinite(got):
        return wanted is None or (
            isinstance(wanted, float) and not math.isfinite(wanted)
        )  # null in JSON, both
    if isinstance(got, bool) or isinstance(wanted, bool):
        return got is wanted
    if isinstance(got, int | float) and isinstance(wanted, int | float):
        return math.isclose(got, wanted, rel_tol=tolerance, abs_tol=tolerance)
    if isinstance(got, list) and isinstance(wanted, list):
        return len(got) == len(wanted) and all(
            is_close(g, w, tolerance) for g, w in zip(got, wanted, strict=True)
        )
    if isinstance(got, dict) and isinstance(wanted, dict):
        return got.keys() == wanted.keys() and all(is_close(got[key], wanted[key], tolerance) for key in got)
    return bool(got == wanted)
