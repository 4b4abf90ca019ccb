"""Each format, with models trained as people train them: on arrays, and on DataFrames with text and holes."""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from chips_backend import predict as scoring
from chips_backend.decode_instances import read_instances
from chips_backend.input_tables import array_table, frame_table
from chips_backend.manifest import Signature, Tensor, parse_manifest
from chips_backend.model import Model, Refused
from chips_backend.prediction_pool import _predict
from chips_backend.testing import manifest_of

NUMBERS = np.random.default_rng(7).normal(size=(120, 3))
LABELS = (NUMBERS[:, 0] + NUMBERS[:, 1] > 0).astype(int)
TARGETS = NUMBERS @ np.array([1.0, -2.0, 0.5])
COLUMNS = [{"name": name, "datatype": "FP64", "shape": [-1]} for name in "xyz"]


@pytest.fixture
def load(tmp_path) -> Callable[..., Model]:
    """Save by a function, load as the backend does."""

    def load_(file: str, kind: str, save: Callable[[Path], Any], inputs: Any = COLUMNS) -> Model:
        save(tmp_path / file)
        content = (tmp_path / file).read_bytes()
        manifest = manifest_of({file: content}, format=kind, signature={"inputs": inputs})
        return scoring.load(tmp_path, parse_manifest(json.dumps(manifest).encode()))

    return load_


@pytest.fixture
def lightgbm() -> Any:
    try:
        return importlib.import_module("lightgbm")
    except OSError as error:
        pytest.skip(f"lightgbm: {error} (apt install libgomp1)")


def rows_of(table: Any) -> list[list[Any]]:
    return [list(map(float, row)) for row in table]


def predicted(model: Model, rows: Any, **parameters: Any) -> Any:
    return _predict(model, rows, parameters, ())


def classifier() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression().fit(NUMBERS, LABELS)


def test_joblib(load):
    trained = classifier()
    model = load("model.joblib", "joblib", lambda path: joblib.dump(trained, path))
    assert predicted(model, rows_of(NUMBERS)) == trained.predict(NUMBERS).tolist()
    assert predicted(model, rows_of(NUMBERS), probabilities=True) == trained.predict_proba(NUMBERS).tolist()
    assert predicted(model, []) == []


def test_probabilities_that_a_model_has_not_are_refused(load):
    from sklearn.linear_model import LinearRegression

    trained = LinearRegression().fit(NUMBERS, TARGETS)
    model = load("model.pkl", "joblib", lambda path: joblib.dump(trained, path))
    assert predicted(model, rows_of(NUMBERS)) == pytest.approx(TARGETS)
    with pytest.raises(Refused, match="no probabilities"):
        predicted(model, rows_of(NUMBERS), probabilities=True)


def test_what_cannot_predict_is_told_at_the_start(load):
    with pytest.raises(ValueError, match=r"holds a dict, which has no predict\(\)"):
        load("model.joblib", "joblib", lambda path: joblib.dump({"not": "a model"}, path))


def test_missing_values_reach_a_model_that_takes_them(load):
    from sklearn.ensemble import HistGradientBoostingClassifier

    trained = HistGradientBoostingClassifier(max_iter=5).fit(NUMBERS, LABELS)
    model = load("model.joblib", "joblib", lambda path: joblib.dump(trained, path))
    assert predicted(model, [[None, 1.0, 2.0]]) == trained.predict([[np.nan, 1.0, 2.0]]).tolist()


def test_skops(load):
    from skops import io

    trained = classifier()
    model = load("model.skops", "skops", lambda path: io.dump(trained, path))
    assert predicted(model, rows_of(NUMBERS)) == trained.predict(NUMBERS).tolist()


class Own:
    """A type that skops does not know."""

    def predict(self, table: Any) -> Any:
        return [7] * len(table)


def test_skops_takes_no_type_that_nobody_has_looked_at(load, monkeypatch):
    from skops import io

    Own.__module__ = "own_types"
    monkeypatch.setitem(sys.modules, "own_types", sys.modules[__name__])
    with pytest.raises(ValueError, match=r"own_types\.Own.*TRUSTED_TYPES"):
        load("model.skops", "skops", lambda path: io.dump(Own(), path))
    monkeypatch.setattr(scoring, "TRUSTED_TYPES", ("own_types.Own",))
    assert predicted(load("model.skops", "skops", lambda path: io.dump(Own(), path)), [[1.0, 2.0, 3.0]]) == [
        7
    ]


def save_onnx(trained: Any, types: Any) -> Callable[[Path], Any]:
    from skl2onnx import to_onnx

    return lambda path: path.write_bytes(to_onnx(trained, initial_types=types).SerializeToString())


def test_onnx(load):
    from skl2onnx.common.data_types import FloatTensorType

    trained = classifier()
    model = load("model.onnx", "onnx", save_onnx(trained, [("x", FloatTensorType([None, 3]))]))
    assert predicted(model, rows_of(NUMBERS)) == trained.predict(NUMBERS).tolist()
    given = np.array(predicted(model, rows_of(NUMBERS), probabilities=True))
    assert given == pytest.approx(trained.predict_proba(NUMBERS), abs=1e-5)


def test_onnx_regression_gives_one_number_for_each_row(tmp_path):
    from skl2onnx.common.data_types import DoubleTensorType
    from sklearn.linear_model import LinearRegression

    trained = LinearRegression().fit(NUMBERS, TARGETS)
    save_onnx(trained, [("x", DoubleTensorType([None, 3]))])(tmp_path / "m.onnx")
    outputs = [{"name": "y", "datatype": "FP64", "shape": [-1]}]
    manifest = manifest_of(
        {"m.onnx": (tmp_path / "m.onnx").read_bytes()},
        format="onnx",
        signature={"inputs": COLUMNS, "outputs": outputs},
    )
    model = scoring.load(tmp_path, parse_manifest(json.dumps(manifest).encode()))
    assert predicted(model, rows_of(NUMBERS)) == pytest.approx(TARGETS)
    with pytest.raises(Refused):
        predicted(model, rows_of(NUMBERS), probabilities=True)


def test_onnx_with_an_input_for_each_column(load):
    import pandas as pd
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    frame = pd.DataFrame(
        {"size": NUMBERS[:, 0], "kind": np.where(NUMBERS[:, 1] > 0, "red", "white").astype(object)}
    )
    columns = ColumnTransformer([("n", StandardScaler(), ["size"]), ("t", OneHotEncoder(), ["kind"])])
    trained = make_pipeline(columns, LogisticRegression()).fit(frame, LABELS)
    types = [("size", FloatTensorType([None, 1])), ("kind", StringTensorType([None, 1]))]
    inputs = [{"name": "kind", "datatype": "BYTES"}, {"name": "size", "datatype": "FP32"}]
    model = load("model.onnx", "onnx", save_onnx(trained, types), inputs)
    rows = [[row["kind"], float(row["size"])] for _, row in frame.iterrows()]
    assert predicted(model, rows) == trained.predict(frame).tolist()
    with pytest.raises(ValueError, match="lacks the model's inputs kind"):
        load("model.onnx", "onnx", save_onnx(trained, types), inputs[1:])


def test_xgboost(load):
    import xgboost

    for labels, kind in ((LABELS, xgboost.XGBClassifier), (TARGETS, xgboost.XGBRegressor)):
        trained = kind(n_estimators=5, max_depth=2).fit(NUMBERS, labels)
        for file in ("model.ubj", "model.json"):
            model = load(file, "xgboost", trained.save_model)
            assert predicted(model, rows_of(NUMBERS)) == trained.predict(NUMBERS).tolist()
            assert len(predicted(model, [[None, 1.0, None]])) == 1
    three = np.digitize(NUMBERS[:, 0], [-0.5, 0.5])
    trained = xgboost.XGBClassifier(n_estimators=5).fit(NUMBERS, three)
    model = load("model.ubj", "xgboost", trained.save_model)
    assert predicted(model, rows_of(NUMBERS)) == trained.predict(NUMBERS).tolist()
    given = np.array(predicted(model, rows_of(NUMBERS), probabilities=True))
    assert given == pytest.approx(trained.predict_proba(NUMBERS))


def test_lightgbm(load, lightgbm):
    options = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}
    for labels, objective, classes in (
        (LABELS, "binary", 1),
        (np.digitize(NUMBERS[:, 0], [0.5]), "multiclass", 2),
    ):
        more = {"num_class": classes} if objective == "multiclass" else {}
        booster = lightgbm.train(
            {**options, **more, "objective": objective}, lightgbm.Dataset(NUMBERS, labels), 5
        )
        model = load("model.txt", "lightgbm", booster.save_model)
        scores = np.asarray(booster.predict(NUMBERS))
        wanted = (scores > 0.5).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        assert predicted(model, rows_of(NUMBERS)) == wanted.tolist()
        given = np.array(predicted(model, rows_of(NUMBERS), probabilities=True))
        assert given.sum(axis=1) == pytest.approx(1.0)
        assert given[:, 1] == pytest.approx(scores if scores.ndim == 1 else scores[:, 1])
    booster = lightgbm.train({**options, "objective": "regression"}, lightgbm.Dataset(NUMBERS, TARGETS), 5)
    model = load("model.txt", "lightgbm", booster.save_model)
    assert predicted(model, rows_of(NUMBERS)) == np.asarray(booster.predict(NUMBERS)).tolist()
    with pytest.raises(Refused):
        predicted(model, rows_of(NUMBERS), probabilities=True)


def test_a_library_of_the_system_that_is_missing_is_named(load, tmp_path, monkeypatch):
    (tmp_path / "lightgbm.py").write_text("raise OSError('libgomp.so.1: cannot open shared object file')")
    monkeypatch.delitem(sys.modules, "lightgbm", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(OSError, match=r"libgomp.so.1: .*apt install libgomp1"):
        load("model.txt", "lightgbm", lambda path: path.write_text("tree"))


def test_boosting_with_categories_gets_the_categories_of_its_training(load, lightgbm):
    import pandas as pd
    import xgboost

    kinds = pd.Categorical(np.where(NUMBERS[:, 1] > 0, "red", "white"))
    frame = pd.DataFrame({"kind": kinds, "size": NUMBERS[:, 0]})
    inputs = [{"name": "size", "datatype": "FP64"}, {"name": "kind", "datatype": "BYTES"}]
    rows = [[float(size), str(kind)] for size, kind in zip(frame["size"], frame["kind"], strict=True)]
    options = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 5, "objective": "binary"}
    booster = lightgbm.train(options, lightgbm.Dataset(frame, LABELS), 5)
    model = load("model.txt", "lightgbm", booster.save_model, inputs)
    wanted = (np.asarray(booster.predict(frame)) > 0.5).astype(int).tolist()
    assert predicted(model, rows) == wanted
    assert [predicted(model, [row])[0] for row in rows[:20]] == wanted[:20], (
        "a single row has one category only"
    )
    trained = xgboost.XGBClassifier(n_estimators=5, enable_categorical=True).fit(frame, LABELS)
    model = load("model.ubj", "xgboost", trained.save_model, inputs)
    assert [predicted(model, [row])[0] for row in rows[:20]] == trained.predict(frame).tolist()[:20]


def test_plain_python(load):
    code = "def load(folder):\n    return 3\ndef predict(model, rows, parameters):\n    return [model * row[0] for row in rows]\n"
    model = load("model.py", "python", lambda path: path.write_text(code))
    assert predicted(model, [[2.0], [5.0]]) == [6.0, 15.0]
    with pytest.raises(ValueError, match=r"model\.py"):
        load("other.py", "python", lambda path: path.write_text(code))


def test_an_unknown_format_lists_those_that_are_known(load):
    with pytest.raises(ValueError, match='loads joblib, skops, onnx, xgboost, lightgbm, python, not "rds"'):
        load("model.rds", "rds", lambda path: path.write_bytes(b""))


# -- DataFrames

INPUTS = (
    Tensor(name="size", datatype="FP64"),
    Tensor(name="count", datatype="INT32"),
    Tensor(name="ok", datatype="BOOL"),
    Tensor(name="kind", datatype="BYTES"),
    Tensor(name="small", datatype="FP32"),
)
SIGNATURE = Signature(inputs=INPUTS)
ORDER = ["kind", "small", "count", "ok", "size"]


def test_a_frame_has_the_columns_of_the_training_in_their_order():
    frame = frame_table(SIGNATURE, ORDER)([[1.5, 2, True, "red", 0.5], [2.5, 3, False, "white", 1.5]])
    assert list(frame.columns) == ORDER
    assert frame["kind"].tolist() == ["red", "white"]
    assert {name: str(kind) for name, kind in frame.dtypes.items() if name != "kind"} == {
        "small": "float32", "count": "int32", "ok": "bool", "size": "float64",
    }  # fmt: skip


@pytest.mark.parametrize("many", [True, False])
def test_holes_come_out_as_in_a_file_that_pandas_reads(tmp_path, many):
    """What a model saw in training was read from somewhere; a request with the same values must look the same."""
    import pandas as pd

    rows: list[list[Any]] = [[None, None, None, None, None]]
    if many:
        rows += [[1.5, 2, True, "red", 0.5], [2.5, 3, False, "white", 1.5]]
    made = frame_table(SIGNATURE, ORDER)(rows)
    if many:
        pd.DataFrame(rows, columns=[tensor.name for tensor in INPUTS]).to_csv(tmp_path / "x.csv", index=False)
        read = pd.read_csv(tmp_path / "x.csv")[ORDER]
        pd.testing.assert_frame_equal(made, read, check_dtype=False)
        assert str(made["count"].dtype) == str(read["count"].dtype) == "float64"
        assert made["kind"].dtype == read["kind"].dtype
        assert made["ok"].dtype == read["ok"].dtype
    assert made.iloc[0].isna().all()


def test_a_signature_that_does_not_fit_the_training_stops_the_start():
    with pytest.raises(
        ValueError, match="trained on the columns kind, other, but the signature's inputs are size"
    ):
        frame_table(SIGNATURE, ["kind", "other"])


def trained_on_a_frame() -> tuple[Any, Any]:
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    generator = np.random.default_rng(8)
    kinds = generator.choice(["red", "white", "rosé"], size=120)
    frame = pd.DataFrame({"kind": kinds, "age": generator.integers(1, 9, size=120), "size": NUMBERS[:, 0]})
    frame.loc[::7, "kind"] = np.nan
    frame.loc[::5, "size"] = np.nan
    text = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    columns = ColumnTransformer([("t", text, ["kind"]), ("n", SimpleImputer(), ["age", "size"])])
    return make_pipeline(columns, RandomForestClassifier(20, random_state=7)).fit(frame, LABELS), frame


FRAME_INPUTS = [
    {"name": "size", "datatype": "FP64"},
    {"name": "kind", "datatype": "BYTES"},
    {"name": "age", "datatype": "INT64"},
]
FRAME_SIGNATURE = Signature(
    inputs=tuple(Tensor(name=tensor["name"], datatype=tensor["datatype"]) for tensor in FRAME_INPUTS)
)


def test_a_model_trained_on_a_frame_predicts_as_in_training(load):
    import pandas as pd

    trained, frame = trained_on_a_frame()
    model = load("model.joblib", "joblib", lambda path: joblib.dump(trained, path), FRAME_INPUTS)
    instances = [
        {name: None if pd.isna(value) else value for name, value in row.items()}
        for row in frame.to_dict(orient="records")
    ]
    rows = read_instances({"instances": instances}, FRAME_SIGNATURE).rows
    wanted = trained.predict_proba(frame).tolist()
    assert predicted(model, rows, probabilities=True) == wanted
    one_by_one = [predicted(model, [row], probabilities=True)[0] for row in rows[:40]]
    assert one_by_one == pytest.approx(np.array(wanted[:40])), "a row alone is predicted as among others"


def test_warnings_of_a_model_are_none(load, recwarn):
    """scikit-learn warns where a model that was trained on a frame gets an array, and the other way round."""
    trained, _ = trained_on_a_frame()
    model = load("model.joblib", "joblib", lambda path: joblib.dump(trained, path), FRAME_INPUTS)
    predicted(model, [[0.5, "red", 3], [None, None, None]])
    assert [str(warning.message) for warning in recwarn if "feature names" in str(warning.message)] == []


def test_text_beside_numbers_leaves_the_numbers_numbers():
    table = array_table(Signature(inputs=(INPUTS[0], INPUTS[3])))([[1.5, "red"], [None, "white"]])
    assert table.dtype == object
    assert table[0].tolist() == [1.5, "red"]
    assert np.isnan(table[1][0])


def test_one_input_that_is_a_row_of_values_is_a_table():
    signature = Signature(inputs=(Tensor(name="x", datatype="FP32", shape=(-1, 3)),))
    assert array_table(signature)([[[1, 2, 3]], [[4, None, 6]]]).shape == (2, 3)
