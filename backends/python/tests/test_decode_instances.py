# Long: one table of inputs and what is said of them.
"""A caller's JSON, good and bad: rows in the order of the signature, or a problem that says where it is."""

import json
import math
from typing import Any

import msgspec
import pytest
from chips_backend import parse_body
from chips_backend.decode_instances import read_instances
from chips_backend.manifest import Signature, Tensor
from chips_backend.open_inference import read_tensors, tensor_outputs
from chips_backend.parse_body import parse_json, parse_large
from chips_backend.problem_details import Problem
from hypothesis import given
from hypothesis import strategies as st

INPUTS = (
    Tensor(name="x", datatype="FP64"),
    Tensor(name="n", datatype="INT8"),
    Tensor(name="ok", datatype="BOOL"),
    Tensor(name="kind", datatype="BYTES"),
    Tensor(name="pixels", datatype="UINT8", shape=(-1, 2, 2)),
)
SIGNATURE = Signature(inputs=INPUTS, outputs=(Tensor(name="y", datatype="INT64"),))
ROW = [1.5, -128, True, "red", [[0, 255], [1, 2]]]
BY_NAME = dict(zip([tensor.name for tensor in INPUTS], ROW, strict=True))


def changed(**fields):
    return {**BY_NAME, **fields}


GOOD = [
    (ROW, ROW),
    (BY_NAME, ROW),
    (dict(reversed(BY_NAME.items())), ROW),
    ([None] * 5, [None] * 5),
    (changed(x=None), [None, *ROW[1:]]),
    (changed(x=3), [3, *ROW[1:]]),
    (changed(x=-0.0), [-0.0, *ROW[1:]]),
    (changed(x=1.7976931348623157e308), [1.7976931348623157e308, *ROW[1:]]),
    (changed(x=2**60), [2**60, *ROW[1:]]),
    (changed(n=127), [1.5, 127, *ROW[2:]]),
    (changed(ok=False), [1.5, -128, False, *ROW[3:]]),
    (changed(kind=""), [1.5, -128, True, "", ROW[4]]),
    (changed(kind="Grüße 🍷 \u0000"), [1.5, -128, True, "Grüße 🍷 \u0000", ROW[4]]),
    (changed(pixels=[[None, 0], [0, 0]]), [*ROW[:4], [[None, 0], [0, 0]]]),
    (changed(pixels=None), [*ROW[:4], None]),
]
BAD = [
    (7, "instances[0]: expected an object or an array, got a number"),
    (None, "instances[0]: expected an object or an array, got null"),
    ("red", "instances[0]: expected an object or an array, got a string"),
    (True, "instances[0]: expected an object or an array, got a boolean"),
    ([], "instances[0]: expected 5 values, got 0"),
    ([*ROW, 1], "instances[0]: expected 5 values, got 6"),
    ({}, "instances[0].x is missing"),
    ({name: BY_NAME[name] for name in ("x", "n", "ok", "kind")}, "instances[0].pixels is missing"),
    (changed(color=1), 'instances[0]: there is no input "color"'),
    (changed(x="high"), 'instances[0].x: expected a number, got "high"'),
    (changed(x=True), "instances[0].x: expected a number, got true"),
    (changed(x=[1]), "instances[0].x: expected a number, got an array"),
    (changed(x={}), "instances[0].x: expected a number, got an object"),
    (changed(x=10**400), "instances[0].x: expected FP64, got "),
    (changed(n=128), "instances[0].n: expected INT8, got 128, which does not fit"),
    (changed(n=-129), "instances[0].n: expected INT8, got -129, which does not fit"),
    (changed(n=True), "instances[0].n: expected an integer, got true"),
    (changed(n="1"), 'instances[0].n: expected an integer, got "1"'),
    (changed(ok=1), "instances[0].ok: expected true or false, got 1"),
    (changed(ok="true"), 'instances[0].ok: expected true or false, got "true"'),
    (changed(kind=1), "instances[0].kind: expected a string, got 1"),
    (changed(kind=["red"]), "instances[0].kind: expected a string, got an array"),
    (changed(kind=False), "instances[0].kind: expected a string, got false"),
    (changed(pixels=7), "instances[0].pixels: expected an array, got a number"),
    (changed(pixels=[1, 2]), "instances[0].pixels[0]: expected an array, got a number"),
    (changed(pixels=[[1, 2]]), "instances[0].pixels: expected 2 values, got 1"),
    (changed(pixels=[[1, 2], [3]]), "instances[0].pixels[1]: expected 2 values, got 1"),
    (
        changed(pixels=[[1, 2], [3, 256]]),
        "instances[0].pixels[1][1]: expected UINT8, got 256, which does not fit",
    ),
    (changed(pixels=[[1, 2], [3, -1]]), "instances[0].pixels[1][1]: expected UINT8, got -1"),
    ([*ROW[:4], [[1, 2], [3, "4"]]], 'instances[0][4][1][1]: expected an integer, got "4"'),
    (
        changed(kind=1, x="a"),
        'instances[0].x: expected a number, got "a"; instances[0].kind: expected a string, got 1',
    ),
]


@pytest.mark.parametrize(("instance", "row"), GOOD)
def test_a_good_instance_becomes_a_row(instance, row):
    scoring = read_instances(json_round({"instances": [instance, BY_NAME]}), SIGNATURE)
    assert scoring.rows == [row, ROW]
    assert scoring.parameters == {}


@pytest.mark.parametrize(("instance", "detail"), BAD)
def test_a_bad_instance_is_told_with_its_place(instance, detail):
    problem = refused(read_instances, {"instances": [instance]})
    assert (problem.status, problem.code) == (422, "invalid-instances")
    assert problem.detail.startswith(detail)


BODIES: list[tuple[Any, str]] = [
    ([], "expected an object with"),
    (None, "expected an object with"),
    ({}, "instances is missing"),
    ({"instances": None}, "instances must be an array, got null"),
    ({"instances": {"0": ROW}}, "instances must be an array, got an object"),
    ({"instances": [ROW], "parameters": []}, "parameters must be an object, got an array"),
    ({"instances": [ROW], "parameters": "fast"}, "parameters must be an object, got a string"),
]


@pytest.mark.parametrize(("body", "detail"), BODIES)
def test_a_body_of_another_shape_is_refused(body, detail):
    assert refused(read_instances, body).detail.startswith(detail)


def test_no_instances_are_no_rows_and_parameters_are_handed_on():
    read = read_instances(
        {"instances": [], "parameters": {"a": [1], "b": None}}, SIGNATURE, {"a": "any", "b": "boolean"}
    )
    assert (read.rows, read.parameters, read.id) == ([], {"a": [1]}, None)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (
            {"instances": [], "parameters": {"probabilty": True}},
            'parameters: this model does not know "probabilty"; those it knows are flag, most',
        ),
        (
            {"instances": [], "parameters": {"flag": "false"}},
            'parameters.flag: expected true or false, got "false"',
        ),
        ({"instances": [], "parameters": {"flag": 1}}, "parameters.flag: expected true or false, got 1"),
        ({"instances": [], "parameters": {"most": 1.5}}, "parameters.most: expected an integer, got 1.5"),
        (
            {"instances": [], "flag": True},
            'there is no field "flag" here; the request has instances, parameters',
        ),
    ],
)
def test_what_nobody_knows_is_refused_and_not_ignored(body, detail):
    with pytest.raises(Problem) as caught:
        read_instances(body, SIGNATURE, {"flag": "boolean", "most": "integer"})
    assert (caught.value.status, caught.value.detail) == (422, detail)


COLOURS = Signature(
    inputs=(
        Tensor(name="colour", datatype="BYTES", categories=("red", "green")),
        Tensor(name="size", datatype="INT8", categories=(3, 1)),
    )
)


def test_categories_are_all_there_is():
    assert read_instances({"instances": [["red", 1.0], [None, None]]}, COLOURS).rows == [
        ["red", 1],
        [None, None],
    ]
    detail = refused(
        read_instances, {"instances": [["red", 1], {"colour": "teal", "size": 2}]}, COLOURS
    ).detail
    assert detail == (
        'instances[1].colour: expected one of "red", "green", got "teal"; '
        "instances[1].size: expected one of 3, 1, got 2"
    )


@pytest.mark.parametrize("value", [1.0, 1e3, -0.0, 2.0**53])
def test_an_integer_may_be_written_as_pandas_writes_it(value):
    (row,) = read_instances(
        {"instances": [[value]]}, Signature(inputs=(Tensor(name="n", datatype="INT64"),))
    ).rows
    assert row == [value]
    assert type(row[0]) is int


@pytest.mark.parametrize("value", [1.5, 2.0**53 + 2, 1e300])
def test_a_fraction_and_a_rounded_number_are_no_integers(value):
    detail = refused(
        read_instances, {"instances": [[value]]}, Signature(inputs=(Tensor(name="n", datatype="INT64"),))
    ).detail
    assert detail.startswith("instances[0][0]: expected an integer")


def test_ten_problems_are_told_and_the_rest_is_counted():
    detail = refused(read_instances, {"instances": [[]] * 5000}).detail
    assert detail.count("instances[") == 10
    assert detail.endswith("; and more")


def test_a_long_value_is_cut():
    detail = refused(read_instances, {"instances": [changed(x="high" * 1000)]}).detail
    assert len(detail) < 120


def test_without_a_signature_instances_are_taken_as_they_are():
    assert read_instances({"instances": [{"any": 1}, [2]]}, Signature()).rows == [{"any": 1}, [2]]


# -- JSON

NO_JSON = [
    (b"", 'the body is empty: send JSON, such as {"instances": [...]}'),
    (b"   ", "the body is empty"),
    (b'\xef\xbb\xbf{"a": 1}', "byte order mark"),
    (b'{"a": 1e400}', "send null for a missing value"),
    (b"instances", "line 1, column 1"),
    (b'{"instances": [1,\n  2,\n  oops]}', "line 3, column 3"),
    (b'{"a": 1,}', "column"),
    (b'{"a": NaN}', "column 7; JSON has no NaN and no Infinity: send null"),
    (b'{"a": Infinity}', "column 7"),
    (b'{"a": 01}', "column"),
    (b"{'a': 1}", "column 2"),
    (b'{"a": 1} {"b": 2}', "column"),
    (b'{"a": "\xff"}', "UTF-8"),
    (b'{"a": "\xc3"}', "UTF-8: line 1, column 8"),
    (b'{"a":\n "ab\xff"}', "UTF-8: line 2, column 5"),
    (b"[1] x", "trailing characters at line 1, column 5"),
    (b'\xff\xfe{"a": 1}', "the body is UTF-16: send UTF-8"),
    (b"[" * 200_000, "nested too deeply"),
    (b'{"a":' * 200_000, "nested too deeply"),
    (b'{"a": "\\ud800"}', "the body is not JSON"),
]


@pytest.mark.parametrize(("content", "detail"), NO_JSON)
def test_what_is_no_json_is_refused_with_its_place(content, detail):
    with pytest.raises(Problem) as caught:
        parse_json(content)
    assert (caught.value.status, caught.value.code) == (400, "malformed-json")
    assert detail in caught.value.detail, caught.value.detail


ROWS_OF_ANYTHING = st.lists(
    st.recursive(
        st.none() | st.booleans() | st.integers(-5, 5) | st.text('a,]}[{"\\\u00fc', max_size=4),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
        max_leaves=5,
    ),
    min_size=1,
    max_size=6,
)


@given(ROWS_OF_ANYTHING, st.sampled_from([(",", ":"), (", ", ": "), ("\n,", " :\n")]), st.booleans())
def test_a_large_body_parsed_in_pieces_is_the_same(rows, separators, late):
    times = 20_000 // len(json.dumps(rows)) + 1
    document: dict[str, Any] = {"instances": rows * times, "parameters": {"a": rows}}
    if late:
        document = {
            "inputs": [{"data": rows * times, "name": "x"}, {"name": "y", "data": rows * times}],
            "id": "data",
        }
    content = json.dumps(document, separators=separators).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parse_body, "_PIECE_BYTES", 500)
        assert parse_large(content) == document
        for wrong in (
            content[:-1],
            content[: len(content) // 2],
            content + b"]",
            content.replace(b"]", b"}", 1),
        ):
            assert outcome(parse_large, wrong) == outcome(parse_json, wrong)


def outcome(parse: Any, content: bytes) -> Any:
    try:
        return parse(content)
    except Problem as problem:
        return problem.detail


@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_a_problem(content):
    try:
        parse_json(content)
    except Problem as problem:
        problem.render("id", open_inference=True).decode()


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["instances", "inputs", "name", "x", "data", "shape", "datatype"]), inner
        )
    ),
    max_leaves=12,
)


@given(JSON_VALUES, st.booleans())
def test_any_json_is_rows_or_a_problem_of_the_caller(body, nested):
    body = {"instances": [body], "inputs": [body]} if nested else body
    for read in (read_instances, read_tensors):
        try:
            scoring = read(body, SIGNATURE)
        except Problem as problem:
            status = problem.status
            problem.render("id", open_inference=False)
        else:
            status = 422
            assert all(len(row) == len(INPUTS) for row in scoring.rows)
        assert status == 422


ROWS = st.tuples(
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    st.none() | st.integers(-128, 127),
    st.none() | st.booleans(),
    st.none() | st.text(max_size=5),
    st.lists(st.lists(st.integers(0, 255), min_size=2, max_size=2), min_size=2, max_size=2),
).map(list)


@given(st.lists(st.tuples(ROWS, st.booleans(), st.randoms())))
def test_the_order_and_the_form_of_instances_change_nothing(drawn):
    instances = []
    for row, by_name, random in drawn:
        items = list(zip([tensor.name for tensor in INPUTS], row, strict=True))
        random.shuffle(items)
        instances.append(dict(items) if by_name else row)
    scoring = read_instances(parse_json(msgspec.json.encode({"instances": instances})), SIGNATURE)
    assert scoring.rows == [row for row, _, _ in drawn]


# -- tensors

NUMBERS = Signature(
    inputs=(Tensor(name="a", datatype="FP64"), Tensor(name="b", datatype="INT64")),
    outputs=(Tensor(name="y", datatype="FP64"),),
)


def tensor(name, data, datatype="FP64", shape=None):
    return {
        "name": name,
        "shape": [len(data)] if shape is None else shape,
        "datatype": datatype,
        "data": data,
    }


GOOD_TENSORS = [
    ([tensor("a", [1.5, 2]), tensor("b", [3, 4], "INT64")], [[1.5, 3], [2, 4]]),
    ([tensor("b", [3, 4], "INT64"), tensor("a", [1.5, 2])], [[1.5, 3], [2, 4]]),
    ([tensor("a", [1.5], shape=[1, 1]), tensor("b", [[3]], "INT64", [1, 1])], [[1.5, 3]]),
    ([tensor("x", [1, 2, 3, 4], "INT32", [2, 2])], [[1, 2], [3, 4]]),
    ([tensor("x", [[1, 2], [3, 4]], "INT32", [2, 2])], [[1, 2], [3, 4]]),
    ([tensor("a", []), tensor("b", [], "INT64")], []),
    ([tensor("x", [], "FP64", [0, 2])], []),
    ([tensor("a", [None]), tensor("b", [None], "INT64")], [[None, None]]),
]
BAD_TENSORS: list[tuple[Any, str]] = [
    (None, "inputs must be an array"),
    ([], "inputs must be an array with at least one tensor"),
    ({"a": 1}, "inputs must be an array"),
    ([1], "inputs[0]: expected an object, got a number"),
    ([{}], "inputs[0].name must be a string"),
    ([tensor("a", [1.0], "FLOAT")], 'inputs[0].datatype: "FLOAT" is not a datatype'),
    ([tensor("a", [1.0], ["FP64"])], "inputs[0].datatype: an array is not a datatype"),
    ([tensor("a", [1.0], shape=[])], "inputs[0].shape must be an array of sizes"),
    ([tensor("a", [1.0], shape=[-1])], "inputs[0].shape must be an array of sizes"),
    ([tensor("a", [1.0], shape=[1.0])], "inputs[0].shape must be an array of sizes"),
    ([tensor("a", [1.0], shape=[2**40])], "inputs[0].shape must be an array of sizes"),
    (
        [tensor("a", [], shape=[3, 0]), tensor("b", [1, 2, 3], "INT64")],
        "inputs[0].shape: rows without values",
    ),
    ([tensor("a", [1.0], shape=[2])], "inputs[0]: shape [2] means 2 values, data has 1"),
    ([{**tensor("a", []), "data": "AAAA"}], "inputs[0].data must be an array"),
    ([tensor("a", ["1"])], 'inputs[0].data[0]: expected a number, got "1"'),
    ([tensor("a", [1.0]), tensor("c", [1.0])], 'there is no input "c"; input b is missing'),
    ([tensor("a", [1.0])], "input b is missing"),
    ([tensor("a", [1.0]), tensor("a", [1.0]), tensor("b", [1], "INT64")], "an input is there twice"),
    ([tensor("a", [1.0, 2.0]), tensor("b", [1], "INT64")], "the inputs differ in their number of rows"),
    ([tensor("a", [1.0]), tensor("b", [1.5])], "b[0]: expected an integer, got 1.5"),
    ([tensor("x", [1.0, 2.0, 3.0], shape=[1, 3])], "x: expected shape [rows, 2], got [1, 3]"),
    ([tensor("x", [1.0, 2.0], shape=[2])], "x: expected shape [rows, 2], got [2]"),
    ([tensor("a", [1.0, 2.0], shape=[1, 2]), tensor("b", [1], "INT64")], "a[0]: expected a number"),
]


@pytest.mark.parametrize(("inputs", "rows"), GOOD_TENSORS)
def test_tensors_become_rows(inputs, rows):
    read = read_tensors({"inputs": inputs, "id": "7"}, NUMBERS)
    assert (read.rows, read.parameters, read.id, read.outputs) == (rows, {}, "7", None)


def test_outputs_are_asked_for_by_name():
    asked: dict[str, Any] = {"inputs": [tensor("a", [1.5]), tensor("b", [3], "INT64")]}
    assert read_tensors({**asked, "outputs": [{"name": "y"}]}, NUMBERS).outputs == ("y",)
    for outputs, detail in (
        ([{"name": "z"}], 'there is no output "z"; this model has y'),
        ([{"name": "y"}, {"name": "y"}], "an output is asked for twice"),
        ("y", "outputs must be an array"),
        ([{}], "outputs must be an array"),
    ):
        assert refused(read_tensors, {**asked, "outputs": outputs}, NUMBERS).detail.startswith(detail)


def test_the_protocols_own_parameters_change_nothing():
    asked: dict[str, Any] = {"inputs": [tensor("a", [1.5]), tensor("b", [3], "INT64")], "model_name": "any"}
    read = read_tensors({**asked, "parameters": {"content_type": "np", "binary_data_output": True}}, NUMBERS)
    assert read.parameters == {}
    assert "does not know" in refused(read_tensors, {**asked, "parameters": {"priority": 1}}, NUMBERS).detail


MANY = Signature(outputs=(Tensor(name="price", datatype="FP64"), Tensor(name="sold", datatype="INT64")))


def test_each_output_is_a_tensor_of_its_own():
    rows = [{"price": 1.5, "sold": 1.0}, {"price": None, "sold": 0}]
    price, sold = tensor_outputs(rows, MANY)
    assert price == {"name": "price", "shape": [2], "datatype": "FP64", "data": [1.5, None]}
    assert sold == {"name": "sold", "shape": [2], "datatype": "INT64", "data": [1, 0]}
    assert tensor_outputs(rows, MANY, ["sold"]) == [sold]
    assert [tensor["name"] for tensor in tensor_outputs(rows, Signature())] == ["price", "sold"]
    assert tensor_outputs([1.5], Signature())[0]["name"] == "prediction"


def test_a_value_that_does_not_fit_the_declared_datatype_is_seen_wherever_it_is():
    whole = Signature(outputs=(Tensor(name="n", datatype="INT64"),))
    assert tensor_outputs([1] * 500 + [1.5], whole)[0]["datatype"] == "FP64"
    assert tensor_outputs([None, 2.0], whole)[0] == {
        "name": "n",
        "shape": [2],
        "datatype": "INT64",
        "data": [None, 2],
    }


@pytest.mark.parametrize(("inputs", "detail"), BAD_TENSORS)
def test_a_bad_tensor_is_told_with_its_place(inputs, detail):
    problem = refused(read_tensors, {"inputs": inputs}, NUMBERS)
    assert problem.code == "invalid-instances"
    assert problem.detail.startswith(detail)


def test_an_identifier_is_text():
    assert refused(read_tensors, {"inputs": [tensor("a", [1.0])], "id": 7}, NUMBERS).detail.startswith(
        "id must"
    )


def test_a_tensor_that_is_nested_very_deeply_costs_no_stack():
    data: list[object] = [1.0]
    for _ in range(50_000):
        data = [data]
    assert read_tensors({"inputs": [tensor("x", data, shape=[1, 1])]}, Signature(inputs=INPUTS[:1])).rows == [
        [1.0]
    ]


def test_a_tensor_of_many_dimensions_keeps_them():
    inputs = (Tensor(name="image", datatype="UINT8", shape=(-1, 2, 2)),)
    data = [0, 1, 2, 3, 4, 5, 6, 7]
    scoring = read_tensors({"inputs": [tensor("image", data, "UINT8", [2, 2, 2])]}, Signature(inputs=inputs))
    assert scoring.rows == [[[[0, 1], [2, 3]]], [[[4, 5], [6, 7]]]]


@pytest.mark.parametrize(
    ("predictions", "shape", "datatype", "data"),
    [
        ([1.0, 2.5], [2], "FP64", [1.0, 2.5]),
        ([1, 2], [2], "FP64", [1, 2]),
        (["a"], [1], "BYTES", ["a"]),
        ([True], [1], "BOOL", [True]),
        ([[0.5, 0.5], [0.1, 0.9]], [2, 2], "FP64", [0.5, 0.5, 0.1, 0.9]),
        ([], [0], "FP64", []),
        ([[[1.0], [2.0]]], [1, 2, 1], "FP64", [1.0, 2.0]),
        ([[1.0], [2.0, 3.0]], [2], "BYTES", ["[1.0]", "[2.0,3.0]"]),
        ([{"label": 1}], [1], "BYTES", ['{"label":1}']),
    ],
)
def test_predictions_become_a_tensor(predictions, shape, datatype, data):
    assert tensor_outputs(predictions, NUMBERS) == [
        {"name": "y", "shape": shape, "datatype": datatype, "data": data}
    ]


def test_floats_are_finite():
    for datatype, largest in (("FP16", 65504.0), ("FP32", 3.4028234663852886e38)):
        signature = Signature(inputs=(Tensor(name="x", datatype=datatype),))
        assert read_instances({"instances": [[largest]]}, signature).rows == [[largest]]
        assert "does not fit" in refused(read_instances, {"instances": [[largest * 1.01]]}, signature).detail
    assert "does not fit" in refused(read_instances, {"instances": [changed(x=math.inf)]}).detail


def refused(read, body, signature=SIGNATURE) -> Problem:
    with pytest.raises(Problem) as caught:
        read(body, signature)
    return caught.value


def json_round(value):
    return parse_json(json.dumps(value).encode())
