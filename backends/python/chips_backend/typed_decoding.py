"""Decode usual requests fast: by types made from the signature, straight to columns."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
import numpy as np

from chips_backend import binary
from chips_backend.column_block import Block, Column, array_of_floats
from chips_backend.decode_instances import FLOATS, INTEGERS, Scoring, read_parameters
from chips_backend.duplicate_names import strings_in, strings_in_text
from chips_backend.input_tables import dtype_of
from chips_backend.manifest import Signature, Tensor
from chips_backend.open_inference import read_asked
from chips_backend.problem_details import Problem


class _Unusual(Exception):
    """It is left to the careful reader."""


_ERRORS: Final = (
    _Unusual,
    Problem,
    msgspec.DecodeError,
    UnicodeDecodeError,
    RecursionError,
    ValueError,
    TypeError,
    OverflowError,
)
_LIST: Final[Any] = list
_TUPLE: Final[Any] = tuple
_MOST_CATEGORIES: Final = 1_000  # of more, no type is made


def _scalar_type(tensor: Tensor) -> Any:
    kind = tensor.datatype
    if tensor.categories is not None:
        if len(tensor.categories) > _MOST_CATEGORIES:
            raise _Unusual
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
        self._kinds = self._make()

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
        except (_Unusual, TypeError, ValueError):
            return {}

    def read(self, content: bytes) -> Scoring | None:
        """The request, or None where `schema.read_instances` must read it, which says what is wrong."""
        if not self._kinds:
            return None
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
        except _ERRORS:
            return None
        names = len(self._inputs) * len(rows) if kind == b"{" else 0
        if 1 + names + self._count_texts(block) + (strings_in(given) if given else 0) != strings_in_text(
            content
        ):
            return None  # a name stands twice
        return Scoring(block, parameters, self._place(is_object=kind == b"{"))

    def _count_texts(self, block: Block) -> int:
        return sum(len(block.columns[at]) - block.columns[at].count(None) for at in self._texts)

    def _block(self, rows: list[tuple[Any, ...]]) -> Block:
        if self._is_matrix:
            flat = list(chain.from_iterable(rows))
            return Block(matrix=array_of_floats(flat).reshape(len(rows), len(self._inputs)))
        columns = zip(*rows, strict=True)
        return Block([_column(list(c), tensor) for c, tensor in zip(columns, self._inputs, strict=True)])

    def _place(self, *, is_object: bool) -> Callable[[int, int | None], str]:
        names = [tensor.name for tensor in self._inputs]

        def place(row: int, field: int | None) -> str:
            where = f"instances[{row}]"
            if field is None:
                return where
            return f"{where}.{names[field]}" if is_object else f"{where}[{field}]"

        return place


def _decoder(row: Any) -> Callable[[bytes], Any]:
    rows = Annotated[list[row], msgspec.Meta(min_length=1)]
    request = msgspec.defstruct(
        "Request", [("instances", rows), ("parameters", Any, msgspec.UNSET)], forbid_unknown_fields=True
    )
    return msgspec.json.Decoder(request).decode


def _column(values: list[Any], tensor: Tensor) -> Column:
    """Values that have been checked, as their column. Raises _Unusual, and what NumPy raises."""
    inner = tensor.shape[1:]
    if tensor.datatype == "BYTES":
        if inner:
            raise _Unusual
        return values
    is_float = tensor.datatype in FLOATS
    if not is_float and not inner and None in values:
        return values
    if is_float and not inner:
        return array_of_floats(values)
    array = np.array(values, dtype=np.float64 if is_float else dtype_of(tensor))
    return _shaped(array, inner)


def _shaped(array: Any, inner: Sequence[int]) -> Any:
    """`array` where its rows have the shape `inner`, in which -1 is any size but none."""
    sizes = array.shape[1:]
    if (
        len(sizes) != len(inner)
        or 0 in sizes
        or any(w not in {-1, s} for w, s in zip(inner, sizes, strict=True))
    ):
        raise _Unusual
    return array


# -- tensors


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
        self._is_floats = all(tensor.datatype in FLOATS for tensor in self._inputs)

    def read(self, content: bytes, behind: memoryview | None) -> Scoring | None:
        """The request, or None where `tensors.read_tensors` must read it, which says what is wrong."""
        if not self._inputs:
            return None
        try:
            request = self._decode(content)
            given = {
                name: value for name in _OPTIONAL if (value := getattr(request, name)) is not msgspec.UNSET
            }
            block, texts = self._block(request.inputs, behind)
            parameters, requested, forms = read_asked(given, self._known, self._outputs)
        except _ERRORS:
            return None
        if 1 + texts + (strings_in(given) if given else 0) != strings_in_text(content):
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

    def _block(self, tensors: Sequence[Any], behind: memoryview | None) -> tuple[Block, int]:
        """The columns, and how many strings, names among them, stand in the JSON of the tensors."""
        inputs, names = self._inputs, self._names
        by_name: dict[str, Any] = {}
        texts = 0
        is_matrix = len(tensors) == 1 and len(inputs) > 1 and tensors[0].name not in names
        for tensor in tensors:
            content = None
            texts += _strings_in_head(tensor)
            size = (tensor.parameters or {}).get(binary.SIZE)
            if size is not None:
                if behind is None or not _is_absent(tensor.data):
                    raise _Unusual
                content, behind = binary.take(behind, size, tensor.name)
            by_name[tensor.name] = given = _values(tensor, content)
            if tensor.datatype == "BYTES" and content is None:
                texts += len(given.values) - given.values.count(None)
        binary.check_all_taken(behind)
        if is_matrix:
            (array,) = by_name.values()
            return _matrix(array, inputs), texts
        if set(by_name) != set(names) or len(tensors) != len(names):
            raise _Unusual
        columns = [_fitting(by_name[tensor.name], tensor) for tensor in inputs]
        if len({len(column) for column in columns}) > 1:
            raise _Unusual
        return Block(columns), texts


def _strings_in_head(tensor: Any) -> int:
    """Of a tensor's names and texts, without those in its data."""
    found = 5 if _is_absent(tensor.data) else 6  # name, shape, datatype, and two texts
    return found if tensor.parameters is msgspec.UNSET else found + 1 + strings_in(tensor.parameters)


def _is_absent(data: Any) -> bool:
    return data is None or (isinstance(data, msgspec.Raw) and not bytes(data))


def _values(tensor: Any, content: memoryview | None) -> Any:
    """The values in their shape: an array, or for texts and where one is missing a list; with the datatype they came with."""
    shape, kind = tensor.shape, tensor.datatype
    if kind not in _SCALARS or 0 in shape[1:]:
        raise _Unusual
    if isinstance(tensor.data, list) and kind not in FLOATS:
        raise _Unusual
    if content is not None:
        return _Given(kind, shape, binary.unpack(content, kind, shape, ""))
    if tensor.data is None:
        raise _Unusual
    values = tensor.data if isinstance(tensor.data, list) else _flat(tensor.data, kind)
    if len(values) != math.prod(shape):
        raise _Unusual
    return _Given(kind, shape, values)


class _Given(NamedTuple):
    datatype: str
    shape: list[int]
    values: Any  # flat: an array, or a list


def _flat(data: msgspec.Raw, kind: str) -> Any:
    try:
        return _whole[kind](data)
    except msgspec.ValidationError:
        return _with_none[kind](data)


def _matrix(given: _Given, inputs: Sequence[Tensor]) -> Block:
    """One tensor [rows, inputs] for all inputs."""
    if len(given.shape) != 2 or given.shape[1] != len(inputs):
        raise _Unusual
    if not all(len(tensor.shape) <= 1 and tensor.datatype in FLOATS for tensor in inputs):
        raise _Unusual
    array = _floats(given, min(FLOATS[tensor.datatype] for tensor in inputs))
    return Block(matrix=array.reshape(given.shape))


def _floats(given: _Given, limit: float) -> Any:
    """An array of float64, NaN where a value is missing."""
    if given.datatype not in FLOATS:
        raise _Unusual
    values = given.values
    array = array_of_floats(values) if isinstance(values, list) else values
    limit = min(limit, FLOATS[given.datatype])
    if limit < math.inf and bool((np.abs(array) > limit).any()):
        raise _Unusual
    return array


def _fitting(given: _Given, tensor: Tensor) -> Column:
    """The column of an input."""
    inner = tensor.shape[1:]
    if not inner and given.shape[1:] not in ([], [1]):
        raise _Unusual
    if tensor.datatype in FLOATS:
        array = _floats(given, FLOATS[tensor.datatype])
        return _shaped(array.reshape(given.shape), inner) if inner else array
    if given.datatype != tensor.datatype:
        raise _Unusual
    values = given.values
    if tensor.categories is not None and not tensor.members.issuperset(
        value for value in set(_listed(values)) if value is not None
    ):
        raise _Unusual
    if tensor.datatype == "BYTES" or (isinstance(values, list) and None in values):
        if inner:
            raise _Unusual
        return _listed(values)
    array = np.asarray(values, dtype=dtype_of(tensor))
    return _shaped(array.reshape(given.shape), inner) if inner else array


def _listed(values: Any) -> list[Any]:
    return values if isinstance(values, list) else values.tolist()
