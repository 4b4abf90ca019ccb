"""Checks of the Open Inference Protocol's binary tensor data extension.

The answers must be the same, with tensors as bytes behind the JSON.
"""

import math
import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from gateway.verify.checks.open_inference_predictions import flatten, infer_request, require_outputs
from gateway.verify.conformance_check_type import (
    CheckContext,
    CheckSkipped,
    ContractViolation,
    check,
    require_problem,
    require_status,
)
from gateway.verify.raw_http import Fields, RawRequest, RawResponse

LENGTH_HEADER: Final = "Inference-Header-Content-Length"
MEDIA_TYPE: Final = "application/octet-stream"
_SIZE: Final = "binary_data_size"
_NOT_TAKEN: Final = (400, 415, 422)
_CODES: Final = {
    "BOOL": "?", "FP16": "e", "FP32": "f", "FP64": "d", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q",
    "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
}  # fmt: skip


def pack_tensor(values: Sequence[Any], datatype: str) -> bytes:
    """Pack the values of a tensor into little-endian bytes.

    NaN stands where a number is missing. Raises CheckSkipped where that cannot be said.
    """
    if datatype != "BYTES" and None in values and not datatype.startswith("FP"):
        raise CheckSkipped(f"the good request misses a value of {datatype}, which has no binary form")
    if datatype == "BYTES":
        texts = [value.encode() for value in values]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    code = _CODES[datatype]
    numbers = [math.nan if value is None else value if code in "efd?" else int(value) for value in values]
    return struct.pack(f"<{len(numbers)}{code}", *numbers)


def unpack_tensor(content: bytes, datatype: str) -> list[Any]:
    """Unpack the values from a tensor's bytes. Raises ContractViolation where these are not whole values."""
    if datatype == "BYTES":
        texts, at = [], 0
        while at < len(content):
            begin = at + 4
            at = begin + int.from_bytes(content[at:begin], "little")
            if at > len(content):
                raise ContractViolation(f"a text goes beyond the {len(content)} bytes of its tensor")
            texts.append(content[begin:at].decode())
        return texts
    code = _CODES[datatype]
    if len(content) % struct.calcsize(code):
        raise ContractViolation(f"{len(content)} bytes are no whole number of {datatype}")
    return list(struct.unpack(f"<{len(content) // struct.calcsize(code)}{code}", content))


class BinaryRequest(NamedTuple):
    """An inference request with binary tensors, in parts. So a check can break one."""

    request: dict[str, Any]
    behind: bytes
    length: str | None = None  # what the header says; None: the truth

    def fields_and_body(self) -> tuple[Fields, bytes]:
        head = msgspec.json.encode(self.request)
        length = str(len(head)) if self.length is None else self.length
        return (("Content-Type", MEDIA_TYPE), (LENGTH_HEADER, length)), head + self.behind


def binary_request(request: dict[str, Any], **more: Any) -> BinaryRequest:
    """Make an inference request with all its tensors in binary form."""
    tensors, contents = [], []
    for tensor in request["inputs"]:
        content = pack_tensor(tensor["data"], tensor["datatype"])
        kept = {name: value for name, value in tensor.items() if name != "data"}
        tensors.append({**kept, "parameters": {_SIZE: len(content)}})
        contents.append(content)
    return BinaryRequest({**request, "inputs": tensors, **more}, b"".join(contents))


async def _post(context: CheckContext, binary: BinaryRequest) -> RawResponse:
    fields, body = binary.fields_and_body()
    return await context.post(f"{context.open_inference}/infer", body, fields)


async def _taken(context: CheckContext, binary: BinaryRequest) -> RawResponse:
    """The answer. Raises CheckSkipped where the backend says that it does not take this form: the extension is one."""
    response = await _post(context, binary)
    if response.status in _NOT_TAKEN and context.metadata.get("parameters") is not None:
        raise CheckSkipped(f"the backend does not take binary tensors: it answers {response.status}")
    return response


def binary_outputs(response: RawResponse) -> list[dict[str, Any]]:
    """The outputs of a binary response, with their bytes decoded into `data`."""
    require_status(response, 200)
    length = response.get(LENGTH_HEADER)
    kind = response.get("Content-Type")
    if not length.isdigit() or int(length) > len(response.body):
        raise ContractViolation(f"{LENGTH_HEADER} is {length!r} with a body of {len(response.body)} bytes")
    if kind != MEDIA_TYPE:
        raise ContractViolation(f"Content-Type is {kind or 'missing'} instead of {MEDIA_TYPE}")
    content = msgspec.json.decode(response.body[: int(length)])
    rest = response.body[int(length) :]
    outputs: list[dict[str, Any]] = content["outputs"]
    for output in outputs:
        size = output.pop("parameters", {}).get(_SIZE)
        if size is None and "data" in output:
            continue
        if not isinstance(size, int) or size > len(rest):
            raise ContractViolation(f"{output['name']}: {_SIZE} is {size!r} with {len(rest)} bytes left")
        output["data"] = unpack_tensor(rest[:size], output["datatype"])
        rest = rest[size:]
        if len(output["data"]) != math.prod(output["shape"]):
            raise ContractViolation(f"shape {output['shape']} does not fit {len(output['data'])} values")
    if rest:
        raise ContractViolation(f"{len(rest)} bytes of the answer belong to no output")
    return outputs


def require_same_outputs(got: Sequence[dict[str, Any]], wanted: Sequence[dict[str, Any]]) -> None:
    """Raise ContractViolation unless the outputs are equal, bit for bit. `got` are in binary form, `wanted` in JSON."""
    if [_bits(output) for output in got] != [_bits(output) for output in wanted]:
        raise ContractViolation(f"in binary form {list(got)}, in JSON {list(wanted)}")


def _bits(output: dict[str, Any]) -> tuple[Any, ...]:
    data = flatten(output["data"])
    if output["datatype"].startswith("FP"):
        data = [math.nan if value is None else float(value) for value in data]
        content: Any = pack_tensor(
            [None if math.isnan(value) else value for value in data], output["datatype"]
        )
    else:
        content = data
    return output["name"], output["datatype"], output["shape"], content


@check("binary/request", "tensors behind the JSON are the same request: the same answer, bit for bit")
async def request(context: CheckContext) -> None:
    asked = infer_request(context)
    response = await _taken(context, binary_request(asked))
    wanted = require_outputs(context, await context.post(f"{context.open_inference}/infer", asked))
    require_same_outputs(require_outputs(context, response), wanted)


@check("binary/answer", "binary_data_output asks for outputs as bytes: the same answer, bit for bit")
async def answer(context: CheckContext) -> None:
    asked = infer_request(context)
    binary = binary_request(asked, parameters={"binary_data_output": True})
    await _taken(context, binary_request(asked))
    wanted = require_outputs(context, await context.post(f"{context.open_inference}/infer", asked))
    response = await _post(context, binary)
    no_form = [w for w in wanted if not w["datatype"].startswith("FP") and None in flatten(w["data"])]
    if len(no_form) == len(wanted):
        raise CheckSkipped("each output misses a value that has no binary form")
    require_same_outputs(binary_outputs(response), wanted)


@check("binary/chosen", "an output's own binary_data wins over binary_data_output")
async def chosen(context: CheckContext) -> None:
    asked = infer_request(context)
    await _taken(context, binary_request(asked))
    wanted = require_outputs(context, await context.post(f"{context.open_inference}/infer", asked))
    outputs = [{"name": output["name"], "parameters": {"binary_data": False}} for output in wanted]
    response = await _post(
        context, binary_request(asked, parameters={"binary_data_output": True}, outputs=outputs)
    )
    require_same_outputs(require_outputs(context, response), wanted)


@check("binary/missing-value", "a NaN is a missing value, as null is in JSON")
async def missing_value(context: CheckContext) -> None:
    asked = infer_request(context)
    tensor = next((t for t in asked["inputs"] if t["datatype"].startswith("FP")), None)
    if tensor is None:
        raise CheckSkipped("the model has no floating-point input")
    await _taken(context, binary_request(asked))
    tensor["data"] = [None, *tensor["data"][1:]]
    in_json = await context.post(f"{context.open_inference}/infer", asked)
    response = await _post(context, binary_request(asked))
    if response.status != in_json.status:
        raise ContractViolation(f"NaN in binary form gets {response.status}, null in JSON {in_json.status}")
    if in_json.status == 200:
        require_same_outputs(require_outputs(context, response), require_outputs(context, in_json))


@check("binary/lengths", "every length is compared with the body: 422 invalid-instances")
async def lengths(context: CheckContext) -> None:
    good = binary_request(infer_request(context))
    await _taken(context, good)
    body = len(good.fields_and_body()[1])
    first = {**good.request["inputs"][0], "parameters": {_SIZE: 0}}
    wrong = [
        good._replace(behind=good.behind + b"\0"),
        good._replace(behind=good.behind[:-1]),
        good._replace(behind=b""),
        good._replace(length=str(body + 1)),
        good._replace(length="-1"),
        good._replace(request={**good.request, "inputs": [first, *good.request["inputs"][1:]]}),
    ]
    for broken in wrong:
        fields, content = broken.fields_and_body()
        sent = RawRequest("POST", f"{context.open_inference}/infer", fields, content)
        require_problem(sent, await context.send_and_record(sent), 422, "invalid-instances")
    await context.require_still_serving()


CHECKS = (request, answer, chosen, missing_value, lengths)
