"""Long arrays of numbers are cut out and parsed apart only where that comes to what the careful reader comes to."""

import json
import math
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from chips_backend import number_arrays
from chips_backend.decode_instances import read_instances
from chips_backend.manifest import Signature, Tensor
from chips_backend.open_inference import read_tensors
from chips_backend.parse_body import parse
from chips_backend.problem_details import Problem
from chips_backend.typed_decoding import Instances
from chips_backend.typed_tensors import Tensors
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.skipif(number_arrays.Parser is None, reason="pysimdjson has no wheel here")

NUMBERS = Signature(inputs=tuple(Tensor(name=f"x{at}", datatype="FP64") for at in range(3)))
SINGLES = Signature(inputs=tuple(Tensor(name=f"x{at}", datatype="FP32") for at in range(3)))
COLUMNS = Signature(
    inputs=(
        Tensor(name="x", datatype="FP64"),
        Tensor(name="half", datatype="FP16"),
        Tensor(name="n", datatype="INT8"),
        Tensor(name="k", datatype="INT64"),
        Tensor(name="text", datatype="BYTES"),
    )
)
SHAPED = Signature(inputs=(Tensor(name="pixels", datatype="FP32", shape=(-1, 2, 2)),))
KNOWN = {"data": "any", "flag": "boolean"}


@contextmanager
def cutting() -> Iterator[list[int]]:
    """However short an array is, it is cut out. Gives the lengths of those that were parsed apart."""
    parsed: list[int] = []
    original = number_arrays.floats

    def floats(array: memoryview) -> Any:
        values = original(array)
        if values is not None:
            parsed.append(len(values))
        return values

    with patch.object(number_arrays, "LONG_BYTES", 0), patch.object(number_arrays, "floats", floats):
        yield parsed


def came(read: Any) -> Any:
    try:
        scoring = read()
    except Problem as problem:
        return problem.status, problem.code, problem.detail
    if scoring is None:
        return None
    rows = [list(row) for row in scoring.rows]
    places = [scoring.place(len(rows) - 1, None), scoring.place(0, 0)] if rows else []
    return repr((rows, scoring.parameters, scoring.outputs, scoring.id, places))


def agree(signature: Signature, body: bytes, behind: bytes | None = None, *, infer: bool) -> Any:
    """The fast reader leaves it to the careful one, or comes to the same, to the bit. Returns what the fast one came to."""
    view = None if behind is None else memoryview(behind)
    if infer:
        fast = came(lambda: Tensors(signature, KNOWN).read(body, view))
        careful = came(lambda: read_tensors(parse(body), signature, KNOWN, view))
    else:
        fast = came(lambda: Instances(signature, KNOWN).read(body))
        careful = came(lambda: read_instances(parse(body), signature, KNOWN))
    assert fast is None or fast == careful, body
    return fast


def matrix_body(values: str, rows: int = 2, width: int = 3, datatype: str = "FP64", **more: Any) -> bytes:
    extra = "".join(f', "{name}": {json.dumps(value)}' for name, value in more.items())
    tensor = f'{{"name": "all", "shape": [{rows}, {width}], "datatype": "{datatype}", "data": {values}}}'
    return f'{{"inputs": [{tensor}]{extra}}}'.encode()


# -- what it exists for


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_usual_requests_are_parsed_apart(separators: tuple[str, str]):
    chance = random.Random(3)
    rows = [[chance.gauss(0, 1) for _ in range(3)] for _ in range(200)]
    flat = [value for row in rows for value in row]
    tensor = {"name": "all", "shape": [200, 3], "datatype": "FP64", "data": flat}
    with patch.object(number_arrays, "floats", wraps=number_arrays.floats) as floats:
        for parameters in ({}, {"parameters": {"flag": True}}):
            body = json.dumps({"instances": rows, **parameters}, separators=separators).encode()
            assert agree(NUMBERS, body, infer=False) is not None
            body = json.dumps({"inputs": [tensor], **parameters}, separators=separators).encode()
            assert agree(NUMBERS, body, infer=True) is not None
        assert floats.call_count == 4


def test_each_column_by_its_datatype():
    tensors = [
        {"name": "x", "shape": [3], "datatype": "FP64", "data": [1.5, -2, 9007199254740993]},
        {"name": "half", "shape": [3, 1], "datatype": "FP32", "data": [65504, 1e-3, 0]},
        {"name": "n", "shape": [3], "datatype": "INT8", "data": [1, -128, 127]},
        {"name": "k", "shape": [3], "datatype": "INT64", "data": [9007199254740993, -(2**63), 2**63 - 1]},
        {"name": "text", "shape": [3], "datatype": "BYTES", "data": ["1", "]", '"data": [1]']},
    ]
    with cutting() as parsed:
        assert agree(COLUMNS, json.dumps({"inputs": tensors}).encode(), infer=True) is not None
    assert parsed == [3, 3]


def test_a_missing_value_is_read_as_before():
    with cutting() as parsed:
        assert agree(NUMBERS, matrix_body("[1, null, 3, 4, 5, 6]"), infer=True) is not None
        assert agree(NUMBERS, b'{"instances": [[1, null, 3], [4, 5, 6]]}', infer=False) is not None
    assert parsed == []


@pytest.mark.parametrize(
    ("datatype", "number"),
    [("INT8", 300), ("INT8", -129), ("UINT64", -1), ("UINT64", 2**64), ("INT64", 10**20), ("UINT8", 256)],
)
def test_a_number_that_does_not_fit_is_refused_also_next_to_a_missing_one(datatype: str, number: int):
    one = Signature(inputs=(Tensor(name="n", datatype=datatype),))
    for data in ([number, None], [None, number], [number, 1]):
        body = json.dumps(
            {"inputs": [{"name": "n", "shape": [2], "datatype": datatype, "data": data}]}
        ).encode()
        assert agree(one, body, infer=True) is None
        with pytest.raises(Problem, match="fit"):
            read_tensors(parse(body), one, KNOWN, None)


def test_a_tensor_in_json_next_to_one_in_binary_form():
    two = Signature(inputs=NUMBERS.inputs[:2])
    content = struct.pack("<2d", 1.0, math.nan)
    tensors = [
        {"name": "x0", "shape": [2], "datatype": "FP64", "data": [1, 2]},
        {"name": "x1", "shape": [2], "datatype": "FP64", "parameters": {"binary_data_size": len(content)}},
    ]
    with cutting() as parsed:
        assert agree(two, json.dumps({"inputs": tensors}).encode(), content, infer=True) is not None
    assert parsed == [2]


def test_without_simdjson_everything_is_read_all_the_same():
    with cutting() as parsed, patch.object(number_arrays, "Parser", None):
        assert agree(NUMBERS, matrix_body("[1, 2, 3, 4, 5, 6]"), infer=True) is not None
        assert agree(NUMBERS, b'{"instances": [[1, 2, 3], [4, 5, 6]]}', infer=False) is not None
    assert parsed == []


# -- strictness

VALUES = [
    "-0", "-0.0", "0e99999", "1e400", "-1e400", "1e-400", "5e-324", "2.4703282292062327e-324", "2.4703282292062328e-324",
    "1.7976931348623157e308", "1.7976931348623159e308", "9007199254740993", "9007199254740993.0", "9223372036854775808",
    "18446744073709551615", "18446744073709551616", "-9223372036854775809", "1" * 40, "9" * 400 + "e-380", "65504", "65505", "3.5e38",
    "NaN", "Infinity", "-Infinity", "nan", "true", "false", "null", '"1"', "[1]", "[]", "{}", '{"a": 1}', "01", "1.", ".5", "+1", "1e", "-",
    "1 2", "1,2", "1,,2", "", " ", "\x0b", "\x00", "1\x00", "é", "\ufeff", "\xa0", "0x1", "1_000", "1]", "[1", "]", "[", "],[", "1],[2", '"', "\\", "//",
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES)
def test_each_oddity_at_each_place(value: str):
    with cutting():
        for signature in (NUMBERS, SINGLES):
            for at in range(6):
                values = [*"123456"]
                values[at] = value
                for datatype in ("FP64", "FP32", "INT64"):
                    flat = f"[{', '.join(values)}]"
                    agree(signature, matrix_body(flat, datatype=datatype), infer=True)
                for comma in (",", ", "):
                    rows = comma.join(f"[{comma.join(values[at : at + 3])}]" for at in (0, 3))
                    agree(signature, f'{{"instances": [{rows}]}}'.encode(), infer=False)


@pytest.mark.parametrize(
    "instances",
    [
        "[[1, 2, 3], [4, 5, 6]]", "[[1,2,3],[4,5,6]]", "[[1, 2, 3],[4, 5, 6]]", "[[1,2,3], [4,5,6],[7,8,9]]", "[ [1, 2, 3] ]",
        "[[1, 2, 3] ,[4, 5, 6]]", "[[1, 2, 3],\n[4, 5, 6]]", "[[1, 2], [3, 4, 5, 6]]", "[[1, 2, 3, 4], [5, 6]]", "[[1, 2, 3], 4, 5, 6]",
        "[1, [2, 3], [4, 5, 6]]", "[[1, [2, 3]], [4, 5, 6]]", "[[[1, 2, 3], [4, 5, 6]]]", "[[1, 2, 3], [], [4, 5, 6]]", "[[], [1, 2, 3]]",
        "[[1, 2, 3]]", "[[]]", "[]", "[[1]]", "[[1, 2, 3]], [[4, 5, 6]]", "[[1, 2, 3], [4, 5, 6]", "[[1, 2, 3], [4, 5, 6]]]", "[[1, 2, 3],[ 4, 5, 6]]",
        "[[1,2,3],x[4,5,6]]", "[[1,2,3],5[4,5,6]]", "[[1,2,3]5,[4,5,6]]",
    ],
)  # fmt: skip
def test_rows_are_as_long_as_each_other(instances: str):
    ends = [
        "}",
        ', "parameters": {"flag": true}}',
        ', "parameters": {"data": [[1]]}}',
        ', "other": 1}',
        "",
        "}}",
    ]
    with cutting():
        for width in (1, 2, 3, 6):
            signature = Signature(inputs=tuple(Tensor(name=f"x{at}", datatype="FP64") for at in range(width)))
            for end in ends:
                agree(signature, f'{{"instances": {instances}{end}'.encode(), infer=False)


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs": [{"name": "all", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3], "data": [4, 5, 6]}]}',
        b'{"inputs": [{"name": "all", "name": "all", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}]}',
        b'{"inputs": [{"name": "all", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}], "parameters": {"data": [1, 2]}}',
        b'{"inputs": [{"name": "all", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3], "parameters": {"data": [1, 2]}}]}',
        b'{"data": [1, 2, 3], "inputs": [{"name": "all", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}]}',
        b'{"inputs": [{"name": "\\"data\\": [1, 2]", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}]}',
        b'{"id": "\\\\\\"data\\": [1, 2]", "inputs": [{"name": "a", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}]}',
        b'{"id": "data": [1], "inputs": [{"name": "a", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}]}',
        b'{"inputs": [{"name": "a", "shape": [1, 3], "datatype": "FP64", "data": "data": [1, 2, 3]}]}',
        b'{"inputs": [{"name": "a", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]]}',
        b'{"inputs": [{"name": "a", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3',
        b'{"inputs": [{"name": "a", "shape": [1, 3], "datatype": "FP64", "data":\x0b[1, 2, 3]}]}',
        b'{"inputs": [{"name": "a", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}]} ,',
        b'\xef\xbb\xbf{"inputs": [{"name": "a", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}]}',
        b'{"inputs": [{"name": "\xff", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}]}',
        b'{"inputs": [{"name": "a", "shape": [3, 1], "datatype": "FP64", "data": [[1], [2], [3]]}]}',
        b'{"inputs": [{"name": "a", "shape": [1, 3], "datatype": "BYTES", "data": [1, 2, 3]}]}',
    ],
)
def test_whatever_stands_around_it(body: bytes):
    with cutting():
        agree(NUMBERS, body, infer=True)


def test_a_mark_of_the_caller_is_a_text_like_any_other():
    with cutting():
        rest, cut = number_arrays.cut_data(matrix_body("[1, 2, 3, 4, 5, 6]"))
        (mark,) = cut
        assert agree(NUMBERS, rest, infer=True) is None
        rest, cut = number_arrays.cut_instances(b'{"instances": [[1, 2, 3]]}')
        assert agree(NUMBERS, rest, infer=False) is None
        # Where the array itself stands elsewhere, the mark does not make it the tensor's.
        body = b'{"parameters": {"data": [1, 2, 3]}, "inputs": [{"name": "a", "shape": [1, 3], "datatype": "FP64", "data": %s}]}'
        assert number_arrays._MARK.encode() in mark
        assert came(lambda: Tensors(NUMBERS, {}).read(body % mark, None)) is None


NUMBER = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(2**70), 2**70).map(str),
    st.decimals(allow_nan=False, allow_infinity=False).map(str).map(str.lower),
    st.builds(
        "{}{}.{}e{}".format,
        st.sampled_from(["", "-"]),
        st.integers(0, 10**25),
        st.integers(0, 10**25),
        st.integers(-340, 290),
    ),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(NUMBER, min_size=1, max_size=12))
@example(["1e23", "8.5e22", "9007199254740993e0", "0.1e-322"])
def test_each_number_is_read_to_the_bit(numbers: list[str]):
    text = f"[{','.join(numbers)}]".encode()
    values = number_arrays.floats(memoryview(text))
    if values is not None:
        wanted = [float(value) if type(value) is int else value for value in json.loads(text)]
        assert struct.pack(f"{len(wanted)}d", *wanted) == values.tobytes()
        assert np.isfinite(values).all()
        assert values.flags.writeable


PIECES = [
    *VALUES, '"data":[1,2,3]', '"data": [', '"instances":[[', "]]", "[[", ",", ":", "{", "}", '"x0":1', "\xff", "\n", "1e5", "-1.5", '"inputs"',
]  # fmt: skip


def mutated(chance: random.Random, body: bytes) -> bytes:
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        at, size = chance.randrange(len(body) + 1), chance.choice([0, 0, 1, 1, 2, 5])
        piece = chance.choice(PIECES).encode(chance.choice(["utf-8", "latin-1"]), "ignore")
        if chance.random() < 0.2:
            begin = chance.randrange(len(body) + 1)
            piece = body[begin : begin + chance.randrange(30)]
        body = body[:at] + piece + body[at + size :]
    return body


@pytest.mark.parametrize("seed", range(8))
def test_mutated_requests_come_to_the_same(seed: int):
    chance = random.Random(seed)
    column = {"name": "x", "shape": [3], "datatype": "FP64", "data": [1.5, -2, 3]}
    others = [
        {"name": "half", "shape": [3], "datatype": "FP16", "data": [1, 2, 3]},
        {"name": "n", "shape": [3], "datatype": "INT8", "data": [1, 2, 3]},
        {"name": "k", "shape": [3], "datatype": "INT64", "data": [1, 2, 3]},
        {"name": "text", "shape": [3], "datatype": "BYTES", "data": ["a", "b", "1"]},
    ]
    pixels = {"name": "pixels", "shape": [1, 2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}
    requests: list[tuple[Signature, bool, bytes]] = [
        (NUMBERS, True, matrix_body("[1.5, 2, -3, 4e0, 5, 6]")),
        (SINGLES, True, matrix_body("[1.5,2,-3,4e0,5,6]", datatype="FP32", id="a")),
        (COLUMNS, True, json.dumps({"inputs": [column, *others], "parameters": {"flag": True}}).encode()),
        (SHAPED, True, json.dumps({"inputs": [pixels]}).encode()),
        (NUMBERS, False, b'{"instances": [[1.5, 2, -3], [4e0, 5, 6]], "parameters": {"flag": true}}'),
        (SINGLES, False, b'{"instances":[[1.5,2,-3],[4e0,5,6],[7,8,9]]}'),
    ]
    with cutting() as parsed:
        for signature, infer, body in requests:
            before = len(parsed)
            assert agree(signature, body, infer=infer) is not None
            assert len(parsed) > before, "it is the fast way that is tried here"
        for _ in range(250):
            signature, infer, body = chance.choice(requests)
            agree(signature, mutated(chance, body), infer=infer)
