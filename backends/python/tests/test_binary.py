"""Tensors as bytes behind the JSON: the same values as in JSON, and every length checked."""

import json
import math
import random
import struct
from typing import Any

import numpy as np
import pytest
from chips_backend import binary
from chips_backend.binary import LENGTH_HEADER, pack, split_body, unpack
from chips_backend.column_block import listed
from chips_backend.manifest import Signature, Tensor
from chips_backend.open_inference import read_tensors
from chips_backend.problem_details import Problem
from chips_backend.testing import Answer, Backend

INFER = "/v2/models/test/infer"
OCTETS = {"Content-Type": "application/octet-stream"}
A = struct.pack("<2d", 1.5, math.nan)
B = struct.pack("<2q", 2, -7)


def tensor(name: str, datatype: str, size: int, shape: tuple[int, ...] = (2,)) -> dict[str, Any]:
    return {
        "name": name,
        "datatype": datatype,
        "shape": list(shape),
        "parameters": {"binary_data_size": size},
    }


INPUTS = [tensor("a", "FP64", 16), tensor("b", "INT64", 16)]


def ask(backend: Backend, body: dict[str, Any], *behind: bytes, **headers: str) -> Answer:
    head = json.dumps(body).encode()
    given = {LENGTH_HEADER: str(len(head)), **OCTETS, **{k.replace("_", "-"): v for k, v in headers.items()}}
    return backend.post(INFER, head + b"".join(behind), given)


def refused(answer: Answer, status: int = 422, code: str = "invalid-instances") -> str:
    assert (answer.status, answer.json["code"]) == (status, code), answer.body
    detail: str = answer.json["detail"]
    return detail


# -- over the wire


def test_a_binary_request_is_the_request_in_json(backend):
    answer = ask(backend, {"inputs": INPUTS, "id": "7"}, A, B)
    assert answer.status == 200, answer.body
    data: list[dict[str, Any]] = [{"data": [1.5, None]}, {"data": [2, -7]}]
    named: list[dict[str, Any]] = [
        {"name": t["name"], "datatype": t["datatype"], "shape": [2]} for t in INPUTS
    ]
    in_json = backend.post(
        INFER, {"id": "7", "inputs": [{**n, **d} for n, d in zip(named, data, strict=True)]}
    )
    assert answer.body == in_json.body
    assert answer.headers["Content-Type"] == "application/json"
    assert LENGTH_HEADER not in answer.headers


@pytest.mark.parametrize(
    ("asks", "is_binary"),
    [
        ({"parameters": {"binary_data_output": True}}, True),
        ({"parameters": {"binary_data_output": False}}, False),
        ({"parameters": {"binary_data_output": None}}, False),
        ({"outputs": [{"name": "sum", "parameters": {"binary_data": True}}]}, True),
        ({"outputs": [{"name": "sum", "parameters": {"content_type": "np"}}]}, False),
        (
            {
                "parameters": {"binary_data_output": True},
                "outputs": [{"name": "sum", "parameters": {"binary_data": False}}],
            },
            False,
        ),
        ({"parameters": {"binary_data_output": True}, "outputs": [{"name": "sum"}]}, True),
    ],
)
def test_the_caller_chooses_the_form_of_an_output(backend, asks, is_binary):
    answer = ask(backend, {"inputs": INPUTS, **asks}, A, B)
    if not is_binary:
        assert answer.json["outputs"][0]["data"] == [3.5, -7.0]
        return
    assert answer.headers["Content-Type"] == "application/octet-stream"
    length = int(answer.headers[LENGTH_HEADER])
    (output,) = json.loads(answer.body[:length])["outputs"]
    assert output == {"name": "sum", "datatype": "FP64", "shape": [2], "parameters": {"binary_data_size": 16}}
    assert answer.body[length:] == struct.pack("<2d", 3.5, -7.0)


def test_no_rows_have_no_bytes(backend):
    inputs = [tensor("a", "FP64", 0, (0,)), tensor("b", "INT64", 0, (0,))]
    answer = ask(backend, {"inputs": inputs, "parameters": {"binary_data_output": True}})
    assert int(answer.headers[LENGTH_HEADER]) == len(answer.body)
    assert answer.json["outputs"][0]["parameters"] == {"binary_data_size": 0}


def test_what_has_no_binary_form_stays_in_the_json(backend):
    """A text of which one is missing."""
    asked = {"inputs": INPUTS, "parameters": {"binary_data_output": True, "as": None}}
    answer = ask(backend, {**asked, "parameters": {"binary_data_output": True, "as": [1, None]}}, A, B)
    assert answer.headers["Content-Type"] in {"application/json", "application/octet-stream"}
    texts = ask(backend, {**asked, "parameters": {"binary_data_output": True, "as": "é"}}, A, B)
    length = int(texts.headers[LENGTH_HEADER])
    assert json.loads(texts.body[:length])["outputs"][0]["datatype"] == "BYTES"
    assert texts.body[length:] == b"\x02\x00\x00\x00\xc3\xa9" * 2


@pytest.mark.parametrize(
    ("body", "behind", "headers", "said"),
    [
        ({}, [A, B, b"x"], {}, "ends with 1 bytes that belong to no tensor"),
        ({}, [A, B[:-1]], {}, "has only 15 bytes left"),
        ({}, [], {}, "has only 0 bytes left"),
        ({"inputs": [tensor("a", "FP64", 8), tensor("b", "INT64", 16)]}, [A[:8], B], {}, "means 16 bytes"),
        ({"inputs": [tensor("a", "FP64", 16, (3,)), INPUTS[1]]}, [A, B], {}, "means 24 bytes"),
        ({"inputs": [tensor("a", "FP64", -1), INPUTS[1]]}, [A, B], {}, "must be a number of bytes"),
        ({"inputs": [{**INPUTS[0], "parameters": {"binary_data_size": True}}, INPUTS[1]]}, [A, B], {}, "must be a number of bytes"),
        ({"inputs": [{**INPUTS[0], "data": [1, 2]}, INPUTS[1]]}, [A, B], {}, "give either data or"),
        ({}, [struct.pack("<2d", 1, -math.inf), B], {}, "inputs[0].data[1]: expected a finite number, got -inf"),
        ({}, [A, B], {LENGTH_HEADER: "7 "}, ""),
        ({}, [A, B], {LENGTH_HEADER: "-1"}, "must be one number of bytes"),
        ({}, [A, B], {LENGTH_HEADER: "1e2"}, "must be one number of bytes"),
        ({}, [A, B], {LENGTH_HEADER: "99999999999999999999"}, "but the body has"),
        ({"parameters": {"binary_data_output": "yes"}}, [A, B], {}, "expected true or false"),
        ({"outputs": [{"name": "sum", "parameters": {"binary_data": 1}}]}, [A, B], {}, "outputs[0].parameters.binary_data"),
        ({"outputs": [{"name": "sum", "parameters": {"classification": 3}}]}, [A, B], {}, "classification"),
    ],
)  # fmt: skip
def test_every_length_and_form_is_checked(backend, body, behind, headers, said):
    answer = ask(backend, {"inputs": INPUTS, **body}, *behind, **headers)
    if said:
        assert said in refused(answer)
    else:
        assert refused(answer, 400, "malformed-json")
    assert ask(backend, {"inputs": INPUTS}, A, B).status == 200


def test_the_header_comes_once(backend):
    connection = backend.connect()
    connection.putrequest("POST", INFER)
    for _ in range(2):
        connection.putheader(LENGTH_HEADER, "2")
    connection.putheader("Content-Length", "2")
    connection.endheaders(b"{}")
    assert b"must be one number of bytes, got '2, 2'" in connection.getresponse().read()
    connection.close()


def test_without_the_header_a_body_is_json(backend):
    head = json.dumps({"inputs": INPUTS}).encode()
    assert f"needs the header {LENGTH_HEADER}" in refused(backend.post(INFER, head))
    refused(backend.post(INFER, head + A + B), 400, "malformed-json")
    refused(backend.post(INFER, head + A + B, OCTETS), 415, "unsupported-media-type")
    refused(
        backend.post("/predict", head + A + B, {LENGTH_HEADER: str(len(head)), **OCTETS}),
        415,
        "unsupported-media-type",
    )


def test_a_large_body_is_read_the_same_way(backend):
    rows = 5_000
    inputs = [tensor("a", "FP64", 8 * rows, (rows,)), tensor("b", "INT64", 8 * rows, (rows,))]
    a, b = np.arange(rows) / 3, np.arange(rows)
    answer = ask(
        backend, {"inputs": inputs, "parameters": {"binary_data_output": True}}, a.tobytes(), b.tobytes()
    )
    assert answer.status == 200, answer.body
    assert answer.body[int(answer.headers[LENGTH_HEADER]) :] == (a + b).tobytes()


# -- the bytes


@pytest.mark.parametrize(
    ("datatype", "values", "content"),
    [
        ("BOOL", [True, False], b"\1\0"),
        ("INT8", [-128, 127], b"\x80\x7f"),
        ("UINT8", [0, 255], b"\0\xff"),
        ("INT16", [-2], b"\xfe\xff"),
        ("UINT16", [65535], b"\xff\xff"),
        ("INT32", [-(2**31)], b"\0\0\0\x80"),
        ("UINT32", [2**32 - 1], b"\xff" * 4),
        ("INT64", [-(2**63), 2**53 + 1], struct.pack("<2q", -(2**63), 2**53 + 1)),
        ("UINT64", [2**64 - 1], b"\xff" * 8),
        ("FP16", [1.5, None], b"\0\x3e\0\x7e"),
        ("FP32", [0.5, None], struct.pack("<f", 0.5) + b"\0\0\xc0\x7f"),
        ("FP64", [-0.0, 5e-324, None], struct.pack("<2d", -0.0, 5e-324) + b"\0\0\0\0\0\0\xf8\x7f"),
        ("BYTES", ["", "é\0"], b"\0\0\0\0\3\0\0\0\xc3\xa9\0"),
    ],
)
def test_values_and_bytes(datatype, values, content):
    assert pack(values, datatype) == content
    read = listed(unpack(memoryview(content), datatype, [len(values)], "inputs[0]"))
    assert read == values
    assert [type(value) for value in read] == [type(value) for value in values]


def test_any_nan_is_missing_and_infinity_is_none_when_it_goes_out():
    signalling = b"\1\0\0\0\0\0\xf0\xff"
    assert listed(unpack(memoryview(signalling), "FP64", [1], "x")) == [None]
    assert pack([math.inf, -math.nan], "FP64") == b"\0\0\0\0\0\0\xf8\x7f" * 2
    assert pack([1, None], "INT64") is None
    assert pack(["a", None], "BYTES") is None


@pytest.mark.parametrize(
    ("datatype", "content", "said"),
    [
        ("BOOL", b"\1\2", "x.data[1]: expected a byte that is 0 or 1, got 2"),
        ("BYTES", b"\1\0\0\0a", "the shape means 2 texts, binary_data_size has 1 texts"),
        ("BYTES", b"\1\0\0\0a" * 3, "the shape means 2 texts, binary_data_size has 5 bytes more"),
        ("BYTES", b"\1\0\0\0a\2\0\0\0b", "the text 1 goes beyond the tensor's 10 bytes"),
        ("BYTES", b"\xff\xff\xff\xffa", "the text 0 goes beyond"),
        ("BYTES", b"\1\0\0", "the text 0 goes beyond"),
        ("BYTES", b"\1\0\0\0\xff\0\0\0\0", "x.data[0]: the text is not UTF-8"),
    ],
)
def test_wrong_bytes_are_told_with_their_place(datatype, content, said):
    with pytest.raises(Problem) as caught:
        unpack(memoryview(content), datatype, [2], "x")
    assert said in caught.value.detail


def test_all_inputs_in_one_tensor_and_both_forms_side_by_side():
    signature = Signature(inputs=(Tensor(name="a", datatype="FP64"), Tensor(name="b", datatype="INT64")))
    one = {"inputs": [tensor("all", "FP32", 16, (2, 2))]}
    assert read_tensors(one, signature, {}, memoryview(struct.pack("<4f", 1.5, 2, 0, 3))).rows == [
        [1.5, 2],
        [0, 3],
    ]
    both = {"inputs": [{"name": "b", "datatype": "INT8", "shape": [2], "data": [1, 2]}, INPUTS[0]]}
    assert read_tensors(both, signature, {}, memoryview(A)).rows == [[1.5, 1], [None, 2]]


def test_split_body_leaves_json_as_it_is():
    assert split_body(b"{}", []) == (b"{}", None)
    head, behind = split_body(b"{}ab", ["2"])
    assert (head, bytes(behind or b"")) == (b"{}", b"ab")


def test_texts_are_read_the_same_whether_all_are_ascii_or_not(monkeypatch):
    """ASCII is read in a shorter way, which must refuse and accept what the careful one does."""
    seeded = random.Random(20)
    pieces = ["", "a", "red", "x" * 300, "é", "\0", "日本"]
    contents = []
    for _ in range(300):
        texts = [seeded.choice(pieces if seeded.random() < 0.5 else pieces[:4]) for _ in range(4)]
        content = bytearray(pack(texts, "BYTES") or b"")
        if content and seeded.random() < 0.6:
            content[seeded.randrange(len(content))] = seeded.choice(b"\0\1\4\x7f\x80\xff")
        if seeded.random() < 0.2:
            del content[seeded.randrange(len(content) + 1) :]
        contents.append(bytes(content))
    both = []
    for shorter in (binary._ascii_texts, lambda _: None):
        monkeypatch.setattr(binary, "_ascii_texts", shorter)
        both.append([_texts_or_refusal(content) for content in contents])
    assert both[0] == both[1]
    assert {type(read) for read in both[0]} == {list, str}


def _texts_or_refusal(content: bytes) -> list[str] | str:
    try:
        texts: list[str] = unpack(memoryview(content), "BYTES", [4], "x")
    except Problem as problem:
        return problem.detail
    return texts


def test_integers_are_packed_only_where_all_fit():
    assert binary.pack_integers([127, -128], "INT8") == b"\x7f\x80"
    for value in (128, -129, 1.0, None, "1"):
        assert binary.pack_integers([value], "INT8") is None
