"""Decodes a backend's answer into its outputs by name. It knows predictions in JSON, tensors in JSON, and tensors in binary form."""

import json
import math
import struct
import zlib
from typing import Any, Final

import msgspec

_IGNORED: Final = frozenset(
    {"model", "version", "model_name", "model_version", "id"}
)  # they differ on purpose, next to what was predicted
_MOST_INFLATED: Final = 64 << 20
_MOST_MEMBERS: Final = 1000  # each is a new start, so many empty ones would take long
_GZIP_MAGIC: Final = b"\x1f\x8b"
_EITHER_HEADER: Final = 47  # of zlib or gzip
_NO_HEADER: Final = -zlib.MAX_WBITS
_INFLATES: Final = frozenset({"gzip", "x-gzip", "deflate"})
_MOST_PLACES_PER_VALUE: Final = 4
# Of the Open Inference Protocol: the code and size of each datatype for `struct`.
_FORMATS: Final = {
    "BOOL": ("?", 1), "INT8": ("b", 1), "UINT8": ("B", 1), "INT16": ("h", 2), "UINT16": ("H", 2), "INT32": ("i", 4),
    "UINT32": ("I", 4), "INT64": ("q", 8), "UINT64": ("Q", 8), "FP16": ("e", 2), "FP32": ("f", 4), "FP64": ("d", 8),
}  # fmt: skip

_decode = msgspec.json.Decoder().decode


class Answer(msgspec.Struct, array_like=True, frozen=True):
    """A backend's answer as it came, not decoded. `failure` is a gateway error's code, where there was no whole answer."""

    status: int
    body: bytes
    coding: str  # the value of Content-Encoding
    json_length: int | None  # the value of Inference-Header-Content-Length
    duration_s: float
    failure: str = ""


def decode_outputs(answer: Answer) -> dict[str, Any]:
    """Decode the outputs of an answer, by name.

    They are JSON values with a row for each instance; bytes for what is not JSON. Of a problem document only its code
    counts: the texts may differ. Raises ValueError where the body is not what its head says.
    """
    body = _decoded(answer)
    head, rest = (
        (body, b"")
        if answer.json_length is None
        else (body[: answer.json_length], body[answer.json_length :])
    )
    try:
        document = _json(head)
    except (ValueError, RecursionError):
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
    return found if found or "outputs" in document else document


def _json(text: bytes) -> Any:
    """The value of a JSON text, also of one with NaN and Infinity, which RFC 8259 does not have and many servers write.

    Raises ValueError, RecursionError.
    """
    try:
        return _decode(text)
    except msgspec.DecodeError:
        return json.loads(text.decode(), parse_constant=_constant)


def _constant(name: str) -> float | None:
    """NaN is null, as in a binary tensor: a NaN would not even be equal to itself."""
    return None if name == "NaN" else float(name)


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
        if name in found:
            raise ValueError("two outputs have the same name")
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


def _binary(raw: bytes, datatype: str) -> list[Any] | bytes:
    """The values of a tensor; the bytes themselves where the protocol does not have its datatype."""
    if datatype == "BYTES":
        return _texts(raw)
    if datatype == "BF16":  # the upper half of an FP32
        if len(raw) % 2:
            raise ValueError(f"{len(raw)} bytes are no tensor of {datatype}")
        halves = memoryview(raw)
        raw = b"".join(b"\0\0" + halves[at : at + 2] for at in range(0, len(raw), 2))
        datatype = "FP32"
    if datatype not in _FORMATS:
        return raw
    code, size = _FORMATS[datatype]
    if len(raw) % size:
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


def has_known_coding(coding: str) -> bool:
    """Whether a body with this Content-Encoding can be decoded here. An answer in another coding cannot be compared."""
    return coding.strip().lower() in _INFLATES | {"", "identity"}


def _decoded(answer: Answer) -> bytes:
    """The body without its Content-Encoding; as it came where that is not known here."""
    coding = answer.coding.strip().lower()
    if coding not in _INFLATES:
        return answer.body
    try:
        return _inflated(answer.body, _EITHER_HEADER)
    except zlib.error as error:
        if coding == "deflate":  # many servers send it without the header of RFC 1950
            try:
                return _inflated(answer.body, _NO_HEADER)
            except zlib.error:
                pass
        raise ValueError(f"the body is not what its Content-Encoding says: {error}") from None


def _inflated(body: bytes, wbits: int) -> bytes:
    """All members of `body` inflated (RFC 1952 section 2.2). Raises zlib.error, ValueError.

    What follows the last member is left out, as clients leave it out: zeros that fill a block, for example.
    """
    pieces: list[bytes] = []
    room = _MOST_INFLATED
    while body and (not pieces or body.startswith(_GZIP_MAGIC)):
        inflater = zlib.decompressobj(wbits=wbits)
        pieces.append(inflater.decompress(body, room))
        room -= len(pieces[-1])
        if not inflater.eof or room <= 0 or len(pieces) > _MOST_MEMBERS:
            raise ValueError("the body is cut off, or too large to compare")
        body = inflater.unused_data
    return b"".join(pieces)
