"""Rows as the table that a model was trained on: a DataFrame with the same columns and dtypes, or an array."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chips_backend.manifest import Signature, Tensor
from chips_backend.model import Refused, Rows

Table = Callable[[Rows], Any]


def array_table(signature: Signature, dtype: Any = None) -> Table:
    """Rows as one array of numbers, NaN where a value is missing; of objects where an input is text."""
    inputs = signature.inputs
    if dtype is None and any(tensor.datatype == "BYTES" for tensor in inputs):
        dtype = object
    # One input that is itself a row of values: [rows, 1, width] would be one dimension too many.
    only_one = len(inputs) == 1 and len(inputs[0].shape) > 1

    def table(rows: Rows) -> Any:
        values = [row[0] for row in rows] if only_one else rows
        try:
            return np.array([_with_nan(value) for value in values], dtype=dtype)
        except (ValueError, TypeError) as error:
            raise Refused(f"the instances make no table: {error}") from None

    return table


def _with_nan(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_with_nan(item) for item in value]
    return np.nan if value is None else value


def frame_table(signature: Signature, columns: Sequence[str], *, text_is_category: bool = False) -> Table:
    """Rows as a DataFrame with `columns`, which the model was trained on, whatever the order of the signature.

    Each column has the dtype that pandas gives it when it reads such a column from a file, so that a single row
    with a missing value comes out as it did in training.
    """
    inputs = {tensor.name: (at, tensor) for at, tensor in enumerate(signature.inputs)}
    if inputs and set(inputs) != set(columns):
        raise ValueError(
            f"the model was trained on the columns {_listed(columns)}, but the signature's inputs are {_listed(inputs)}"
        )

    def table(rows: Rows) -> Any:
        import pandas as pd

        if not inputs:
            return _undeclared(rows, columns)
        series = {}
        for name in columns:
            at, tensor = inputs[name]
            column = _column([row[at] for row in rows], tensor)
            series[name] = (
                column.astype("category") if text_is_category and tensor.datatype == "BYTES" else column
            )
        return pd.DataFrame(series)

    return table


def _listed(names: Any) -> str:
    shown = [str(name) for name in names]
    return ", ".join(shown[:20]) + (f" and {len(shown) - 20} more" if len(shown) > 20 else "")


def _undeclared(rows: Any, columns: Sequence[str]) -> Any:
    """Without a signature nobody has looked at the rows before."""
    import pandas as pd

    try:
        if all(isinstance(row, dict) for row in rows):
            return pd.DataFrame(list(rows))[list(columns)]
        return pd.DataFrame(list(rows), columns=list(columns))
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"the instances make no table: {error}") from None


def _column(values: list[Any], tensor: Tensor) -> Any:
    import pandas as pd

    missing = any(value is None for value in values)
    kind = tensor.datatype
    if len(tensor.shape) > 1:
        return pd.Series(values, dtype=object)
    if kind == "BYTES":
        filled = [np.nan if value is None else value for value in values]
        return pd.Series(filled, dtype=pd.Series(["text"]).dtype)
    if kind == "BOOL":
        return pd.Series(
            [np.nan if value is None else value for value in values], dtype=object if missing else bool
        )
    if kind.startswith("FP"):
        return pd.Series([np.nan if value is None else value for value in values], dtype=f"float{kind[2:]}")
    if missing:  # integers have no NaN, so pandas reads such a column as floating point
        return pd.Series([np.nan if value is None else value for value in values], dtype="float64")
    return pd.Series(values, dtype=kind.lower())
