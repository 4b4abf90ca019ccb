"""The binary tensor data extension of the Open Inference Protocol: tensors behind the JSON, as little-endian bytes.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/extension_binary_data.md
"""

import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from chips_backend.column_block import array_of_floats
from chips_backend.problem_details import Problem, invalid_instances

LENGTH_HEADER: Final = "Inference-Header-Content-Length"  # how many bytes of the body are JSON
MEDIA_TYPE: Final = "application/octet-stream"
SIZE: Final = "binary_data_size"
_BITS: Final = (8, 16, 32, 64)
DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "BOOL": np.dtype("u1"),
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in _BITS[1:]},
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in _BITS},
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in _BITS},
}
_INTEGER_CODES: Final = dict(
    zip(("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"), "bhiqBHIQ", strict=True)
)
_LENGTH = struct.Struct("<I")


def split_body(content: bytes, lengths: Sequence[str]) -> tuple[bytes, memoryview | None]:
    """The JSON at the beginning of `content`, and the tensors' bytes behind it: None where no length is given.

    `lengths` are the values of LENGTH_HEADER. Raises Problem.
    """
    if not lengths:
        return content, None
    value = lengths[0].strip()
    if len(lengths) > 1 or not value.isascii() or not value.isdigit():
        raise _wrong(f"{LENGTH_HEADER} must be one number of bytes, got {', '.join(lengths)[:80]!r}")
    length = int(value[:12])
    if length > len(content):
        raise _wrong(f"{LENGTH_HEADER} is {length}, but the body has {len(content)} bytes")
    return content[:length], memoryview(content)[length:]


def take(rest: memoryview, size: Any, where: str) -> tuple[memoryview, memoryview]:
    """The next `size` bytes, and what is left behind them. Raises Problem."""
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise _wrong(f"{where}.parameters.{SIZE} must be a number of bytes")
    if size > len(rest):
        raise _wrong(
            f"{where}.parameters.{SIZE} is {size}, but the body has only {len(rest)} bytes left for it"
        )
    return rest[:size], rest[size:]


def check_all_taken(rest: memoryview | None) -> None:
    """Bytes that no tensor claims were meant for something. Raises Problem."""
    if rest:
        raise _wrong(f"the body ends with {len(rest)} bytes that belong to no tensor: look at {SIZE} of each")


def unpack(content: memoryview, datatype: str, shape: Sequence[int], where: str) -> Any:
    """The values in row-major order: an array, of float64 for floating point; a list of texts. Raises Problem.

    A NaN stays one: it is how a binary tensor says that a value is missing.
    """
    count = math.prod(shape)
    if datatype == "BYTES":
        return _unpack_texts(content, count, where)
    dtype = DTYPES[datatype]
    if len(content) != count * dtype.itemsize:
        raise _wrong(
            f"{where}: shape {list(shape)} of {datatype} means {count * dtype.itemsize} bytes, {SIZE} is {len(content)}"
        )
    array = np.frombuffer(content, dtype)
    if datatype == "BOOL":
        _refuse_any(array > 1, array, where, "expected a byte that is 0 or 1")
        return array.astype(bool)
    if dtype.kind != "f":
        return array.astype(dtype.newbyteorder("="))
    _refuse_any(np.isinf(array), array, where, "expected a finite number")
    return array.astype(np.float64)


def _refuse_any(wrong: Any, array: Any, where: str, expected: str) -> None:
    if wrong.any():
        places = np.flatnonzero(wrong)[:11].tolist()
        raise invalid_instances([f"{where}.data[{at}]: {expected}, got {array[at]}" for at in places])


def _unpack_texts(content: memoryview, count: int, where: str) -> list[Any]:
    """Each text after its length in bytes, four of them."""
    texts = _ascii_texts(content)
    if texts is not None and len(texts) == count:
        return texts
    texts = []
    at = 0
    while at < len(content):
        begin = at + _LENGTH.size
        end = begin + _LENGTH.unpack_from(content, at)[0] if begin <= len(content) else math.inf
        if end > len(content):
            raise _wrong(f"{where}: the text {len(texts)} goes beyond the tensor's {len(content)} bytes")
        if len(texts) == count:
            break
        try:
            texts.append(str(content[begin : int(end)], "utf-8"))
        except UnicodeDecodeError:
            raise _wrong(f"{where}.data[{len(texts)}]: the text is not UTF-8") from None
        at = int(end)
    if len(texts) != count or at != len(content):
        found = f"{len(texts)} texts" if len(texts) < count else f"{len(content) - at} bytes more"
        raise _wrong(f"{where}: the shape means {count} texts, {SIZE} has {found}")
    return texts


def _ascii_texts(content: memoryview) -> list[str] | None:
    """All texts where each is ASCII, in a third of the time; None where one is not, or goes beyond the end."""
    try:
        whole = str(content, "latin-1")
        texts: list[str] = []
        at, size = 0, len(content)
        while at < size:
            begin = at + 4
            at = begin + _LENGTH.unpack_from(content, at)[0]
            texts.append(whole[begin:at])
    except struct.error:
        return None
    return texts if at == size and "".join(texts).isascii() else None


def _wrong(detail: str) -> Problem:
    return invalid_instances([detail])


def pack(values: Iterable[Any], datatype: str) -> bytes | None:
    """The bytes of a tensor with these JSON values; None where one is missing and the datatype cannot say so.

    Floating point says it with NaN, also for what JSON has no number for.
    """
    listed = values if isinstance(values, list) else list(values)
    if datatype == "BYTES":
        texts = [value.encode() if isinstance(value, str) else None for value in listed]
        if None in texts:
            return None
        return b"".join(
            part for text in texts if text is not None for part in (_LENGTH.pack(len(text)), text)
        )
    dtype = DTYPES[datatype]
    if dtype.kind == "f":
        array = array_of_floats(listed)
        array[~np.isfinite(array)] = np.nan
        content: bytes = array.astype(dtype).tobytes()
        return content
    integers = pack_integers(listed, datatype)
    if integers is not None:
        return integers
    return None if None in listed else np.array(listed, dtype=dtype).tobytes()


def pack_integers(values: Sequence[Any], datatype: str) -> bytes | None:
    """The bytes of a tensor of integers, in a third of the time that NumPy takes; None where a value is no integer of it."""
    code = _INTEGER_CODES.get(datatype)
    if code is None:
        return None
    try:
        return struct.pack(f"<{len(values)}{code}", *values)
    except struct.error:
        return None
