"""A block of rows kept by column, as NumPy arrays: most requests become one, and most models take it without a conversion."""

import struct
from collections.abc import Hashable, Iterator, Sequence
from itertools import chain
from typing import Any, Final, overload

import numpy as np

from chips_backend.model import Row, Rows

Column = (
    Any  # an array whose first dimension is the row, or a list of JSON values with None where one is missing
)

_FEW: Final = 32


class Block(Sequence[Row]):
    """A sequence of rows, each a list of JSON values in the order of the signature, that also gives its columns.

    A column of floating point is an array of float64 with NaN where a value is missing. One of integers or booleans is an array
    of its declared type, or a list where a value is missing; one of texts is a list. `matrix` is the array of shape
    [rows, inputs] where all inputs are single floating-point numbers, else None.
    """

    def __init__(self, columns: Sequence[Column] = (), *, matrix: Any = None) -> None:
        self.matrix = matrix
        self._columns = columns
        self._count = len(columns[0]) if matrix is None else len(matrix)
        self._rows: list[Row] | None = None

    def column(self, at: int) -> Column:
        """The values of one input."""
        return self._columns[at] if self.matrix is None else self.matrix[:, at]

    @property
    def columns(self) -> Sequence[Column]:
        return self._columns if self.matrix is None else self.matrix.T

    def missing(self, at: int) -> Any:
        """For each row whether its value of an input is missing; None where no value is."""
        column = self.column(at)
        if isinstance(column, list):
            return np.array([value is None for value in column])
        return np.isnan(column) if column.dtype.kind == "f" and column.ndim == 1 else None

    def as_lists(self) -> list[Row]:
        """All rows as lists. They are made once."""
        if self._rows is None:
            if self.matrix is not None:
                self._rows = listed(self.matrix)
            else:
                self._rows = [list(row) for row in zip(*map(listed, self._columns), strict=True)]
        return self._rows

    def take(self, places: Any) -> "Block":
        """The rows at `places`: a slice, or an array of indices or booleans."""
        if self.matrix is not None:
            return Block(matrix=self.matrix[places])
        return Block([_taken(column, places) for column in self._columns])

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> "Block": ...
    def __getitem__(self, at: int | slice) -> "Row | Block":
        return self.take(at) if isinstance(at, slice) else self.as_lists()[at]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.as_lists())

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (self._columns, self.matrix)

    def __repr__(self) -> str:
        return f"Block({self.as_lists()!r})"


def _make(columns: Sequence[Column], matrix: Any) -> Block:
    return Block(columns, matrix=matrix)


def _taken(column: Column, places: Any) -> Column:
    if not isinstance(column, list) or isinstance(places, slice):
        return column[places]
    return [column[at] for at in np.arange(len(column))[places].tolist()]


def array_of_floats(values: Sequence[Any]) -> Any:
    """An array of float64, NaN for None. Of many values `struct` fills one in a third of the time that NumPy takes, but knows no None."""
    if len(values) <= _FEW:
        return np.array(values, dtype=np.float64)
    try:
        return np.frombuffer(bytearray(struct.pack(f"={len(values)}d", *values)))
    except struct.error:
        return np.array(values, dtype=np.float64)


def listed(column: Column) -> list[Any]:
    """A column as a list of JSON values."""
    if isinstance(column, list):
        return column
    if column.dtype.kind == "f" and (missing := np.isnan(column)).any():
        column = column.astype(object)
        column[missing] = None
    values: list[Any] = column.tolist()
    return values


def form_of(rows: Rows) -> Hashable:
    """What rows have in common that are joined without a conversion: which columns are lists, and the inner shapes of the others."""
    if not isinstance(rows, Block):
        return None
    if rows.matrix is not None:
        return ()
    return tuple(None if isinstance(column, list) else column.shape[1:] for column in rows.columns)


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of several requests, concatenated."""
    if len(parts) == 1:
        return parts[0]
    blocks = [part for part in parts if isinstance(part, Block)]
    if len(blocks) < len(parts):
        return [row for part in parts for row in part]
    if all(block.matrix is not None for block in blocks):
        return Block(matrix=np.concatenate([block.matrix for block in blocks]))
    return Block([_joined(columns) for columns in zip(*(block.columns for block in blocks), strict=True)])


def _joined(columns: Sequence[Column]) -> Column:
    if not any(isinstance(column, list) for column in columns):
        shapes = {column.shape[1:] for column in columns}
        if len(shapes) == 1:
            return np.concatenate(columns)
    return list(chain.from_iterable(map(listed, columns)))
