"""Rows as the input table that a model was trained on: a DataFrame with the same columns and dtypes, an array, a list of texts.

What a table looks like follows from the model and the signature alone, never from the rows of a request.
"""

import functools
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from chips_backend.column_block import Block, Column, listed
from chips_backend.manifest import Signature, Tensor
from chips_backend.model import Refused, Row, Rows
from chips_backend.wrong_files import WrongArtifact

Table = Callable[[Rows], Any]

_PIECE_ROWS: Final = 10_000  # of a large request are converted at once; NumPy holds the interpreter meanwhile


def dtype_of(tensor: Tensor) -> Any:
    """NumPy's dtype for a datatype of the Open Inference Protocol."""
    kind = tensor.datatype
    if kind == "BYTES":
        return np.dtype(object)
    if kind == "BOOL":
        return np.dtype(bool)
    return np.dtype(f"float{kind[2:]}" if kind.startswith("FP") else kind.lower())


def array_dtype(signature: Signature) -> Any:
    """The dtype of one array for all inputs."""
    dtypes = [dtype_of(tensor) for tensor in signature.inputs]
    if not dtypes:
        return None
    return np.dtype(object) if any(dtype.kind == "O" for dtype in dtypes) else np.result_type(*dtypes)


def array_table(signature: Signature, dtype: Any = None) -> Table:
    """Rows as one array of numbers, NaN where a value is missing; of objects where an input is text."""
    inputs = signature.inputs
    dtype = array_dtype(signature) if dtype is None else np.dtype(dtype)
    # One input that is itself a row of values: [rows, 1, width] would be one dimension too many.
    only_one = len(inputs) == 1 and len(inputs[0].shape) > 1

    def table(rows: Rows) -> Any:
        if isinstance(rows, Block) and (array := _of_block(rows, dtype)) is not None:
            return array
        values = [row[0] for row in rows] if only_one else rows
        if len(values) <= _PIECE_ROWS:
            return as_array(values, dtype)
        pieces = [as_array(values[at : at + _PIECE_ROWS], dtype) for at in range(0, len(values), _PIECE_ROWS)]
        return np.concatenate(pieces)

    return table


def _of_block(rows: Block, dtype: Any) -> Any:
    """As `as_array`, from columns; None where a column is a list. Raises Refused."""
    if dtype is None or dtype.kind not in "iubf":
        return None
    array = rows.matrix if rows.matrix is not None else _stacked(rows.columns, dtype)
    if array is None:
        return None
    if dtype.kind != "f":
        return array.astype(dtype, copy=False) if array.dtype.kind != "f" else None
    with np.errstate(over="ignore"):
        made = array.astype(dtype, copy=False)
    if dtype.itemsize < 8 and bool(np.isinf(made).any()):
        return None
    return np.ascontiguousarray(made)


def _stacked(columns: Sequence[Column], dtype: Any) -> Any:
    if any(isinstance(column, list) for column in columns):
        return None
    if len(columns) == 1:
        return columns[0] if columns[0].ndim > 1 else columns[0][:, np.newaxis]
    if any(column.ndim > 1 for column in columns):
        return None
    return np.stack([column.astype(dtype, copy=False) for column in columns], axis=1)


def as_array(values: Sequence[Any], dtype: Any) -> Any:
    """An array of `dtype`; integers with a missing value become floating point. Raises Refused."""
    try:
        if dtype is not None and dtype.kind in "iub":
            try:
                return np.array(values, dtype=dtype)
            except TypeError:  # None
                return np.array(_with_nan(values), dtype=np.float64)
        if dtype is not None and dtype.kind == "f":
            with np.errstate(over="ignore"):
                array = np.array(values, dtype=dtype)  # None is NaN there
            if dtype.itemsize < 8:
                _refuse_overflow(array, values, dtype)
            return array
        return np.array([_with_nan(value) for value in values], dtype=dtype)
    except (ValueError, TypeError, OverflowError) as error:
        if isinstance(error, Refused):
            raise
        raise Refused(f"the instances make no table: {error}") from None


def _refuse_overflow(array: Any, values: Sequence[Any], dtype: Any) -> None:
    for place in np.argwhere(np.isinf(array)):
        value: Any = values
        for at in place:
            value = value[at]
        row, field = int(place[0]), int(place[1]) if len(place) > 1 else 0
        raise Refused(f"{value!r} does not fit into the model's {dtype}", row=row, field=field)


def _with_nan(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_with_nan(item) for item in value]
    return np.nan if value is None else value


def text_table(_: Signature) -> Table:
    """The one text of each row, as vectorizers for text take it."""
    return lambda rows: np.array([_with_nan(row[0]) for row in rows], dtype=object)


def dict_table(signature: Signature) -> Table:
    """Each row as a dictionary by input name, as DictVectorizer takes it; without what is missing."""
    names = [tensor.name for tensor in signature.inputs]
    return lambda rows: [
        {name: value for name, value in zip(names, row, strict=True) if value is not None} for row in rows
    ]


class Apart:
    """Decides which rows must be predicted separately.

    A missing integer makes a whole column floating point, also for the rows of other requests.
    """

    def __init__(self, whole: Sequence[int]) -> None:
        self._whole = whole  # the places of the inputs that are integers or booleans

    def __call__(self, row: Row) -> Hashable:
        return tuple([at for at in self._whole if row[at] is None])

    def needs_none(self, rows: Rows) -> bool:
        """Whether it can be seen at once that none of these rows needs to be kept apart from another."""
        return isinstance(rows, Block) and not any(isinstance(rows.column(at), list) for at in self._whole)


def apart(signature: Signature, *, is_array: bool) -> Apart | None:
    """What keeps rows apart; None where that cannot be: there are no integers, or an array that is floating point anyway."""
    whole = [
        at for at, tensor in enumerate(signature.inputs) if not tensor.datatype.startswith(("FP", "BYTES"))
    ]
    if not whole or (is_array and array_dtype(signature).kind not in "iub"):
        return None
    return Apart(whole)


def frame_table(
    signature: Signature,
    columns: Sequence[str],
    *,
    categories: Mapping[str, Sequence[Any]] | None = None,
    dates: Sequence[str] = (),
    date_dtype: str = "",
) -> Table:
    """Rows as a DataFrame with `columns`, which the model was trained on, whatever the order of the signature.

    Each column has the dtype that pandas gives it when it reads such a column from a file, so that a single row
    with a missing value comes out as it did in training. Those in `categories` are categories with these values in this
    order; those in `dates` are times of `date_dtype`: by default as pandas reads them, without a zone.
    """
    inputs = {name: (at, tensor) for name, (at, tensor) in _matched(signature, columns).items()}
    places = [inputs[name][0] for name in columns]
    is_matrix = not categories and not dates and all(t.datatype == "FP64" for t in signature.inputs)

    def table(rows: Rows) -> Any:
        import pandas as pd

        block = rows if isinstance(rows, Block) else None
        if is_matrix and block is not None and block.matrix is not None:
            return pd.DataFrame(block.matrix[:, places], columns=list(columns))
        series = {}
        for name in columns:
            at, tensor = inputs[name]
            given = None if block is None else block.column(at)
            if isinstance(given, np.ndarray) and given.ndim == 1 and not (categories and name in categories):
                series[name] = given.astype(dtype_of(tensor))
                continue
            values = [row[at] for row in rows] if given is None else listed(given)
            if categories and name in categories:
                series[name] = pd.Series(pd.Categorical(values, categories=categories[name]))
            elif name in dates:
                series[name] = _times(values, at, date_dtype or default_date_dtype())
            else:
                series[name] = _column(values, tensor)
        return pd.DataFrame(series, index=pd.RangeIndex(len(rows)), columns=list(columns))

    return table


def _matched(signature: Signature, columns: Sequence[str]) -> dict[str, tuple[int, Tensor]]:
    """Each column's input. LightGBM writes blanks as underscores, so names that differ only there are the same."""
    inputs = {tensor.name: (at, tensor) for at, tensor in enumerate(signature.inputs)}
    if set(inputs) == set(columns):
        return inputs
    renamed = {name.replace(" ", "_"): found for name, found in inputs.items()}
    if len(renamed) == len(inputs) and set(renamed) == set(columns):
        return renamed
    raise WrongArtifact(
        f"the model was trained on the columns {_listed(columns)}, but the signature's inputs are {_listed(inputs)}"
    )


def _listed(names: Any) -> str:
    shown = [str(name) for name in names]
    return ", ".join(shown[:20]) + (f" and {len(shown) - 20} more" if len(shown) > 20 else "")


_BEGINS_A_DATE: Final = re.compile(r"\d{4}(?:[-\d]|$)").match


def _times(values: list[Any], field: int, dtype: str) -> Any:
    import pandas as pd

    def as_times(texts: list[Any]) -> Any:
        made = pd.Series(pd.to_datetime(texts, format="ISO8601", utc=dtype.endswith("UTC]")))
        return made.astype(dtype)

    def refused(row: int) -> Refused:
        text = f"expected a date or time such as 2026-11-29 or 2026-11-29T10:00:00, got {values[row]!r}"
        return Refused(text, row=row, field=field)

    for row, value in enumerate(values):  # pandas takes "now" for this moment, and "" for no date
        if isinstance(value, str) and not _BEGINS_A_DATE(value):
            raise refused(row)
    try:
        return as_times(values)
    except (ValueError, TypeError, OverflowError):
        parts = []
        for row, value in enumerate(values):
            try:
                parts.append(as_times([value]))
            except (ValueError, TypeError, OverflowError):
                raise refused(row) from None
        return pd.concat(parts, ignore_index=True)  # each fits, but not into the unit that they would share


def date_dtypes() -> list[str]:
    """The dtypes of dates that models are trained with, the likeliest first; those with a zone are in UTC."""
    own = default_date_dtype()
    others = ("datetime64[ns]", "datetime64[us]", "datetime64[s]")
    return [own, *(one for one in others if one != own), f"{own[:-1]}, UTC]"]


@functools.cache
def default_date_dtype() -> str:
    """The dtype that pandas gives to dates: nanoseconds before its release 3, then microseconds."""
    import pandas as pd

    return str(pd.to_datetime(["2000-01-01"]).dtype)


@functools.cache
def _text_dtype() -> Any:
    """The dtype that pandas gives to texts."""
    import pandas as pd

    return pd.Series(["text"]).dtype


def _column(values: list[Any], tensor: Tensor) -> Any:
    import pandas as pd

    missing = None in values
    kind = tensor.datatype
    if len(tensor.shape) > 1:
        return pd.Series(values, dtype=object)
    if kind == "BYTES":
        filled = [np.nan if value is None else value for value in values] if missing else values
        return pd.Series(filled, dtype=_text_dtype())
    if kind == "BOOL":
        return pd.Series(
            [np.nan if value is None else value for value in values], dtype=object if missing else bool
        )
    if kind.startswith("FP"):
        return pd.Series([np.nan if value is None else value for value in values], dtype=f"float{kind[2:]}")
    if missing:  # integers have no NaN, so pandas reads such a column as floating point
        return pd.Series([np.nan if value is None else value for value in values], dtype="float64")
    return pd.Series(values, dtype=kind.lower())
