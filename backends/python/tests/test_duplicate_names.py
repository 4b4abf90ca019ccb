"""A name that stands twice in one object is refused, wherever it is; nothing else is."""

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from chips_backend import duplicate_names
from chips_backend.duplicate_names import repeated_name, strings_in, strings_in_text
from chips_backend.manifest import Signature, Tensor
from chips_backend.parse_body import parse
from chips_backend.problem_details import Problem
from chips_backend.typed_decoding import Instances
from chips_backend.typed_tensors import Tensors
from hypothesis import given
from hypothesis import strategies as st

SIGNATURE = Signature(
    inputs=(
        Tensor(name="x", datatype="FP64"),
        Tensor(name="kü", datatype="BYTES"),
        Tensor(name="n", datatype="INT64", categories=(1, 2)),
    )
)
TEXTS = st.text('a"\\/,:{}[]\u00fc\n', max_size=6)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)
WRITTEN = st.tuples(st.sampled_from([(",", ":"), (", ", ": "), ("\n,", " :\n")]), st.booleans())


@given(ANYTHING, WRITTEN)
def test_both_counts_agree_where_no_name_stands_twice(value: Any, written: Any):
    separators, is_ascii = written
    content = json.dumps(value, separators=separators, ensure_ascii=is_ascii).encode()
    assert strings_in_text(content) == strings_in(msgspec.json.decode(content))
    assert repeated_name(content) is None
    assert parse(content) == msgspec.json.decode(content)


def test_many_strings_are_counted_in_pieces(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(duplicate_names, "_PIECE_BYTES", 100)
    content = json.dumps([["a", None, 'b"', "c\\"]] * 500).encode()
    assert len(content) > duplicate_names._LARGE_BYTES
    assert strings_in_text(content) == 1500
    assert strings_in_text(b" " * 9_999 + content) == 1500


def twice(text: str, name: str) -> bytes:
    """`text` with the member `name` of its first object written a second time, after the others."""
    end = text.index("}")
    return f"{text[:end]},{json.dumps(name)}:null{text[end:]}".encode()


@given(
    st.dictionaries(TEXTS, st.integers() | TEXTS.map(lambda text: text.replace("}", "")), min_size=1), WRITTEN
)
def test_a_second_one_is_always_found(row: dict[str, Any], written: Any):
    row = {name.replace("}", ""): value for name, value in row.items()}
    separators, is_ascii = written
    name = list(row)[-1]
    content = twice(json.dumps([1, row], separators=separators, ensure_ascii=is_ascii), name)
    with pytest.raises(Problem) as caught:
        parse(content)
    assert (caught.value.status, caught.value.code) == (400, "malformed-json")
    assert f"the name {msgspec.json.encode(name).decode()} stands twice" in caught.value.detail
    assert repeated_name(content) == name


ROW = r'{"x": 1, "k\u00fc": "a\"b\\", "n": 1}'
TENSORS = (
    r'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [1]},'
    r'{"name": "k\u00fc", "datatype": "BYTES", "shape": [1], "data": ["a\"\\"]},'
    r'{"name": "n", "datatype": "INT64", "shape": [1], "data": [2], "parameters": {"content_type": "x"}}],'
    r' "id": "7", "parameters": null, "outputs": [], "model_name": "m"}'
)


@pytest.mark.parametrize(
    "text",
    [
        f'{{"instances": [{ROW}, {ROW}]}}',
        f'{{"parameters": null, "instances": [{ROW}]}}',
        f'{{"parameters": {{"p": {{"a": {{"b": "c"}}}}}}, "instances": [{ROW}]}}',
        '{"instances": [[1, "a", null], [1, null, 2]]}',
    ],
)
def test_rows_with_each_name_once_are_read_fast(text: str):
    assert Instances(SIGNATURE, {"p": "any"}).read(text.encode()) is not None


@pytest.mark.parametrize(
    "text",
    [
        f'{{"instances": [{ROW}, {ROW[:-1]}, "x": 2}}]}}',
        f'{{"instances": [{ROW[:-1]}, "\\u006b\\u00fc": "b"}}]}}',
        f'{{"instances": [{ROW}], "instances": [{ROW}]}}',
        f'{{"instances": [{ROW}], "parameters": null, "parameters": null}}',
        f'{{"instances": [{ROW}], "parameters": {{"p": 1, "p": 2}}}}',
        f'{{"instances": [{ROW}], "parameters": {{"p": [{{"a": 1, "a": 1}}]}}}}',
        '{"instances": [[1, "a", null]], "instances": [[1, "a", null]]}',
    ],
)
def test_rows_with_a_name_twice_are_not(text: str):
    assert Instances(SIGNATURE, {"p": "any"}).read(text.encode()) is None
    with pytest.raises(Problem, match="stands twice"):
        parse(text.encode())


def test_tensors_with_each_name_once_are_read_fast():
    assert Tensors(SIGNATURE, {}).read(TENSORS.encode(), None) is not None
    floats = Signature(inputs=(Tensor(name="x", datatype="FP64"),))
    text = b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "parameters": {"binary_data_size": 8}}]}'
    read = Tensors(floats, {}).read(text, memoryview(np.ones(1).tobytes()))
    assert read is not None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"id": "7"', '"id": "7", "id": "8"'),
        ('"parameters": null', '"parameters": null, "parameters": {}'),
        ('"model_name": "m"', '"model_name": "m", "model_name": "m"'),
        ('"name": "x"', '"name": "x", "name": "x"'),
        ('"data": [1]', '"data": [3], "data": [1]'),
        ('"shape": [1]', '"shape": [1], "shape": [1]'),
        ('{"content_type": "x"}', '{"content_type": "x", "content_type": "x"}'),
        (r'"data": ["a\"\\"]', r'"data": ["z"], "data": ["a\"\\"]'),
    ],
)
def test_tensors_with_a_name_twice_are_not(old: str, new: str):
    assert old in TENSORS
    text = TENSORS.replace(old, new, 1)
    assert Tensors(SIGNATURE, {}).read(text.encode(), None) is None
    with pytest.raises(Problem, match="stands twice"):
        parse(text.encode())


def test_in_a_long_text_the_name_is_not_looked_for():
    content = b'{"a": 1, "a": 2, "b": [' + b"1," * duplicate_names._NAMED_BYTES + b"1]}"
    with pytest.raises(Problem, match="a name stands twice"):
        parse(content)
