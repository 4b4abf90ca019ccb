"""The fast readers and the careful ones are one: the same values, the same acceptance, the same texts."""

import json
import math
import pickle
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from chips_backend.column_block import Block, joined
from chips_backend.decode_instances import Scoring, read_instances
from chips_backend.input_tables import array_table, frame_table
from chips_backend.manifest import Signature, Tensor
from chips_backend.model import Refused
from chips_backend.open_inference import read_tensors
from chips_backend.parse_body import parse_json
from chips_backend.problem_details import Problem
from chips_backend.typed_decoding import Instances
from chips_backend.typed_tensors import Tensors
from hypothesis import given, settings
from hypothesis import strategies as st

KNOWN = {"flag": "boolean", "most": "integer"}
SIGNATURES = {
    "numbers": Signature(inputs=tuple(Tensor(name=f"x{at}", datatype="FP64") for at in range(3))),
    "small": Signature(inputs=(Tensor(name="half", datatype="FP16"), Tensor(name="single", datatype="FP32"))),
    "mixed": Signature(
        inputs=(
            Tensor(name="x", datatype="FP64"),
            Tensor(name="n", datatype="INT8"),
            Tensor(name="k", datatype="INT64"),
            Tensor(name="u", datatype="UINT64"),
            Tensor(name="ok", datatype="BOOL"),
            Tensor(name="text é", datatype="BYTES"),
            Tensor(name="colour", datatype="BYTES", categories=("red", "green")),
            Tensor(name="size", datatype="INT16", categories=(3, 1)),
        )
    ),
    "one": Signature(inputs=(Tensor(name="x", datatype="FP32"),)),
    "shaped": Signature(
        inputs=(
            Tensor(name="pixels", datatype="FP32", shape=(-1, 2, 2)),
            Tensor(name="codes", datatype="UINT8", shape=(-1, -1)),
        )
    ),
}


def outcome(read: Callable[[], Scoring | None]) -> Any:
    """What came of it, with all types: rows, parameters, outputs, forms, id and places; or the problem."""
    try:
        scoring = read()
    except Problem as problem:
        return problem.status, problem.code, problem.detail
    if scoring is None:
        return None
    rows = [list(row) for row in scoring.rows]
    places = [scoring.place(0, None), scoring.place(0, 0)] if rows else []
    return repr(
        (
            rows,
            scoring.parameters,
            scoring.outputs,
            scoring.forms("y"),
            scoring.forms("z"),
            scoring.id,
            places,
        )
    )


def agree(signature: Signature, body: bytes, behind: bytes | None = None, *, infer: bool) -> Any:
    """Both readers on one body: the fast one leaves it to the other, or comes to the same. Returns what the fast one came to."""
    view = None if behind is None else memoryview(behind)
    if infer:
        fast = outcome(lambda: Tensors(signature, KNOWN).read(body, view))
        careful = outcome(lambda: read_tensors(parse_json(body), signature, KNOWN, view))
    else:
        fast = outcome(lambda: Instances(signature, KNOWN).read(body))
        careful = outcome(lambda: read_instances(parse_json(body), signature, KNOWN))
    assert fast is None or fast == careful, (body, behind)
    return fast


# -- bodies that hypothesis makes: mostly right, sometimes wrong in one place

NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-300, 300),
    st.integers(-(2**65), 2**65),
    st.sampled_from([-0.0, 5e-324, 65504.5, 3.5e38, 2.0**53 + 2, 1.0, 1e3, 127.0, 128]),
)
ODD: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=3),
    NUMBERS,
    st.just([]),
    st.just({}),
    st.just([[1, 2], [3, 4]]),
)


def values_of(tensor: Tensor, dimension: int = 1) -> st.SearchStrategy[Any]:
    if dimension < len(tensor.shape):
        size = tensor.shape[dimension]
        inner = values_of(tensor, dimension + 1)
        least, most = (size, size) if size >= 0 else (1, 3)
        return st.lists(inner, min_size=least, max_size=most)
    if tensor.categories is not None:
        return st.sampled_from([*tensor.categories, None])
    kind = tensor.datatype
    if kind == "BYTES":
        return st.one_of(st.text(max_size=5), st.none())
    if kind == "BOOL":
        return st.one_of(st.booleans(), st.none())
    if kind.startswith("FP"):
        return st.one_of(st.floats(-1000, 1000, width=16), st.none(), NUMBERS)
    return st.one_of(st.integers(0, 100), st.none())


@st.composite
def instances(draw: st.DrawFn, signature: Signature) -> dict[str, Any]:
    inputs = signature.inputs
    row_of: st.SearchStrategy[Any] = st.tuples(*map(values_of, inputs))
    rows = draw(st.lists(row_of, min_size=0, max_size=4))
    as_object = draw(st.booleans())
    made: list[Any] = [
        dict(zip((t.name for t in inputs), row, strict=True)) if as_object else list(row) for row in rows
    ]
    is_odd: bool = draw(st.booleans())
    if made and is_odd:
        row = made[draw(st.integers(0, len(made) - 1))]
        keys: list[Any] = list(row) if isinstance(row, dict) else list(range(len(row)))
        key = draw(st.sampled_from(keys))
        row[key] = draw(ODD)
    if made and draw(st.integers(0, 9)) == 0:
        made.append(draw(st.one_of(ODD, st.just({"x": 1}), st.just([1]))))
    body: dict[str, Any] = {"instances": made}
    if draw(st.booleans()):
        body["parameters"] = draw(
            st.sampled_from([None, {}, {"flag": True}, {"flag": 1}, {"other": 1}, [], "x"])
        )
    return body


@st.composite
def tensors(draw: st.DrawFn, signature: Signature) -> tuple[dict[str, Any], bytes | None]:
    inputs, count = signature.inputs, draw(st.integers(0, 3))
    behind: list[bytes] = []
    made = []
    for tensor in inputs:
        column = [draw(values_of(tensor)) for _ in range(count)]
        array = np.array([list(np.ravel(np.array(value, dtype=object))) for value in column], dtype=object)
        shape = [count, *np.shape(column[0])] if column and isinstance(column[0], list) else [count]
        flat = array.ravel().tolist() if column else []
        datatype = draw(
            st.sampled_from([tensor.datatype] * 6 + ["FP64", "INT64", "BYTES", "BOOL", "FP16", "FP99"])
        )
        one: dict[str, Any] = {"name": tensor.name, "shape": shape, "datatype": datatype}
        if draw(st.integers(0, 2)) == 0 and datatype == "FP64":
            content = struct.pack(
                f"<{len(flat)}d", *(math.nan if not isinstance(v, float) else v for v in flat)
            )
            behind.append(content)
            one["parameters"] = {"binary_data_size": len(content) + draw(st.sampled_from([0, 0, 0, 0, 1]))}
        else:
            one["data"] = column if draw(st.booleans()) else flat
        made.append(one)
    if count and draw(st.booleans()):
        one = made[draw(st.integers(0, len(made) - 1))]
        where = draw(st.sampled_from(["shape", "name", "data", "odd"]))
        if where == "odd" and isinstance(one.get("data"), list) and one["data"]:
            one["data"][draw(st.integers(0, len(one["data"]) - 1))] = draw(ODD)
        elif where != "odd":
            one[where] = draw(st.sampled_from([[count, 1], [count, 2], "z", [1.0, None], None, [0]]))
    if draw(st.integers(0, 4)) == 0:
        width = len(inputs)
        data = draw(st.lists(NUMBERS | st.none(), min_size=2 * width, max_size=2 * width))
        kind = draw(st.sampled_from(["FP64", "FP32", "FP16", "INT64"]))
        made, behind = [{"name": "all", "shape": [2, width], "datatype": kind, "data": data}], []
    body: dict[str, Any] = {"inputs": made}
    body |= draw(
        st.sampled_from(
            [{}, {}, {"id": "a"}, {"id": 1}, {"parameters": {"binary_data_output": True}}, {"outputs": [{"name": "y"}]},
             {"parameters": {"flag": "x"}}, {"outputs": 1}, {"other": 1}, {"model_name": None}]
        )
    )  # fmt: skip
    return body, b"".join(behind) if behind or draw(st.integers(0, 9)) == 0 else None


def written(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("name", SIGNATURES)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_both_readers_of_instances_agree(name: str, data: st.DataObject):
    signature = SIGNATURES[name]
    agree(signature, written(data.draw(instances(signature))), infer=False)


@pytest.mark.parametrize("name", SIGNATURES)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_both_readers_of_tensors_agree(name: str, data: st.DataObject):
    signature = SIGNATURES[name]
    body, behind = data.draw(tensors(signature))
    agree(signature, written(body), behind, infer=True)


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [[-0, 1e-400, 9007199254740993]]}',
        b'{"instances": [[1e400, 1, 1]]}',
        b'{"instances": [[1, 2, 3]]} x',
        b'{"instances": [["\xff", 2, 3]]}',
        b'{"instances": [[1, 2, 3]], "instances": [[4, 5, 6]]}',
        b'{"instances": [{"x0": 9, "x0": 1, "x1": 2, "\\u00782": 3}]}',
        b'{"instances": [[123456789012345678901234567890, 2, 3]]}',
        b'{"parameters": [1], "instances": [[1, 2, 3]]}',
        b'{"parameters": {"x": "["}, "instances": [[1, 2, 3]]}',
        b'{"instances": [[1, 2, 3], {"x0": 1, "x1": 2, "x2": 3}]}',
    ],
)
def test_oddities_of_json(body: bytes):
    agree(SIGNATURES["numbers"], body, infer=False)


# -- what the fast readers exist for is read by them


@pytest.mark.parametrize("name", ["numbers", "mixed", "small"])
@pytest.mark.parametrize("as_object", [True, False])
def test_usual_instances_are_read_fast(name: str, *, as_object: bool):
    row = (
        [1.5, 2, 3, 2**63 - 1, True, "ü", "red", 3]
        if name == "mixed"
        else [1.5, None, -2][: len(SIGNATURES[name].inputs)]
    )
    names = [tensor.name for tensor in SIGNATURES[name].inputs]
    rows = [dict(zip(names, row, strict=True)) if as_object else row] * 2
    assert agree(SIGNATURES[name], written({"instances": rows}), infer=False) is not None


def test_usual_tensors_are_read_fast():
    flat = {"inputs": [{"name": "all", "shape": [2, 3], "datatype": "FP64", "data": [1, 2.5, None, 4, 5, 6]}]}
    assert agree(SIGNATURES["numbers"], written(flat), infer=True) is not None
    content = struct.pack("<6f", 1, 2, math.nan, 4, 5, 6)
    one = {
        "name": "all",
        "shape": [2, 3],
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(content)},
    }
    assert agree(SIGNATURES["numbers"], written({"inputs": [one]}), content, infer=True) is not None
    row = [1.5, 2, 3, 2**63 - 1, True, "ü", "red", 3]
    columns = [
        {"name": tensor.name, "shape": [2, 1], "datatype": tensor.datatype, "data": [value, value]}
        for tensor, value in zip(SIGNATURES["mixed"].inputs, row, strict=True)
    ]
    assert agree(SIGNATURES["mixed"], written({"inputs": columns}), infer=True) is not None
    shaped = [
        {"name": "pixels", "shape": [1, 2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]},
        {"name": "codes", "shape": [1, 3], "datatype": "UINT8", "data": [1, 2, 255]},
    ]
    assert agree(SIGNATURES["shaped"], written({"inputs": shaped}), infer=True) is not None


def test_thousands_of_inputs_have_a_type_too():
    wide = Signature(inputs=tuple(Tensor(name=f"x{at}", datatype="FP64") for at in range(3_000)))
    row = [float(at) for at in range(3_000)]
    for made in (row, dict(zip((t.name for t in wide.inputs), row, strict=True))):
        assert agree(wide, written({"instances": [made]}), infer=False) is not None


# -- rows by column


def block() -> Block:
    return Block([np.array([1.5, math.nan]), np.array([1, 2], dtype=np.int8), ["a", None], [None, 3]])


ROWS: list[Any] = [[1.5, 1, "a", None], [None, 2, None, 3]]


def test_a_block_is_a_sequence_of_rows():
    assert len(block()) == 2
    assert list(block()) == ROWS
    assert block()[1] == ROWS[1]
    assert list(block()[1:]) == ROWS[1:]
    assert list(pickle.loads(pickle.dumps(block()))) == ROWS  # noqa: S301  (made here)
    assert list(joined([block(), block()])) == ROWS * 2
    assert joined([block(), ROWS]) == ROWS * 2
    assert list(joined([block()])) == ROWS


def test_a_matrix_is_joined_as_one():
    one, other = Block(matrix=np.array([[1.0, 2.0]])), Block(matrix=np.array([[3.0, math.nan]]))
    both = joined([one, other])
    assert isinstance(both, Block)
    assert both.matrix is not None
    assert list(both) == [[1.0, 2.0], [3.0, None]]


@pytest.mark.parametrize("name", ["numbers", "small", "one", "mixed", "shaped"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_table_is_the_same_from_a_block_and_from_lists(name: str, data: st.DataObject):
    signature = SIGNATURES[name]
    scoring = Instances(signature, KNOWN).read(written(data.draw(instances(signature))))
    if scoring is None:
        return
    lists = [list(row) for row in scoring.rows]
    assert same_table(array_table(signature), scoring.rows, lists)
    if name == "mixed":
        names = [tensor.name for tensor in signature.inputs][::-1]
        table = frame_table(signature, names, categories={"colour": ("red", "green")})
        left, right = table(scoring.rows), table(lists)
        assert left.dtypes.equals(right.dtypes)
        assert left.equals(right)
    if name == "numbers":
        left, right = (frame_table(signature, ["x2", "x0", "x1"])(rows) for rows in (scoring.rows, lists))
        assert left.dtypes.equals(right.dtypes)
        assert left.equals(right)


def same_table(table: Any, rows: Any, lists: Any) -> bool:
    made = []
    for each in (rows, lists):
        try:
            made.append(table(each))
        except Refused as refused:
            made.append((str(refused), refused.row, refused.field))
    left, right = made
    if isinstance(left, tuple) or isinstance(right, tuple):
        return bool(left == right)
    return (
        left.dtype == right.dtype
        and left.shape == right.shape
        and repr(left.tolist()) == repr(right.tolist())
    )
