"""Decode usual instances fast: by types made from the signature, straight to columns."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np

from chips_backend import number_arrays
from chips_backend.column_block import Block, Column, array_of_floats
from chips_backend.decode_instances import FLOATS, INTEGERS, Scoring, read_parameters
from chips_backend.duplicate_names import strings_in, strings_in_text
from chips_backend.input_tables import dtype_of
from chips_backend.manifest import Signature, Tensor
from chips_backend.problem_details import Problem


class Unusual(Exception):
    """It is left to the careful reader."""


ERRORS: Final = (
    Unusual,
    Problem,
    msgspec.DecodeError,
    UnicodeDecodeError,
    RecursionError,
    ValueError,
    TypeError,
    OverflowError,
)
_TUPLE: Final[Any] = tuple
_MOST_CATEGORIES: Final = 1_000  # of more, no type is made


def _scalar_type(tensor: Tensor) -> Any:
    kind = tensor.datatype
    if tensor.categories is not None:
        if len(tensor.categories) > _MOST_CATEGORIES:
            raise Unusual
        return Literal[tensor.categories]
    if kind in {"BOOL", "BYTES"}:
        return bool if kind == "BOOL" else str
    if kind in FLOATS:
        limit = FLOATS[kind]
        return float if limit == math.inf else Annotated[float, msgspec.Meta(ge=-limit, le=limit)]
    low, high = INTEGERS[kind]
    return Annotated[int, msgspec.Meta(ge=low, le=min(high, 2**63 - 1))]


def _type(tensor: Tensor) -> Any:
    found: Any = _scalar_type(tensor) | None
    for _ in tensor.shape[1:]:
        found = list[found]
    return found


class Instances:
    """Reads `{"instances": […], "parameters": {…}}` by types made from the signature."""

    def __init__(self, signature: Signature, known: Mapping[str, str]) -> None:
        self._inputs = signature.inputs
        self._known = known
        self._is_matrix = bool(self._inputs) and all(
            tensor.datatype in FLOATS and len(tensor.shape) <= 1 for tensor in self._inputs
        )
        self._texts = [at for at, tensor in enumerate(self._inputs) if tensor.datatype == "BYTES"]
        self._limit = min((FLOATS.get(tensor.datatype, 0.0) for tensor in self._inputs), default=0.0)
        self._kinds = self._make()
        names = [tensor.name for tensor in self._inputs]

        def place_in_object(row: int, field: int | None) -> str:
            return f"instances[{row}]" if field is None else f"instances[{row}].{names[field]}"

        self._place_in_object = place_in_object

    def _make(self) -> dict[bytes, Callable[[bytes], Any]]:
        if not self._inputs:
            return {}
        try:
            types = [_type(tensor) for tensor in self._inputs]
            names = [f"f{at}" for at in range(len(types))]
            fields = list(zip(names, types, strict=True))
            rename = dict(zip(names, (tensor.name for tensor in self._inputs), strict=True))
            row = msgspec.defstruct("Instance", fields, rename=rename, forbid_unknown_fields=True, gc=False)
            array = _TUPLE[tuple(types)]
            return {b"[": _decoder(array), b"{": _decoder(row)}
        except (Unusual, TypeError, ValueError):
            return {}

    def read(self, content: bytes) -> Scoring | None:
        """The request, or None where `decode_instances.read_instances` must read it, which says what is wrong."""
        if not self._kinds:
            return None
        if self._is_matrix and len(content) >= number_arrays.LONG_BYTES:
            scoring = self._read_matrix(content)
            if scoring is not None:
                return scoring
        at = content.find(b"[") + 1
        kind = content[at : at + 64].lstrip()[:1]
        decode = self._kinds.get(kind)
        if decode is None:
            return None
        try:
            request = decode(content)
            rows = request.instances
            if kind == b"{":
                rows = list(map(msgspec.structs.astuple, rows))
            block = self._block(rows)
            given = {} if request.parameters is msgspec.UNSET else {"parameters": request.parameters}
            parameters = read_parameters(given, self._known)
        except ERRORS:
            return None
        texts = len(self._inputs) * len(rows) if kind == b"{" else 0
        if self._texts:
            texts += self._count_texts(block)
        if given:
            texts += strings_in(given)
        if 1 + texts != strings_in_text(content):
            return None  # a name stands twice
        return Scoring(block, parameters, self._place_in_object if kind == b"{" else _place_in_array)

    def _read_matrix(self, content: bytes) -> Scoring | None:
        """The request where its instances are one long array of arrays, and it begins with them; else None."""
        rest, cut = number_arrays.cut_instances(content)
        if not cut:
            return None
        ((mark, array),) = cut.items()
        values = number_arrays.matrix(array, len(self._inputs))
        if values is None or not is_within(values, self._limit):
            return None
        try:
            request = _decode_cut(rest)
            given = {} if request.parameters is msgspec.UNSET else {"parameters": request.parameters}
            parameters = read_parameters(given, self._known)
        except ERRORS:
            return None
        strings = 2 + (strings_in(given) if given else 0)  # "instances" and the mark
        if bytes(request.instances) != mark or strings != strings_in_text(rest):
            return None
        return Scoring(Block(matrix=values), parameters, _place_in_array)

    def _count_texts(self, block: Block) -> int:
        return sum(len(block.columns[at]) - block.columns[at].count(None) for at in self._texts)

    def _block(self, rows: list[tuple[Any, ...]]) -> Block:
        if self._is_matrix:
            flat = list(chain.from_iterable(rows))
            return Block(matrix=array_of_floats(flat).reshape(len(rows), len(self._inputs)))
        columns = zip(*rows, strict=True)
        return Block([_column(column, tensor) for column, tensor in zip(columns, self._inputs, strict=True)])


def _place_in_array(row: int, field: int | None) -> str:
    return f"instances[{row}]" if field is None else f"instances[{row}][{field}]"


def _decoder(row: Any) -> Callable[[bytes], Any]:
    rows = Annotated[list[row], msgspec.Meta(min_length=1)]
    request = msgspec.defstruct(
        "Request", [("instances", rows), ("parameters", Any, msgspec.UNSET)], forbid_unknown_fields=True
    )
    return msgspec.json.Decoder(request).decode


_decode_cut: Final[Callable[[bytes], Any]] = msgspec.json.Decoder(
    msgspec.defstruct(
        "Cut",
        [("instances", msgspec.Raw), ("parameters", Any, msgspec.UNSET)],
        forbid_unknown_fields=True,
    )
).decode


def is_within(array: Any, limit: float) -> bool:
    """Whether all numbers are in the range of their datatype."""
    return limit == math.inf or not bool((np.abs(array) > limit).any())


def _column(values: tuple[Any, ...], tensor: Tensor) -> Column:
    """Values that have been checked, as their column. Raises Unusual, and what NumPy raises."""
    inner = tensor.shape[1:]
    if tensor.datatype == "BYTES":
        if inner:
            raise Unusual
        return list(values)
    is_float = tensor.datatype in FLOATS
    if not is_float and not inner and None in values:
        return list(values)
    if is_float and not inner:
        return array_of_floats(values)
    array = np.array(values, dtype=np.float64 if is_float else dtype_of(tensor))
    return shaped(array, inner)


def shaped(array: Any, inner: Sequence[int]) -> Any:
    """`array` where its rows have the shape `inner`, in which -1 is any size but none."""
    sizes = array.shape[1:]
    if (
        len(sizes) != len(inner)
        or 0 in sizes
        or any(w not in {-1, s} for w, s in zip(inner, sizes, strict=True))
    ):
        raise Unusual
    return array
