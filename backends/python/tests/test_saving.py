"""`save`: what it understands of an example, what it writes, and what it refuses because a backend would predict otherwise."""

import datetime as dt
import importlib
import io
import json
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from chips_backend import CannotSave, save
from chips_backend.testing import running, write_artifact
from scipy import sparse
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler


def importable(name: str) -> Any:
    """An optional library; the test is skipped where it, or a system's library that it loads (libgomp1), is missing."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        pytest.skip(f"{name}: {error} (a missing libgomp.so.1: apt install libgomp1)")


def table():
    rng = np.random.default_rng(7)
    frame = pd.DataFrame({
        "age": rng.integers(18, 80, 60),
        "income": rng.normal(50_000, 9_000, 60),
        "plan": rng.choice(["basic", "plus", "pro"], 60),
        "active": rng.random(60) > 0.5,
    })  # fmt: skip
    frame.loc[3, "income"] = np.nan
    return frame, (frame["age"] > 50).astype(int)


def churn():
    frame, target = table()
    prepare = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), ["age", "income"]),
        (OneHotEncoder(), ["plan"]),
        remainder="passthrough",
    )
    return make_pipeline(prepare, LogisticRegression(max_iter=500)).fit(frame, target), frame


def saved(model, folder, example, **options):
    out = io.StringIO()
    done = save(model, folder, example=example, out=out, **options)
    return done, out.getvalue()


def test_a_pipeline_with_texts_numbers_and_booleans(tmp_path):
    model, frame = churn()
    done, told = saved(model, tmp_path / "trained", frame.head(50))
    signature = json.loads((tmp_path / "trained/signature.json").read_text())
    assert [(one["name"], one["datatype"]) for one in signature["inputs"]] == [
        ("age", "INT64"), ("income", "FP64"), ("plan", "BYTES"), ("active", "BOOL"),
    ]  # fmt: skip
    samples = json.loads((tmp_path / "trained/samples.json").read_text())
    assert len(samples) == done.samples == 5
    assert any(sample["request"]["instances"][0]["income"] is None for sample in samples), "the missing value"
    for sample in samples:
        row = pd.DataFrame(sample["request"]["instances"])
        row["income"] = row["income"].astype(float)
        assert sample["response"]["predictions"] == model.predict(row).tolist()
    assert "chips publish" in told
    assert "income" in told


def test_a_backend_serves_what_was_saved(tmp_path):
    model, frame = churn()
    done, _ = saved(model, tmp_path / "trained", frame)
    name = "model.joblib" if done.format == "joblib" else "model.skops"
    write_artifact(
        tmp_path / "artifact",
        {name: (tmp_path / "trained" / name).read_bytes()},
        format=done.format,
        signature=json.loads((tmp_path / "trained/signature.json").read_text()),
        samples=json.loads((tmp_path / "trained/samples.json").read_text()),
    )
    with running({"CHIPS_ARTIFACT": str(tmp_path / "artifact")}) as backend:
        row = json.loads(frame.iloc[[9]].to_json(orient="records"))
        answer = backend.post("/predict", {"instances": row})
        assert answer.status == 200, answer.body
        assert answer.json["predictions"] == model.predict(frame.iloc[[9]]).tolist()


def test_categories_come_from_the_column_in_its_order(tmp_path):
    frame = pd.DataFrame(
        {"x": [1.0, 2.0, 3.0, 4.0], "size": pd.Categorical(["s", "m", "l", "m"], categories=["s", "m", "l"])}
    )
    encoder = make_column_transformer((OneHotEncoder(), ["size"]), remainder="passthrough")
    model = make_pipeline(encoder, LinearRegression()).fit(frame, [1.0, 2.0, 3.0, 4.0])
    saved(model, tmp_path, frame, samples=3)
    (_, size) = json.loads((tmp_path / "signature.json").read_text())["inputs"]
    assert size["categories"] == ["s", "m", "l"]
    samples = json.loads((tmp_path / "samples.json").read_text())
    assert {sample["request"]["instances"][0]["size"] for sample in samples} == {"s", "m", "l"}


@pytest.mark.parametrize(
    ("values", "datatype"),
    [
        (pd.array([1, None, 3, 4], dtype="Int64"), "INT64"),
        (pd.array([True, None, False, True], dtype="boolean"), "BOOL"),
        (np.array([1, 2, 3, 4], dtype="uint8"), "UINT8"),
        (np.array([1, 2, 3, 4], dtype="float32"), "FP32"),
        (["a", None, "b", "c"], "BYTES"),
        ([1, 2.5, None, 4], "FP64"),
        (pd.to_datetime(["2026-01-01", "2026-02-01", None, "2026-03-01"]), "BYTES"),
        ([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]], "FP64"),
    ],
)
def test_datatypes(values, datatype):
    from chips_backend.example_columns import columns_of

    (column,) = columns_of(pd.DataFrame({"x": values}), None)
    assert column.datatype == datatype
    assert json.loads(json.dumps(column.values)) == column.values


def test_an_array_takes_the_names_that_the_model_knows_or_numbers(tmp_path):
    x = np.arange(40.0).reshape(10, 4)
    model = RandomForestRegressor(n_estimators=3, random_state=0).fit(x, x.sum(axis=1))
    saved(model, tmp_path, x)
    signature = json.loads((tmp_path / "signature.json").read_text())
    assert [one["name"] for one in signature["inputs"]] == ["x0", "x1", "x2", "x3"]


def test_a_list_of_texts(tmp_path):
    texts = ["good wine", "bad wine", "very good", "very bad", "fine"]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0, 1])
    saved(model, tmp_path, texts, samples=2)
    signature = json.loads((tmp_path / "signature.json").read_text())
    assert signature["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]


def test_several_outputs_are_one_array_a_row(tmp_path):
    x = np.arange(20.0).reshape(10, 2)
    model = RandomForestClassifier(n_estimators=3, random_state=0).fit(
        x, np.c_[x[:, 0] > 5, x[:, 1] > 9].astype(int)
    )
    saved(model, tmp_path, x)
    (output,) = json.loads((tmp_path / "signature.json").read_text())["outputs"]
    assert output == {"name": "prediction", "datatype": "INT64", "shape": [-1, 2]}


@pytest.mark.slow
def test_five_thousand_columns(tmp_path):
    x = pd.DataFrame(
        np.random.default_rng(0).normal(size=(20, 5000)), columns=[f"gene {at}" for at in range(5000)]
    )
    saved(LinearRegression().fit(x, x["gene 0"]), tmp_path, x)
    assert len(json.loads((tmp_path / "signature.json").read_text())["inputs"]) == 5000


def test_nothing_is_overwritten_unless_asked(tmp_path):
    model, frame = churn()
    saved(model, tmp_path, frame)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CannotSave, match="overwrite=True"):
        saved(model, tmp_path, frame.head(9))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    saved(model, tmp_path, frame.head(9), overwrite=True)


def test_a_draft_of_the_model_card_says_what_is_known_and_replaces_nothing_that_a_person_wrote(tmp_path):
    model, frame = churn()
    _, told = saved(model, tmp_path, frame, training=frame)
    card = (tmp_path / "card.md").read_text()
    assert "a draft of the model card" in told
    assert [line[3:] for line in card.split("\n") if line.startswith("## ")] == [
        "Owner", "Purpose", "Data", "Limits", "Metrics",
    ]  # fmt: skip
    assert card.count("\nTODO: ") == 5
    assert f"Trained on {len(frame)} rows" in card
    assert "`age` INT64, `income` FP64, `plan` BYTES, `active` BOOL" in card
    assert "scikit-learn==" in card
    (tmp_path / "card.md").write_text("mine")
    _, told = saved(model, tmp_path, frame.head(9), overwrite=True)
    assert (tmp_path / "card.md").read_text() == "mine"
    assert "card.md was kept as it is" in told


def test_a_model_that_sees_other_columns_is_refused(tmp_path):
    model, frame = churn()
    with pytest.raises(CannotSave, match="does not predict the rows"):
        saved(model, tmp_path, frame.drop(columns="plan"))
    assert not list(tmp_path.iterdir())


class Leaky:
    """Predicts by the mean of whatever it is asked together with."""

    def predict(self, x):
        return np.asarray(x)[:, 0] - np.asarray(x)[:, 0].mean()


def test_a_model_whose_rows_depend_on_each_other_is_refused(tmp_path):
    with pytest.raises(CannotSave, match="alone"):
        saved(Leaky(), tmp_path, np.arange(10.0).reshape(5, 2))
    assert not list(tmp_path.iterdir())


def test_what_only_the_script_has_is_named(tmp_path):
    import __main__

    def days(x):
        return x

    days.__module__ = "__main__"
    days.__qualname__ = "days"
    __main__.days = days
    try:
        model = make_pipeline(FunctionTransformer(days), LinearRegression()).fit(np.eye(3), [1.0, 2.0, 3.0])
        with pytest.raises(CannotSave, match=r"uses days of this script"):
            saved(model, tmp_path, np.eye(3))
    finally:
        del __main__.days


@pytest.mark.parametrize(
    ("example", "why"),
    [
        (pd.DataFrame({"a": []}), "no rows"),
        (pd.DataFrame({"a": [1 + 2j]}), "no datatype"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "one name"),
        (pd.Series([1, 2]), "to_frame"),
        (np.arange(3.0), "one dimension"),
        (pd.DataFrame({"a": [None, None]}), "every value"),
    ],
)
def test_an_example_that_no_signature_describes(example, why, tmp_path):
    with pytest.raises(CannotSave, match=why):
        saved(LinearRegression(), tmp_path, example)


def test_boosters(tmp_path):
    lightgbm = importable("lightgbm")
    frame = pd.DataFrame({"mean radius": np.arange(60.0), "b": np.arange(60.0) % 7})
    model = lightgbm.LGBMRegressor(n_estimators=3, min_child_samples=2, verbose=-1).fit(frame, frame["b"])
    saved(model.booster_, tmp_path / "own", frame)
    assert (tmp_path / "own/model.txt").exists()
    saved(model, tmp_path / "wrapped", frame)


def signature_of(folder):
    return json.loads((folder / "signature.json").read_text())


def test_int64_with_missing_values_and_booleans(tmp_path):
    frame = pd.DataFrame({
        "n": pd.array([1, None, 3, 4, 5, 6], dtype="Int64"), "b": pd.array([True, False, None, True, True, False], dtype="boolean"),
    })  # fmt: skip
    model = HistGradientBoostingRegressor(min_samples_leaf=1).fit(frame, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    saved(model, tmp_path, frame, samples=6)
    assert [one["datatype"] for one in signature_of(tmp_path)["inputs"]] == ["INT64", "BOOL"]
    samples = json.loads((tmp_path / "samples.json").read_text())
    assert [sample["request"]["instances"][0]["n"] for sample in samples] == [1, None, 3, 4, 5, 6]


def test_nested_columns(tmp_path):
    frame = pd.DataFrame({"embedding": [[1.0, 2.0, 3.0], [2.0, 3.0, 4.0], [0.0, 1.0, 0.0]]})
    saved(FirstOfEach(), tmp_path, frame)
    assert signature_of(tmp_path)["inputs"] == [{"name": "embedding", "datatype": "FP64", "shape": [-1, 3]}]


class FirstOfEach:
    """Takes a DataFrame with a column of lists."""

    feature_names_in_ = np.array(["embedding"])

    def predict(self, frame):
        return np.stack(frame["embedding"].to_numpy())[:, 0]


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.coo_matrix, sparse.csc_array, sparse.dia_matrix])
def test_sparse(form, tmp_path):
    x = np.eye(6)
    model = LinearRegression().fit(sparse.csr_matrix(x), np.arange(6.0))
    saved(model, tmp_path, form(x))
    assert len(signature_of(tmp_path)["inputs"]) == 6


def test_polars(tmp_path):
    frame = pl.DataFrame({
        "n": pl.Series([1, None, 3, 4, 5], dtype=pl.Int32), "x": [1.0, 2.0, None, 4.0, 5.0], "b": [True, False, True, None, True],
        "plan": pl.Series(["a", "b", "a", None, "b"], dtype=pl.Enum(["a", "b"])), "text": ["u", "v", "w", "x", "y"],
        "day": [dt.date(2026, 1, day) for day in range(1, 6)], "pair": [[1.0, 2.0]] * 5,
    })  # fmt: skip
    saved(CountsRows(), tmp_path, frame)
    inputs = {one["name"]: one for one in signature_of(tmp_path)["inputs"]}
    assert {name: one["datatype"] for name, one in inputs.items()} == {
        "n": "INT32", "x": "FP64", "b": "BOOL", "plan": "BYTES", "text": "BYTES", "day": "BYTES", "pair": "FP64",
    }  # fmt: skip
    assert inputs["plan"]["categories"] == ["a", "b"]
    assert inputs["pair"]["shape"] == [-1, 2]
    with pytest.raises(CannotSave, match="collect"):
        saved(CountsRows(), tmp_path / "lazy", frame.lazy())


class CountsRows:
    """Answers one for each row, whatever the table."""

    def predict(self, table):
        return [1] * len(table)


def test_a_model_trained_on_polars(tmp_path):
    x = pl.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [0.5, 1.0, 0.0, 2.0]})
    saved(LinearRegression().fit(x, x["a"]), tmp_path, x)
    assert [one["name"] for one in signature_of(tmp_path)["inputs"]] == ["a", "b"]


class TestOnnx:
    def test_one_table_of_numbers(self, tmp_path):
        skl2onnx = importable("skl2onnx")
        x = np.random.default_rng(1).normal(size=(30, 3)).astype(np.float32)
        model = LogisticRegression().fit(x, x[:, 0] > 0)
        done, _ = saved(skl2onnx.to_onnx(model, x[:1]), tmp_path, x)
        assert done.format == "onnx"
        assert [package.partition("==")[0] for package in done.packages] == ["onnxruntime"], "what serves it"
        assert (tmp_path / "model.onnx").exists()
        with pytest.raises(CannotSave, match="convert it first"):
            save(model, tmp_path / "other", example=x, format="onnx")
        assert not (tmp_path / "other").exists()
        samples = json.loads((tmp_path / "samples.json").read_text())
        rows = np.array(
            [list(sample["request"]["instances"][0].values()) for sample in samples], dtype=np.float32
        )
        assert [bool(sample["response"]["predictions"][0]) for sample in samples] == model.predict(
            rows
        ).tolist()

    def test_inputs_by_name(self, tmp_path):
        skl2onnx = importable("skl2onnx")
        from skl2onnx.common.data_types import FloatTensorType, StringTensorType

        frame = pd.DataFrame({"x": np.arange(8, dtype=np.float32), "plan": ["a", "b"] * 4})
        prepare = make_column_transformer((OneHotEncoder(), ["plan"]), remainder="passthrough")
        model = make_pipeline(prepare, LogisticRegression()).fit(frame, [0, 1] * 4)
        kinds = [("x", FloatTensorType([None, 1])), ("plan", StringTensorType([None, 1]))]
        saved(skl2onnx.to_onnx(model, initial_types=kinds), tmp_path, frame[["plan", "x"]])
        samples = json.loads((tmp_path / "samples.json").read_text())
        assert [sample["response"]["predictions"][0] for sample in samples] == [
            int(sample["request"]["instances"][0]["plan"] == "b") for sample in samples
        ]

    def test_columns_that_the_model_does_not_take(self, tmp_path):
        skl2onnx = importable("skl2onnx")
        x = np.eye(3, dtype=np.float32)
        model = skl2onnx.to_onnx(LinearRegression().fit(x, [1.0, 2.0, 3.0]), x[:1])
        with pytest.raises(CannotSave, match="does not predict the rows"):
            saved(model, tmp_path, pd.DataFrame({"text": ["a", "b"]}))
        assert not list(tmp_path.iterdir())


def test_other_files_in_the_folder_are_pointed_out(tmp_path):
    (tmp_path / "notes.md").write_text("mine")
    x = pd.DataFrame({"a": [1.0, 2.0]})
    _, told = saved(LinearRegression().fit(x, x["a"]), tmp_path, x)
    assert "notes.md" in told
    assert "scikit-learn==" in told


@pytest.mark.parametrize(
    ("package", "made", "needed"),
    [
        ("xgboost", lambda x, y: __import__("xgboost").XGBRegressor(n_estimators=2).fit(x, y), {"xgboost", "xgboost-cpu"}),
        ("lightgbm", lambda x, y: __import__("lightgbm").LGBMRegressor(n_estimators=2, verbose=-1).fit(x, y), {"lightgbm"}),
        ("skops", lambda x, y: LinearRegression().fit(x, y), {"numpy", "scikit-learn", "skops"}),
    ],
)  # fmt: skip
def test_what_serving_needs_depends_on_the_format(package, made, needed, tmp_path):
    importable(package)
    x = pd.DataFrame({"a": np.arange(40.0)})
    done = save(made(x, x["a"]), tmp_path, example=x, format=package, out=io.StringIO())
    names = {entry.partition("==")[0] for entry in done.packages}
    assert names
    assert names <= needed
    assert package in {name.removesuffix("-cpu") for name in names}
