"""Two answers are compared output by output, whatever their form."""

import gzip
import json
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.shadow.compare_answers import AnswerComparison, compare_answers
from gateway.shadow.decode_answer import Answer


def answered(body: Any, status: int = 200, coding: str = "", tail: bytes | None = None) -> Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    if tail is not None:
        return Answer(status, raw + tail, coding, len(raw), 0.01)
    return Answer(status, raw, coding, None, 0.01)


def compared(a: Any, b: Any, tolerance: float = 1e-6, **tolerances: float) -> AnswerComparison:
    return compare_answers(answered(a), answered(b), tolerance, tolerances)


def told(comparison: AnswerComparison) -> list[tuple[str, str]]:
    return [(one.path, one.what) for one in comparison.differences]


def predictions(*rows: Any, version: str = "1") -> dict[str, Any]:
    return {"predictions": list(rows), "model": "wine", "version": version}


def test_the_version_that_answered_is_no_difference():
    found = compared(predictions(1.5, "red"), predictions(1.5, "red", version="2"))
    assert found.agrees
    assert found.outputs["predictions"].numbers == 1


@pytest.mark.parametrize(
    ("a", "b", "what"),
    [
        (predictions(1.0), predictions(1.1), [("predictions[0]", "number")]),
        (predictions("red"), predictions("blue"), [("predictions[0]", "label")]),
        (predictions(True), predictions(False), [("predictions[0]", "label")]),
        (predictions(1), predictions(True), [("predictions[0]", "type")]),
        (predictions(1), predictions("1"), [("predictions[0]", "type")]),
        (predictions(None), predictions(0), [("predictions[0]", "missing")]),
        (predictions(1, 2), predictions(1), [("predictions", "length")]),
        (predictions([1, [2, 3]]), predictions([1, [2, 4]]), [("predictions[0][1][1]", "number")]),
        (
            predictions({"price": 1, "sold": True}),
            predictions({"price": 2, "sold": True}),
            [("price[0]", "number")],
        ),
        (predictions({"price": 1}), predictions({"cost": 1}), [("price", "missing"), ("cost", "missing")]),
        (
            {"predictions": [1], "classes": ["a"]},
            {"predictions": [1], "classes": ["b"]},
            [("classes[0]", "label")],
        ),
        ({"choices": [{"text": "a"}]}, {"choices": [{"text": "b"}]}, [("choices[0].text", "label")]),
        ([1, 2], [1, 3], [("body[1]", "number")]),
        (b"plain text", b"plain text!", [("body", "bytes")]),
        (b"plain text", predictions(1), [("body", "missing"), ("predictions", "missing")]),
        (predictions(2**63), predictions(2**63 + 1), [("predictions[0]", "number")]),  # an id, say
        (predictions(4_000_001), predictions(4_000_002), [("predictions[0]", "number")]),
        (predictions(4_000_001.0), predictions(4_000_002), []),  # within the tolerance
        (
            {"id": "B07", "model": "m"},
            {"id": "B08", "model": "m"},
            [("id", "label")],
        ),  # nothing else is there
        (b'{"predictions": [NaN, 1.0]}', b'{"predictions": [NaN, 1.0000001]}', []),
        (b'{"predictions": [NaN]}', predictions(1.0), [("predictions[0]", "missing")]),
        (b'{"y": [Infinity]}', b'{"y": [-Infinity]}', [("y[0]", "number")]),
        (b'{"y": [Infinity]}', b'{"y": [Infinity]}', []),
        (predictions(10**400), predictions(1), [("predictions[0]", "number")]),
    ],
)
def test_what_differs_is_named_by_its_place(a: Any, b: Any, what: list[tuple[str, str]]):
    assert told(compared(a, b)) == what
    assert len(told(compared(b, a))) == len(what)


def test_a_status_is_compared_first_and_of_a_refusal_the_code_alone():
    good = answered(predictions(1))
    refused = answered({"code": "invalid-instances", "detail": "row 1"}, 422)
    assert told(compare_answers(good, refused, 0, {})) == [("", "status")]
    other_words = answered({"code": "invalid-instances", "detail": "row one"}, 422)
    assert compare_answers(refused, other_words, 0, {}).agrees
    other_code = answered({"code": "malformed-json"}, 422)
    assert told(compare_answers(refused, other_code, 0, {})) == [("code", "label")]


def test_numbers_agree_within_the_tolerance_of_their_output():
    a, b = predictions({"price": 1000.0, "rank": 1}), predictions({"price": 1000.5, "rank": 1})
    assert not compared(a, b).agrees
    assert compared(a, b, price=1e-3).agrees
    assert compared(a, b, 1e-3).agrees
    assert not compared(a, b, 1e-3, price=1e-9).agrees
    figures = compared(a, b).outputs["price"]
    assert (figures.numbers, figures.sum_difference, figures.largest) == (1, 0.5, 0.5)


def v2(*outputs: dict[str, Any]) -> dict[str, Any]:
    return {"model_name": "wine", "model_version": "1", "id": "7", "outputs": list(outputs)}


def tensor(name: str, datatype: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [2], **fields}


def test_tensors_in_json_are_outputs_by_name():
    a = v2(tensor("y", "FP64", data=[1.0, 2.0]), tensor("label", "BYTES", data=["a", "b"]))
    b = v2(tensor("label", "BYTES", data=["a", "c"]), tensor("y", "FP64", data=[1.0, 2.5]))
    assert told(compared(a, b)) == [("y.data[1]", "number"), ("label.data[1]", "label")]
    assert told(compared(a, v2(tensor("y", "FP32", data=[1.0, 2.0])))) == [
        ("y.datatype", "label"),
        ("label", "missing"),
    ]


def binary(values: list[float], texts: list[str]) -> Answer:
    numbers = struct.pack(f"<{len(values)}d", *values)
    words = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)
    head = v2(
        tensor("y", "FP64", parameters={"binary_data_size": len(numbers)}),
        tensor("label", "BYTES", parameters={"binary_data_size": len(words)}),
        tensor("z", "INT64", data=[1, 2]),
    )
    return answered(head, tail=numbers + words)


def test_tensors_in_binary_form_are_the_same_as_in_json():
    json_form = answered(
        v2(
            tensor("y", "FP64", data=[1.5, None]),
            tensor("label", "BYTES", data=["é", ""]),
            tensor("z", "INT64", data=[1, 2]),
        )
    )
    assert compare_answers(binary([1.5, float("nan")], ["é", ""]), json_form, 0, {}).agrees
    found = compare_answers(binary([1.5, 2.0], ["é", "x"]), binary([1.5, 2.25], ["é", "y"]), 0, {})
    assert told(found) == [("y.data[1]", "number"), ("label.data[1]", "label")]
    assert found.differences[0].amount == 0.25
    infinite = compare_answers(binary([1.5, float("inf")], []), binary([1.5, 1.0], []), 0, {})
    assert told(infinite) == [("y.data[1]", "number")]
    assert infinite.differences[0].amount is None


def test_a_body_that_is_not_what_its_head_says_is_told():
    good = binary([1.0, 2.0], ["a"])
    twice = answered(v2(tensor("y", "FP64", data=[9.0]), tensor("y", "FP64", data=[1.0])))
    assert told(compare_answers(answered(v2(tensor("y", "FP64", data=[1.0]))), twice, 0, {})) == [
        ("", "unreadable")
    ]
    for raw in (good.body[:-1], good.body + b"x"):
        bad = Answer(200, raw, "", good.json_length, 0.01)
        assert told(compare_answers(good, bad, 0, {})) == [("", "unreadable")]
    wrong = answered(v2(tensor("y", "FP64", parameters={"binary_data_size": 8})), tail=b"1234567")
    assert told(compare_answers(good, wrong, 0, {})) == [("", "unreadable")]
    assert told(compare_answers(answered(predictions(1)), answered(b"x", coding="gzip"), 0, {})) == [
        ("", "unreadable")
    ]


def test_content_encodings_are_undone():
    raw = json.dumps(predictions(1)).encode()
    assert compare_answers(answered(raw), answered(gzip.compress(raw), coding="gzip"), 0, {}).agrees
    for deflated in (zlib.compress(raw), zlib.compress(raw, wbits=-15)):
        assert compare_answers(answered(raw), answered(deflated, coding="Deflate"), 0, {}).agrees
    cut = gzip.compress(raw)[:-4]
    assert told(compare_answers(answered(raw), answered(cut, coding="gzip"), 0, {})) == [("", "unreadable")]


def test_a_body_of_several_gzip_members_is_compared_to_its_end():
    raw, other = json.dumps(predictions(1, 2)).encode(), json.dumps(predictions(1, 3)).encode()
    one, two = (
        answered(b"".join(gzip.compress(part) for part in (text[:17], text[17:])), coding="gzip")
        for text in (raw, other)
    )
    assert compare_answers(answered(raw), one, 0, {}).agrees
    found = compare_answers(one, two, 0, {})
    assert told(found) == [("predictions[1]", "number")]


@pytest.mark.parametrize("tail", [b"\0" * 8, b"x", b"\x1f"])
def test_what_follows_a_compressed_body_is_left_out(tail: bytes):
    raw = json.dumps(predictions(1)).encode()
    for coding, body in (("gzip", gzip.compress(raw)), ("deflate", zlib.compress(raw))):
        assert compare_answers(answered(raw), answered(body + tail, coding=coding), 0, {}).agrees


def test_a_body_of_many_members_is_not_compared():
    many = gzip.compress(b"") * 1100
    assert told(compare_answers(answered(many, coding="gzip"), answered(b"{}"), 0, {})) == [
        ("", "unreadable")
    ]


def test_without_an_output_the_versions_do_not_count():
    one, two = (
        answered({"model_name": "m", "model_version": version, "outputs": []}) for version in ("1", "2")
    )
    assert compare_answers(one, two, 0, {}).agrees


@pytest.mark.parametrize("datatype", ["BF16", "FP8", "INT4"])
def test_tensors_of_datatypes_that_the_protocol_lacks_are_compared_as_well(datatype: str):
    def of(raw: bytes) -> Answer:
        return answered(v2(tensor("y", datatype, parameters={"binary_data_size": len(raw)})), tail=raw)

    one = of(b"\x80\x3f\x00\x40")  # 1.0 and 2.0 as BF16
    assert compare_answers(one, of(b"\x80\x3f\x00\x40"), 0, {}).agrees
    found = compare_answers(one, of(b"\x80\x3f\x40\x40"), 0, {})
    assert told(found) == [("y.data[1]", "number") if datatype == "BF16" else ("y.data", "bytes")]
    assert datatype != "BF16" or found.outputs["y"].largest == 1.0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_what_is_the_same_agrees(value: Any):
    assert compared({"predictions": value}, {"predictions": value}, 0.0).agrees


@given(json_values, json_values)
def test_agreement_is_symmetric_and_no_value_is_kept(a: Any, b: Any):
    one, other = compared({"out": a}, {"out": b}, 0.0), compared({"out": b}, {"out": a}, 0.0)
    assert one.agrees == other.agrees
    assert one.agrees == (_typed(a) == _typed(b))
    assert all(difference.what in _WHATS for difference in one.differences)


_WHATS = {"number", "label", "missing", "type", "length", "status", "unreadable", "bytes"}


def _typed(value: Any) -> Any:
    """`value` with booleans and numbers told apart, and numbers of either type the same."""
    if isinstance(value, list):
        return [_typed(one) for one in value]
    if isinstance(value, dict):
        return {name: _typed(one) for name, one in value.items()}
    return ("bool", value) if isinstance(value, bool) else value


@given(
    st.binary(max_size=200), st.sampled_from(["", "gzip", "deflate", "br"]), st.none() | st.integers(0, 300)
)
def test_no_answer_ends_the_comparison(body: bytes, coding: str, length: int | None):
    one = Answer(200, body, coding, length, 0.0)
    compare_answers(one, answered(predictions(1)), 0.0, {})
    compare_answers(one, one, 0.0, {})


def nested(depth: int, value: int) -> Answer:
    return answered(b'{"predictions":' + b"[" * depth + b"%d" % value + b"]" * depth + b"}")


def test_what_is_nested_too_deeply_is_compared_by_its_bytes_or_not_at_all():
    # How deep a decoder goes depends on the release of Python: some thousands, or some tens of thousands.
    for depth in (200, 5_000, 100_000):
        assert compare_answers(nested(depth, 1), nested(depth, 1), 0.0, {}).agrees
    assert told(compare_answers(nested(100_000, 1), nested(100_000, 2), 0.0, {})) == [("body", "bytes")]
    assert told(compare_answers(nested(200, 1), nested(200, 2), 0.0, {})) == [("predictions", "unreadable")]


@pytest.mark.parametrize(
    "tensor",
    [
        {"parameters": [1]},
        {"parameters": "x"},
        {"parameters": {"binary_data_size": "4"}},
        {"parameters": {"binary_data_size": [4]}},
        {"parameters": {"binary_data_size": 4.0}},
        {"parameters": {"binary_data_size": True}},
        {"parameters": {"binary_data_size": -4}},
    ],
)
def test_a_tensor_that_is_none_is_unreadable_and_ends_no_process(tensor: dict[str, Any]):
    odd = {"outputs": [{"name": "a", "datatype": "FP32", "shape": [1], **tensor}]}
    assert compared(odd, odd).agrees, "the same bytes"
    assert told(compared(odd, {**odd, "more": 1})) == [("", "unreadable")]
    assert told(compared(predictions(1), odd)) == [("", "unreadable")]


def test_rows_with_names_of_their_own_are_one_output():
    """As columns they would need a place for each name in each row: the square of the answer."""
    before = [{f"word-{number}": number, "bias": 1} for number in range(3000)]
    after = [*before[:-1], {"word-2999": 7, "bias": 1}]
    found = compared({"predictions": before}, {"predictions": after})
    assert list(found.outputs) == ["predictions"]
    assert told(found) == [("predictions[2999].word-2999", "number")]
    rare = [{"price": 1.0}, {"price": 2.0}, {"price": 3.0, "why": "new"}]
    assert list(compared({"predictions": rare}, {"predictions": rare}).outputs) == ["price", "why"]
