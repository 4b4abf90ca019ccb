"""The columns of a table of examples: a name, a datatype and the categories of each, and its values as JSON has them."""

import datetime as dt
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from chips_backend.manifest import Tensor

_MOST_CATEGORIES_SHOWN: Final = 6


class CannotSave(ValueError):
    """The model cannot be saved so that a backend predicts the same; the text says why and what to do."""


class Column(NamedTuple):
    """One column of a table of examples."""

    name: str
    datatype: str  # of the Open Inference Protocol
    values: list[Any]  # as JSON has them; None where one is missing
    shape: tuple[int, ...] = (-1,)
    categories: tuple[str | int, ...] | None = None
    remark: str = ""  # of what the model knows of it

    def tensor(self) -> Tensor:
        return Tensor(name=self.name, datatype=self.datatype, shape=self.shape, categories=self.categories)

    def note(self) -> str:
        """What its values are, in a few words."""
        missing = sum(value is None for value in self.values)
        parts = []
        if self.categories is not None:
            shown = ", ".join(map(str, self.categories[:_MOST_CATEGORIES_SHOWN]))
            more = len(self.categories) - _MOST_CATEGORIES_SHOWN
            parts.append(
                f"{len(self.categories)} categories: {shown}" + (f" and {more} more" if more > 0 else "")
            )
        elif self.datatype.startswith(("FP", "INT", "UINT")) and len(self.shape) == 1:
            present = [value for value in self.values if value is not None]
            if present:
                parts.append(f"{min(present):g} to {max(present):g}")
        if len(self.shape) > 1:
            parts.append(
                "arrays of " + " x ".join("any" if size < 0 else str(size) for size in self.shape[1:])
            )
        if missing:
            parts.append(f"{missing} of {len(self.values)} missing")
        if self.remark:
            parts.append(self.remark)
        return "; ".join(parts)


def columns_of(
    example: Any, names: Sequence[str] | None, known: Mapping[str, str] | None = None
) -> list[Column]:
    """The columns of `example`; `names` are those that the model knows, for a table without names. Raises CannotSave.

    `known`: datatypes of columns that may have no value at all in these rows.
    """
    if hasattr(example, "collect_schema") and not hasattr(example, "get_columns"):
        raise CannotSave("the example is a lazy table: pass example.collect()")
    if hasattr(example, "toarray") and hasattr(example, "nnz"):  # SciPy's sparse matrices
        example = example.toarray()
    if hasattr(example, "iloc") and hasattr(example, "columns"):
        labels = [str(name) for name in example.columns]
        if len(set(labels)) < len(labels):
            raise CannotSave("two columns of the example have one name; rename one")
        found = [
            Column(label, known[label], [None] * len(example))
            if known and label in known and _is_empty(example.iloc[:, at])
            else _of_series(label, example.iloc[:, at])
            for at, label in enumerate(labels)
        ]
    elif hasattr(example, "get_columns"):  # Polars
        found = [_of_polars(series, (known or {}).get(series.name, "")) for series in example.get_columns()]
    elif hasattr(example, "iloc"):
        raise CannotSave("the example is a Series; pass a table: example=X[['column']] or X.to_frame()")
    else:
        found = _of_array(example, names)
    if not found or not found[0].values:
        raise CannotSave(
            "the example has no rows or no columns; pass some rows of the training data, such as X.head(50)"
        )
    for column in found:
        _check_texts(column)
    return found


def _check_texts(column: Column) -> None:
    """Refuse what JSON cannot hold. Raises CannotSave."""
    if not column.name:
        raise CannotSave("a column of the example has no name; name it")
    texts = [column.name, *(column.values if column.datatype == "BYTES" and len(column.shape) == 1 else ())]
    try:
        "".join(text for text in (*texts, *(column.categories or ())) if isinstance(text, str)).encode()
    except UnicodeEncodeError:
        raise CannotSave(
            f"{column.name!a} holds half of a surrogate pair, which no UTF-8 text has: decode the texts again, or replace them"
        ) from None


def _is_empty(series: Any) -> bool:
    return series.dtype.kind == "O" and bool(series.isna().all())


def sliceable(table: Any) -> Any:
    """The table in a form that gives some of its rows: of SciPy's sparse forms only some do."""
    return table.tocsr() if hasattr(table, "tocsr") else table


def pieces(table: Any, rows: int) -> Iterator[Any]:
    """The table, `rows` rows at a time."""
    size = table.shape[0] if hasattr(table, "shape") else len(table)
    for start in range(0, size, rows):
        yield table.iloc[start : start + rows] if hasattr(table, "iloc") else table[start : start + rows]


def rows_of(columns: Sequence[Column], count: int) -> list[int]:
    """`count` rows that cover missing values and categories first, in their order."""
    total = len(columns[0].values)
    chosen = [0]
    seen: set[tuple[int, Any]] = {_facet(at, column, 0) for at, column in enumerate(columns)}
    for row in range(1, total):
        if len(chosen) >= count:
            break
        fresh = {
            facet for at, column in enumerate(columns) if (facet := _facet(at, column, row))[1] is not None
        } - seen
        if fresh:
            seen |= fresh
            chosen.append(row)
    for row in range(total):
        if len(chosen) >= min(count, total):
            break
        if row not in chosen:
            chosen.append(row)
    return sorted(chosen)


def take(example: Any, rows: Sequence[int]) -> Any:
    """These rows of the example, as the model takes them."""
    if hasattr(example, "iloc"):
        return example.iloc[list(rows)]
    if isinstance(example, list | tuple):
        return [example[row] for row in rows]
    return example[list(rows)]


def _facet(at: int, column: Column, row: int) -> tuple[int, Any]:
    """What a row shows of a column that another may not: that it can be missing, or one of its categories."""
    value = column.values[row]
    if value is None:
        return at, ("missing",)
    if column.categories is not None or column.datatype == "BOOL":
        return at, value
    return at, None


def _of_polars(series: Any, known: str = "") -> Column:
    name, kind, values = str(series.name), str(series.dtype), series.to_list()
    base = kind.partition("(")[0]
    if base == "Enum":
        return Column(name, "BYTES", values, categories=tuple(series.dtype.categories.to_list()))
    if base.startswith(("Int", "UInt")) and base[-3:] != "128":
        return Column(name, base.upper(), values)
    if base.startswith("Float"):
        return Column(name, f"FP{base[5:]}", [_float(value) for value in values])
    if base in {"Boolean", "String", "Categorical"}:
        return Column(name, "BOOL" if base == "Boolean" else "BYTES", values)
    if known and all(value is None for value in values):
        return Column(name, known, values)
    return _of_objects(name, values)


def _of_series(name: str, series: Any) -> Column:
    import pandas as pd

    kind = series.dtype
    if isinstance(kind, pd.CategoricalDtype):
        return _of_categories(name, series)
    if pd.api.types.is_bool_dtype(kind):
        return Column(name, "BOOL", [None if pd.isna(value) else bool(value) for value in series])
    if pd.api.types.is_integer_dtype(kind):
        return Column(name, _number_type(kind), [None if pd.isna(value) else int(value) for value in series])
    if pd.api.types.is_float_dtype(kind):
        return Column(name, _number_type(kind), [_float(value) for value in series])
    if pd.api.types.is_datetime64_any_dtype(kind):
        texts = [None if pd.isna(value) else value.isoformat() for value in series]
        return Column(name, "BYTES", texts, remark="dates, which callers send as texts: ISO 8601")
    return _of_objects(name, list(series))


def _number_type(dtype: Any) -> str:
    kind = np.dtype(getattr(dtype, "numpy_dtype", getattr(dtype, "subtype", dtype)))
    bits = 8 * min(kind.itemsize, 8)  # of NumPy's longdouble, what a double holds
    return f"FP{bits}" if kind.kind == "f" else f"{'U' if kind.kind == 'u' else ''}INT{bits}"


def _of_categories(name: str, series: Any) -> Column:
    import pandas as pd

    categories = [_plain(value) for value in series.cat.categories]
    values = [None if pd.isna(value) else _plain(value) for value in series]
    if all(isinstance(value, str) for value in categories):
        return Column(name, "BYTES", values, categories=tuple(categories))
    if all(isinstance(value, int) and not isinstance(value, bool) for value in categories):
        return Column(name, "INT64", values, categories=tuple(categories))
    raise CannotSave(
        f"the categories of {name} are neither all texts nor all whole numbers; convert the column before training"
    )


def _of_objects(name: str, values: Sequence[Any]) -> Column:
    listed = [_plain(value) for value in values]
    present = [value for value in listed if value is not None]
    kinds = {type(value) for value in present}
    if not present:
        raise CannotSave(f"every value of {name} is missing in the example; pass rows that have some")
    if kinds == {bool}:
        return Column(name, "BOOL", listed)
    if kinds == {int}:
        return Column(name, "INT64", listed)
    if kinds <= {int, float}:
        return Column(name, "FP64", [None if value is None else float(value) for value in listed])
    if kinds <= {str}:
        return Column(name, "BYTES", listed)
    if kinds == {list}:
        return _of_lists(name, listed)
    raise CannotSave(
        f"{name} holds {' and '.join(sorted(kind.__name__ for kind in kinds))}, which no datatype describes; "
        "a column is numbers, texts, booleans, dates, or arrays of one of these"
    )


def _of_lists(name: str, values: list[Any]) -> Column:
    shape, flat = [-1], [value for value in values if value is not None]
    while flat and isinstance(flat[0], list):
        sizes = {len(value) for value in flat}
        shape.append(sizes.pop() if len(sizes) == 1 else -1)
        flat = [item for value in flat for item in value]
    inner = _of_objects(name, flat)
    return Column(name, inner.datatype, values, shape=tuple(shape))


def _of_array(example: Any, names: Sequence[str] | None) -> list[Column]:
    if isinstance(example, list | tuple) and example and all(isinstance(value, str) for value in example):
        return [_of_objects("text" if not names else names[0], list(example))]
    array = np.asarray(example)
    if array.ndim == 1 and array.dtype.kind in "OUS":
        return [_of_objects("text" if not names else names[0], array.tolist())]
    if array.ndim < 2:
        raise CannotSave(
            "the example has one dimension; pass rows: a DataFrame, or an array of the shape (rows, columns)"
        )
    if array.ndim > 2:
        return [
            Column(
                "x" if not names else names[0],
                _number_type(array.dtype),
                array.tolist(),
                shape=(-1, *array.shape[1:]),
            )
        ]
    width = array.shape[1]
    labels = list(names) if names is not None and len(names) == width else [f"x{at}" for at in range(width)]
    if array.dtype.kind in "fiu":
        datatype = _number_type(array.dtype)
        columns = array.T.tolist()
        if array.dtype.kind == "f":
            columns = [[_float(value) for value in column] for column in columns]
        return [Column(label, datatype, column) for label, column in zip(labels, columns, strict=True)]
    if array.dtype.kind == "b":
        return [Column(label, "BOOL", column) for label, column in zip(labels, array.T.tolist(), strict=True)]
    return [_of_objects(label, array[:, at].tolist()) for at, label in enumerate(labels)]


def _float(value: Any) -> float | None:
    number = float(value) if value is not None and value == value else math.nan  # noqa: PLR0124  (NaN and pandas' NA)
    return number if math.isfinite(number) else None


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, str):
        return str.__str__(value)  # of an enumeration's member its value, not its name
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()]
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        return int(value)
    if isinstance(value, dt.date | dt.datetime):
        return value.isoformat()
    if type(value).__name__ in {"NAType", "NaTType"}:
        return None
    return value
