"""Decode a backend's answer into outputs by name, whatever its form: predictions in JSON, tensors in JSON, tensors in binary form."""

import math
import struct
import zlib
from typing import Any, Final

import msgspec

_IGNORED: Final = frozenset(
    {"model", "version", "model_name", "model_version", "id"}
)  # they differ on purpose
_MOST_INFLATED: Final = 64 << 20
_MOST_PLACES_PER_VALUE: Final = 4
# Of the Open Inference Protocol: the code and size of each datatype for `struct`.
_FORMATS: Final = {
    "BOOL": ("?", 1), "INT8": ("b", 1), "UINT8": ("B", 1), "INT16": ("h", 2), "UINT16": ("H", 2), "INT32": ("i", 4),
    "UINT32": ("I", 4), "INT64": ("q", 8), "UINT64": ("Q", 8), "FP16": ("e", 2), "FP32": ("f", 4), "FP64": ("d", 8),
}  # fmt: skip

_decode = msgspec.json.Decoder().decode


class Answer(msgspec.Struct, array_like=True, frozen=True):
    """A backend's answer as it came. `failure` is a gateway error's code, where there was no whole answer."""

    status: int
    body: bytes
    coding: str  # the value of Content-Encoding
    json_length: int | None  # the value of Inference-Header-Content-Length
    duration_s: float
    failure: str = ""


def outputs_of(answer: Answer) -> dict[str, Any]:
    """The outputs by name, as JSON values with a row for each instance; bytes for what is not JSON.

    Of a problem document only its code counts: the texts may differ. Raises ValueError where the body is not what its
    head says.
    """
    body = _decoded(answer)
    head, rest = (
        (body, b"")
        if answer.json_length is None
        else (body[: answer.json_length], body[answer.json_length :])
    )
    try:
        document = _decode(head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {"body": body}
    if not isinstance(document, dict):
        return {"body": document}
    if answer.status >= 400:
        return {"code": document.get("code")}
    found: dict[str, Any] = {}
    for name, value in document.items():
        if name == "outputs" and isinstance(value, list):
            found |= _tensors(value, rest)
        elif name == "predictions":
            found |= _predictions(value)
        elif name not in _IGNORED:
            found[name] = value
    return found


def _predictions(value: Any) -> dict[str, Any]:
    """One output, or several by name where each row is an object."""
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        names = dict.fromkeys(name for row in value for name in row)
        # Rows with names of their own are no columns: each name would need a place for every row.
        if len(names) * len(value) <= _MOST_PLACES_PER_VALUE * sum(map(len, value)):
            return {name: [row.get(name) for row in value] for name in names}
    return {"predictions": value}


def _tensors(outputs: list[Any], rest: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    position = 0
    for tensor in outputs:
        if not isinstance(tensor, dict) or not isinstance(name := tensor.get("name"), str):
            raise ValueError("an output is no tensor with a name")
        size = _binary_size(tensor)
        if size is None:
            data = tensor.get("data")
        else:
            data = _binary(rest[position : position + size], str(tensor.get("datatype")))
            position += size
        found[name] = {"shape": tensor.get("shape"), "datatype": tensor.get("datatype"), "data": data}
    if position != len(rest):
        raise ValueError("the bytes of the tensors are not as many as their head says")
    return found


def _binary_size(tensor: dict[str, Any]) -> int | None:
    """How many bytes of the tensor's data follow the JSON; None where the data is in it."""
    parameters = tensor.get("parameters")
    if parameters is None:
        return None
    if not isinstance(parameters, dict):
        raise ValueError("a tensor's parameters are no object")
    size = parameters.get("binary_data_size")
    if size is not None and (type(size) is not int or size < 0):
        raise ValueError("a tensor's binary_data_size is no size")
    return size


def _binary(raw: bytes, datatype: str) -> list[Any]:
    if datatype == "BYTES":
        return _texts(raw)
    code, size = _FORMATS.get(datatype, ("", 1))
    if not code or len(raw) % size:
        raise ValueError(f"{len(raw)} bytes are no tensor of {datatype}")
    values = struct.unpack(f"<{len(raw) // size}{code}", raw)
    return [None if isinstance(value, float) and math.isnan(value) else value for value in values]


def _texts(raw: bytes) -> list[str]:
    found, position = [], 0
    while position < len(raw):
        (length,) = struct.unpack_from("<I", raw, position) if position + 4 <= len(raw) else (len(raw),)
        position += 4 + length
        if position > len(raw):
            raise ValueError("a text is longer than its tensor")
        found.append(raw[position - length : position].decode("utf-8", "surrogateescape"))
    return found


def _decoded(answer: Answer) -> bytes:
    """The body without its Content-Encoding; as it came where that is not known here."""
    if answer.coding.lower() not in {"gzip", "x-gzip", "deflate"}:
        return answer.body
    inflater = zlib.decompressobj(wbits=47)  # either header
    try:
        body = inflater.decompress(answer.body, _MOST_INFLATED)
    except zlib.error as error:
        raise ValueError(f"the body is not what its Content-Encoding says: {error}") from None
    if inflater.unconsumed_tail or not inflater.eof:
        raise ValueError("the body is cut off, or too large to compare")
    return body
