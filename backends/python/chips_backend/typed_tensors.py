"""Decode usual requests of the Open Inference Protocol fast: by types made from the signature, straight to columns."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple

import msgspec
import numpy as np

from chips_backend import binary, number_arrays
from chips_backend.column_block import Block, Column, array_of_floats
from chips_backend.decode_instances import FLOATS, INTEGERS, Scoring
from chips_backend.duplicate_names import strings_in, strings_in_text
from chips_backend.input_tables import dtype_of
from chips_backend.manifest import Signature, Tensor
from chips_backend.open_inference import read_asked
from chips_backend.typed_decoding import ERRORS, Unusual, is_within, shaped

_LIST: Final[Any] = list
_FEW: Final = 64  # values are compared faster one by one than by NumPy
_OPTIONAL: Final = ("id", "parameters", "outputs", "model_name", "model_version")


def _infer_decoder(data: Any, absent: Any) -> Callable[[bytes], Any]:
    """Decodes a request whose tensors have their `data` as this type."""
    size = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
    tensor = msgspec.defstruct(
        "Tensor",
        [
            ("name", str),
            ("shape", Annotated[list[size], msgspec.Meta(min_length=1)]),
            ("datatype", str),
            ("data", data, absent),
            ("parameters", dict[str, Any] | None | msgspec.UnsetType, msgspec.UNSET),
        ],
        forbid_unknown_fields=True,
        gc=False,
    )
    request = msgspec.defstruct(
        "Infer",
        [
            ("inputs", Annotated[_LIST[tensor], msgspec.Meta(min_length=1)]),
            ("id", str | None | msgspec.UnsetType, msgspec.UNSET),
            *((name, Any, msgspec.UNSET) for name in _OPTIONAL if name != "id"),
        ],
        forbid_unknown_fields=True,
    )
    return msgspec.json.Decoder(request).decode


_decode_any: Final = _infer_decoder(msgspec.Raw, msgspec.Raw())
_decode_floats: Final = _infer_decoder(list[float | None], None)
_SCALARS: Final = {
    **dict.fromkeys(FLOATS, float),
    **dict.fromkeys(INTEGERS, int),
    "BOOL": bool,
    "BYTES": str,
}
_whole: Final = {kind: msgspec.json.Decoder(_LIST[scalar]).decode for kind, scalar in _SCALARS.items()}
_with_none: Final = {
    kind: msgspec.json.Decoder(_LIST[scalar | None]).decode for kind, scalar in _SCALARS.items()
}


class Tensors:
    """Reads requests of the Open Inference Protocol, in JSON and in binary form, by types made from the signature."""

    def __init__(self, signature: Signature, known: Mapping[str, str]) -> None:
        self._inputs = signature.inputs
        self._outputs = signature.outputs
        self._known = known
        self._names = [tensor.name for tensor in self._inputs]
        self._known_names = frozenset(self._names)
        are_single_floats = all(
            len(tensor.shape) <= 1 and tensor.datatype in FLOATS for tensor in self._inputs
        )
        # Of one tensor [rows, inputs] for all inputs; None: they make no such tensor of floating point.
        self._matrix_limit = (
            min(FLOATS[tensor.datatype] for tensor in self._inputs)
            if self._inputs and are_single_floats
            else None
        )
        datatypes = {tensor.datatype for tensor in self._inputs}
        self._has_floats = bool(datatypes & FLOATS.keys())
        self._is_floats = datatypes <= FLOATS.keys()

    def read(self, content: bytes, behind: memoryview | None) -> Scoring | None:
        """The request, or None where `open_inference.read_tensors` must read it, which says what is wrong."""
        if not self._inputs:
            return None
        rest, cut = number_arrays.cut_data(content) if self._has_floats else (content, {})
        marks = len(cut)
        try:
            request = _decode_any(rest) if cut else self._decode(content)
            given = {
                name: value for name in _OPTIONAL if (value := getattr(request, name)) is not msgspec.UNSET
            }
            block, texts = self._block(request.inputs, behind, cut)
            parameters, requested, forms = read_asked(given, self._known, self._outputs)
        except ERRORS:
            return None
        if 1 + texts + marks + (strings_in(given) if given else 0) != strings_in_text(rest):
            return None  # a name stands twice
        return Scoring(block, parameters, self._place, given.get("id"), requested, forms)

    def _decode(self, content: bytes) -> Any:
        """The request, each tensor's data as a list of floats where all are flat, else as it is written."""
        if self._is_floats:
            try:
                return _decode_floats(content)
            except msgspec.ValidationError:  # nested, or of another datatype
                pass
        return _decode_any(content)

    def _place(self, row: int, field: int | None) -> str:
        return f"row {row}" if field is None else f"{self._names[field]}[{row}]"

    def _block(
        self, tensors: Sequence[Any], behind: memoryview | None, cut: number_arrays.Cut
    ) -> tuple[Block, int]:
        """The columns, and how many strings, names among them, stand in the JSON of the tensors."""
        inputs, names = self._inputs, self._known_names
        by_name: dict[str, _Given] = {}
        texts = 0
        is_matrix = len(tensors) == 1 and len(inputs) > 1 and tensors[0].name not in names
        for tensor in tensors:
            content = None
            texts += _strings_in_head(tensor)
            size = tensor.parameters.get(binary.SIZE) if tensor.parameters else None
            if size is not None:
                if behind is None or not _is_absent(tensor.data):
                    raise Unusual
                content, behind = binary.take(behind, size, tensor.name)
            by_name[tensor.name] = given = _values(tensor, content, cut)
            if tensor.datatype == "BYTES" and content is None:
                texts += len(given.values) - given.values.count(None)
        binary.check_all_taken(behind)
        if cut:
            raise Unusual  # what was cut out is not the data of a tensor
        if is_matrix:
            return self._matrix(by_name[tensors[0].name]), texts
        if by_name.keys() != names or len(tensors) != len(names):
            raise Unusual
        columns = [_fitting(by_name[tensor.name], tensor) for tensor in inputs]
        if len({len(column) for column in columns}) > 1:
            raise Unusual
        return Block(columns), texts

    def _matrix(self, given: "_Given") -> Block:
        """One tensor [rows, inputs] for all inputs."""
        if self._matrix_limit is None or len(given.shape) != 2 or given.shape[1] != len(self._inputs):
            raise Unusual
        return Block(matrix=_floats(given, self._matrix_limit).reshape(given.shape))


def _strings_in_head(tensor: Any) -> int:
    """Of a tensor's names and texts, without those in its data."""
    found = 5 if _is_absent(tensor.data) else 6  # name, shape, datatype, and two texts
    return found if tensor.parameters is msgspec.UNSET else found + 1 + strings_in(tensor.parameters)


def _is_absent(data: Any) -> bool:
    return data is None or (isinstance(data, msgspec.Raw) and not bytes(data))


def _values(tensor: Any, content: memoryview | None, cut: number_arrays.Cut) -> Any:
    """The values in their shape: an array, or for texts and where one is missing a list; with the datatype they came with.

    Data that was cut out is taken from `cut`.
    """
    shape, kind = tensor.shape, tensor.datatype
    if kind not in _SCALARS or 0 in shape[1:]:
        raise Unusual
    if isinstance(tensor.data, list) and kind not in FLOATS:
        raise Unusual
    if content is not None:
        return _Given(kind, shape, binary.unpack(content, kind, shape, ""), was_binary=True)
    if tensor.data is None:
        raise Unusual
    values = tensor.data if isinstance(tensor.data, list) else _flat(tensor.data, kind, cut)
    if len(values) != math.prod(shape):
        raise Unusual
    return _Given(kind, shape, values)


class _Given(NamedTuple):
    datatype: str
    shape: list[int]
    values: Any  # flat: an array, or a list
    was_binary: bool = False


def _flat(data: Any, kind: str, cut: number_arrays.Cut) -> Any:
    array = cut.pop(bytes(data), None) if cut else None
    if array is not None:
        data = array
        if kind in FLOATS and (values := number_arrays.floats(array)) is not None:
            return values
    try:
        return _whole[kind](data)
    except msgspec.ValidationError:
        return _with_none[kind](data)


def _floats(given: _Given, limit: float) -> Any:
    """An array of float64, NaN where a value is missing."""
    if given.datatype not in FLOATS:
        raise Unusual
    values, own_limit = given.values, FLOATS[given.datatype]
    limit = min(limit, own_limit)
    if isinstance(values, list):
        if len(values) <= _FEW and limit != math.inf and None not in values:
            if max(values) > limit or min(values) < -limit:
                raise Unusual
            return array_of_floats(values)
        values = array_of_floats(values)
    # Bytes of a datatype hold no number beyond its range.
    if not (given.was_binary and limit == own_limit) and not is_within(values, limit):
        raise Unusual
    return values


def _fitting(given: _Given, tensor: Tensor) -> Column:
    """The column of an input."""
    inner = tensor.shape[1:]
    if not inner and given.shape[1:] not in ([], [1]):
        raise Unusual
    if tensor.datatype in FLOATS:
        array = _floats(given, FLOATS[tensor.datatype])
        return shaped(array.reshape(given.shape), inner) if inner else array
    if given.datatype != tensor.datatype:
        raise Unusual
    values = given.values
    if tensor.categories is not None and not tensor.members.issuperset(
        value for value in set(_listed(values)) if value is not None
    ):
        raise Unusual
    if tensor.datatype == "BYTES" or (isinstance(values, list) and None in values):
        if inner:
            raise Unusual
        if tensor.datatype in INTEGERS:
            low, high = INTEGERS[tensor.datatype]
            if any(value is not None and not low <= value <= high for value in values):
                raise Unusual
        return _listed(values)
    array = np.asarray(values, dtype=dtype_of(tensor))
    return shaped(array.reshape(given.shape), inner) if inner else array


def _listed(values: Any) -> list[Any]:
    return values if isinstance(values, list) else values.tolist()
