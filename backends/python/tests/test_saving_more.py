"""`save`: the dtype of dates, which a model may depend on, models that never answer twice alike, and what it says comes next."""

import enum
import io
import json
import shlex

import numpy as np
import pandas as pd
import polars as pl
import pytest
from chips_backend import CannotSave, example_columns, save
from chips_backend.example_columns import columns_of
from sklearn.dummy import DummyRegressor


def saved(model, folder, example):
    out = io.StringIO()
    return save(model, folder, example=example, out=out), out.getvalue()


def signature_of(folder):
    return json.loads((folder / "signature.json").read_text())


def test_dates(tmp_path):
    frame = pd.DataFrame({"when": pd.date_range("2026-01-01", periods=9, freq="12h"), "x": np.arange(9.0)})
    model = DummyRegressor().fit(frame, frame["x"])
    _, told = saved(model, tmp_path, frame)
    assert "dates, which callers send as texts: ISO 8601" in told
    assert [one["datatype"] for one in signature_of(tmp_path)["inputs"]] == ["BYTES", "FP64"]
    sample = json.loads((tmp_path / "samples.json").read_text())[1]
    assert sample["request"]["instances"][0]["when"] == "2026-01-01T12:00:00"


class OfDates:
    """Its answer depends on the dtype of its column `when`."""

    def __init__(self, answer):
        self.feature_names_in_ = np.array(["when", "note"], dtype=object)
        self.answer = answer

    def predict(self, table):
        return getattr(self, self.answer)(table["when"]) + table["note"].str.len().to_numpy()

    @staticmethod
    def count(when):
        return when.astype("int64").to_numpy()

    @staticmethod
    def hour(when):
        return when.dt.tz_convert("Asia/Tokyo").dt.hour.to_numpy()


def as_unit(unit):
    return pd.Series(pd.date_range("2026-01-01", periods=9, freq="12h")).astype(f"datetime64[{unit}]")


@pytest.mark.parametrize(
    ("when", "answer"),
    [
        (as_unit("ns"), "count"),
        (as_unit("us"), "count"),
        (as_unit("us").dt.tz_localize("UTC"), "hour"),
    ],
    ids=lambda value: str(getattr(value, "dtype", value)),
)
def test_dates_next_to_texts_come_in_the_dtype_of_the_training(tmp_path, when, answer):
    frame = pd.DataFrame({"when": when, "note": ["a", "bb", "2026", "", "e", "f", "g", "h", "i"]})
    saved(OfDates(answer), tmp_path, frame)


def test_a_model_that_draws_lots_says_so(tmp_path):
    with pytest.raises(CannotSave, match="something else for the same rows each time"):
        saved(DrawsLots(), tmp_path, pd.DataFrame({"a": [1.0, 2.0]}))


class DrawsLots:
    """Numbers in their turn, so that no two are the same by chance."""

    turn = 0

    def predict(self, table):
        self.turn += 1
        return [self.turn] * len(table)


def test_the_commands_that_come_next_can_be_typed_as_they_are(tmp_path):
    frame = pd.DataFrame({"a": [1.0, 2.0]})
    done, told = saved(DummyRegressor().fit(frame, frame["a"]), tmp_path / "my models", frame)
    assert shlex.split(done.command)[2] == str(tmp_path / "my models")
    assert f"--from '{tmp_path / 'my models'}', then" in told


@pytest.mark.parametrize(
    ("table", "datatype"),
    [
        (pd.DataFrame({"a": pd.arrays.SparseArray([0.0, 1.5], fill_value=0.0)}), "FP64"),
        (pd.DataFrame({"a": np.array([0.1, 0.2], dtype="longdouble")}), "FP64"),
        (pl.DataFrame({"a": [1, None]}, schema={"a": pl.Int128}), "INT64"),
    ],
    ids=["sparse", "longdouble", "Int128"],
)
def test_rare_dtypes(table, datatype):
    assert [column.datatype for column in columns_of(table, None)] == [datatype]


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (pd.DataFrame({"a": ["\ud800"]}), "surrogate"),
        (pd.DataFrame({"\udfff": [1.0]}), "surrogate"),
        (pd.DataFrame({"a": pd.Categorical(["x"], categories=["x", "\ud800"])}), "surrogate"),
        (pd.DataFrame({"": [1.0]}), "no name"),
    ],
)
def test_what_json_cannot_hold_is_refused(table, why):
    with pytest.raises(CannotSave, match=why):
        columns_of(table, None)


def test_texts_of_numpy_are_texts():
    (column,) = columns_of(list(np.array(["good day", "bad night"])), None)
    assert (column.datatype, column.values) == ("BYTES", ["good day", "bad night"])
    assert {type(value) for value in column.values} == {str}


def test_a_member_of_an_enumeration_is_its_value():
    class Colour(str, enum.Enum):  # noqa: UP042  (as people write it)
        RED = "red"

    assert example_columns._plain(Colour.RED) == "red"
    assert type(example_columns._plain(Colour.RED)) is str
