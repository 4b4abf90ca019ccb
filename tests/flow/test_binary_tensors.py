"""Tensors in binary form pass the gateway as they are, with the header that says where the JSON ends, both ways."""

import json
from typing import Any

import pytest

from gateway.verify.checks.binary_tensors import LENGTH_HEADER, MEDIA_TYPE, BinaryRequest, binary_request
from tests.flow.contract import Contract
from tests.flow.scene import Scene

REQUEST: dict[str, Any] = {
    "inputs": [
        {"name": "alcohol", "datatype": "FP64", "shape": [3], "data": [1.0, -0.0, 2**40]},
    ],
    "parameters": {"binary_data_output": True},
}


@pytest.mark.parametrize("target", ["/v2/models/wine/infer", "/v2/models/wine/versions/1/infer"])
@pytest.mark.parametrize("as_chunks", [False, True])
async def test_request_and_answer_arrive_bit_for_bit(target: str, as_chunks: bool):
    async with Scene() as scene:
        contract = Contract("wine")
        backend = await scene.model("wine", contract)
        fields, body = binary_request(REQUEST).fields_and_body()
        if as_chunks:
            head = scene.request(
                "POST", target, body=None, fields=(*fields, ("Transfer-Encoding", "chunked"))
            )
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (body[:7], body[7:]))
            answer = await scene.raw(head + chunks + b"0\r\n\r\n")
        else:
            answer = await scene.call("POST", target, body=body, fields=fields)
    assert answer.status == 200, answer.body
    length = int(answer.get(LENGTH_HEADER) or "0")
    assert answer.get("Content-Type") == MEDIA_TYPE
    assert json.loads(answer.body[:length])["outputs"][0]["parameters"] == {"binary_data_size": 24}
    assert answer.body[length:] == b"".join(n.to_bytes(8, "little") for n in (1, 0, 2**40))
    (seen,) = backend.seen
    assert seen.get(LENGTH_HEADER) == dict(fields)[LENGTH_HEADER]
    assert seen.get("Content-Type") == MEDIA_TYPE
    assert seen.body == body


async def test_a_refusal_of_binary_tensors_is_handed_on():
    async with Scene() as scene:
        await scene.model("wine", Contract("wine"))
        good = binary_request(REQUEST)
        fields, body = BinaryRequest(good.request, good.behind + b"\0").fields_and_body()
        answer = await scene.call("POST", "/v2/models/wine/infer", body=body, fields=fields)
    assert (answer.status, answer.json()["code"]) == (422, "invalid-instances")
