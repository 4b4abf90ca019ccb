"""What models return, as JSON values: the contract's "What comes out", type by type."""

import datetime as dt
import decimal
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from chips_backend.model import Model, Refused
from chips_backend.prediction_pool import Failed, _predict, predict_safely
from chips_backend.predictions_as_json import WrongAnswer, as_predictions, is_close
from scipy import sparse

ZONE = dt.timezone(dt.timedelta(hours=2))


@pytest.mark.parametrize(
    "returned",
    [
        [1, 2],
        (1, 2),
        np.array([1, 2]),
        [np.int64(1), np.int64(2)],
        (number for number in (1, 2)),
        range(1, 3),
    ],
)
def test_predictions_of_any_kind_become_a_list(returned):
    listed = as_predictions(returned, 2)
    assert listed == [1, 2]
    assert {type(item) for item in listed} == {int}


VALUES: list[tuple[Any, Any]] = [
    (None, None),
    (math.nan, None),
    (math.inf, None),
    (pd.NA, None),
    (pd.NaT, None),
    (np.datetime64("NaT"), None),
    (np.float32(0.5), 0.5),
    (np.bool_(True), True),  # noqa: FBT003
    (2**63, 2**63),
    (decimal.Decimal("1.5"), 1.5),
    (b"text", "text"),
    (np.str_("text"), "text"),
    (dt.date(2026, 11, 29), "2026-11-29"),
    (dt.datetime(2026, 11, 29, 10), "2026-11-29T10:00:00"),  # noqa: DTZ001
    (dt.datetime(2026, 11, 29, 10, 0, 0, 500_000, ZONE), "2026-11-29T08:00:00.5Z"),
    (pd.Timestamp("2026-11-29T10:00", tz="Europe/Paris"), "2026-11-29T09:00:00Z"),
    (pd.Timestamp("2026-11-29"), "2026-11-29T00:00:00"),
    (np.datetime64("2026-11-29"), "2026-11-29"),
    (np.datetime64("2026-11-29T10"), "2026-11-29T10:00:00"),
    (np.datetime64("2026-11-29T10:00:00.250000000"), "2026-11-29T10:00:00.25"),
    (dt.timedelta(seconds=90), 90.0),
    (np.timedelta64(1500, "ms"), 1.5),
    (pd.Interval(0, 1), "(0, 1]"),
    ({"label": np.int64(3), 7: [np.nan]}, {"label": 3, "7": [None]}),
    (np.array([1.5, 2.5]), [1.5, 2.5]),
    ((1, "a"), [1, "a"]),
]


@pytest.mark.parametrize(("value", "wanted"), VALUES)
def test_a_value_is_written_in_one_way(value, wanted):
    got = as_predictions([value], 1)[0]
    assert got == wanted
    assert type(got) is type(wanted)


@pytest.mark.parametrize(
    ("value", "wanted"), [pair for pair in VALUES if not isinstance(pair[0], dict | tuple | np.ndarray)]
)
def test_it_is_written_so_in_an_array_and_in_a_series_too(value, wanted):
    array = np.empty(1, dtype=object)
    array[0] = value
    assert as_predictions(array, 1) == [wanted]
    assert as_predictions(pd.Series([value], dtype=object), 1) == [wanted]
    assert as_predictions(pd.DataFrame({"y": pd.Series([value], dtype=object)}), 1) == [wanted]


@pytest.mark.parametrize(
    ("returned", "wanted"),
    [
        (np.array(["2026-11-29", "NaT"], dtype="datetime64[ns]"), ["2026-11-29T00:00:00", None]),
        (pd.Series(pd.to_datetime(["2026-11-29", None])), ["2026-11-29T00:00:00", None]),
        (pd.Series([1, None], dtype="Int64"), [1, None]),
        (pd.Series([True, None], dtype="boolean"), [True, None]),
        (pd.Series(pd.Categorical([3, None])), [3, None]),
        (pd.Categorical(["red", None]), ["red", None]),
        (pd.Series(["a", None], dtype="str"), ["a", None]),
        (pd.Series([1.5, 2.5], index=[7, 9]), [1.5, 2.5]),
        (sparse.csr_matrix([[1, 0], [0, 2]]), [[1, 0], [0, 2]]),
        (sparse.csr_array([[1.5, 0], [0, 2]]), [[1.5, 0.0], [0.0, 2.0]]),
        (
            np.array([(1, 2.5), (3, 4.5)], dtype=[("a", "i4"), ("b", "f8")]),
            [{"a": 1, "b": 2.5}, {"a": 3, "b": 4.5}],
        ),
        (np.ma.masked_array([1, 2], [False, True]), [1, None]),
        (pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]),
        ({"a": [1, 2], "b": np.array([3, 4])}, [{"a": 1, "b": 3}, {"a": 2, "b": 4}]),
    ],
)
def test_whatever_holds_rows_gives_rows(returned, wanted):
    assert as_predictions(returned, 2) == wanted


@pytest.mark.parametrize(
    "returned",
    ["ab", b"ab", 7, 7.5, None, np.float64(1), np.array(1), {1, 2}, [1], [1, 2, 3], {"a": 1, "b": 2}, {"a": [1], "b": [2]},
     [object(), object()], [1j, 2j], np.array([1j, 2j]), [{1}, {2}], pd.DataFrame({"a": [1]}), [b"\xff", b""],
     pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"])],
)  # fmt: skip
def test_what_is_not_one_prediction_for_each_row_is_an_error(returned):
    with pytest.raises(WrongAnswer):
        as_predictions(returned, 2)


def test_several_outputs_are_matched_by_name_or_by_place():
    wanted = [{"a": 1, "b": 3}, {"a": 2, "b": 4}]
    for returned in (
        pd.DataFrame({"b": [3, 4], "a": [1, 2]}),
        {"b": [3, 4], "a": [1, 2]},
        np.array([[1, 3], [2, 4]]),
        [[1, 3], (2, 4)],
        [{"b": 3, "a": 1}, {"a": 2, "b": 4}],
    ):
        assert as_predictions(returned, 2, ["a", "b"]) == wanted
    for returned in (
        np.array([1, 2]),
        np.array([[1], [2]]),
        pd.DataFrame({"a": [1, 2], "c": [3, 4]}),
        [{"a": 1}, {"a": 2}],
    ):
        with pytest.raises(WrongAnswer, match="a, b"):
            as_predictions(returned, 2, ["a", "b"])
    assert as_predictions(pd.DataFrame({"whatever": [1, 2]}), 2, ["a"]) == [1, 2]
    with pytest.raises(WrongAnswer):
        as_predictions(pd.DataFrame({"x": [1, 2], "y": [1, 2]}), 2, ["a"])


def test_a_prediction_too_few_is_an_error():
    model = Model(list, lambda rows, _: rows[1:])
    with pytest.raises(WrongAnswer, match="returned 1 predictions for 2 rows"):
        _predict(model, [[1], [2]], {}, ())


class Nasty(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


@pytest.mark.parametrize(
    ("error", "may_be_the_caller"),
    [(ValueError("x"), True), (Nasty(), True), (StopIteration(), False), (SystemExit(3), False), (KeyboardInterrupt(), False),
     (GeneratorExit(), False), (MemoryError(), False), (RecursionError(), True)],
)  # fmt: skip
def test_whatever_is_raised_is_a_value(error: BaseException, *, may_be_the_caller: bool):
    def predict(*_: Any) -> Any:
        raise error

    failed = predict_safely(Model(list, predict), [[1]], {})
    assert isinstance(failed, Failed)
    assert (failed.kind, failed.may_be_the_caller) == (type(error).__name__, may_be_the_caller)


def test_a_missing_integer_does_not_change_the_rows_beside_it():
    seen: list[Any] = []

    def table(rows: Any) -> Any:
        seen.append(rows)
        return rows

    model = Model(table, lambda rows, _: [len(rows)] * len(rows), apart=lambda row: row[0] is None)
    assert _predict(model, [[1], [None], [2]], {}, ()) == [2, 1, 2]
    assert seen == [[[1], [2]], [[None]]]


def test_refused_may_say_where():
    def predict(*_: Any) -> Any:
        raise Refused("no such wine", row=1, field=0)

    failed: Any = predict_safely(Model(list, predict), [[1]], {})
    assert (failed.text, failed.refused) == ("no such wine", (1, 0))


def test_what_json_shows_as_null_is_the_same():
    nan, inf = math.nan, math.inf
    same: list[tuple[Any, Any]] = [
        (nan, nan),
        (inf, inf),
        (nan, None),
        (-inf, None),
        ([1.0, nan], [1.0, nan]),
    ]
    other: list[tuple[Any, Any]] = [(nan, 1.0), (1.0, nan), (inf, 1e300), (None, 1.0)]
    assert all(is_close(got, wanted, 1e-6) for got, wanted in same)
    assert not any(is_close(got, wanted, 1e-6) for got, wanted in other)
