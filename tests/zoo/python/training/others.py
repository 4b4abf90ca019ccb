# Long: one table of models.
"""Kinds of the other libraries: XGBoost, LightGBM, ONNX, skops, statsmodels, plain Python, PyTorch where it is installed."""

import importlib.util
import json

import lightgbm
import numpy as np
import pandas as pd
import xgboost
from data import (
    ARRAY_INPUTS,
    ARRAY_ROWS,
    BINARY,
    FRAME,
    LABELS,
    MARKS,
    NUMBERS,
    POSITIVE,
    TARGET,
    array,
    frame_of,
    inputs_of,
    rows_of,
)  # fmt: skip
from scikit import saved
from sklearn import linear_model, pipeline, preprocessing
from sklearn.calibration import CalibratedClassifierCV
from specimen import Specimen

CODES = np.unique(LABELS, return_inverse=True)[1]
COLUMNS = ["kind", "mean age", "size"]
PLAIN = FRAME[COLUMNS].replace({"kind": {"ros\u00e9": "rose"}})


def with_categories(frame, *kinds):
    dtype = pd.CategoricalDtype(list(kinds))  # not in the order of the alphabet
    typed = frame.assign(kind=frame["kind"].astype(dtype))
    as_typed = {
        "table": frame_of(COLUMNS, {"kind": dtype}),
        "inputs": inputs_of(COLUMNS),
        "rows": rows_of(frame),
    }
    return typed, as_typed


MIXED, AS_MIXED = with_categories(PLAIN, "white", "rose", "red")
NOT_ASCII, AS_NOT_ASCII = with_categories(FRAME[COLUMNS], "white", "ros\u00e9", "red")
ON_ARRAY = {"table": array, "inputs": ARRAY_INPUTS, "rows": ARRAY_ROWS}


def native(model, name):
    def save(folder):
        model.save_model(folder / name)
        return name

    return save


def xgboosts():
    name, small = "XGBoost", {"n_estimators": 6, "max_depth": 3}
    classifier = xgboost.XGBClassifier(**small).fit(NUMBERS, CODES)
    for file in ("model.ubj", "model.json", "model.bst"):
        yield Specimen(
            name,
            f"XGBClassifier, {file}",
            classifier,
            save=native(classifier, file),
            format="xgboost",
            **ON_ARRAY,
        )
    marks = xgboost.XGBClassifier(**small).fit(NUMBERS, MARKS[:, :2])
    yield Specimen(name, "XGBClassifier with two labels", marks, save=native(marks, "m.ubj"), format="xgboost", **ON_ARRAY,
                   classes=[])  # fmt: skip
    regressor = xgboost.XGBRegressor(**small, objective="count:poisson").fit(NUMBERS, POSITIVE)
    yield Specimen(
        name,
        "XGBRegressor, count:poisson",
        regressor,
        save=native(regressor, "m.ubj"),
        format="xgboost",
        **ON_ARRAY,
    )
    mixed = xgboost.XGBClassifier(**small, enable_categorical=True).fit(MIXED, BINARY)
    yield Specimen(name, "XGBClassifier with a category column, .ubj", mixed, save=native(mixed, "m.ubj"), format="xgboost",
                   **AS_MIXED, note="A category that it never saw is a 422.")  # fmt: skip
    yield Specimen(name, "XGBClassifier with a category column, joblib", mixed, save=saved(mixed), **AS_MIXED)
    calibrated = CalibratedClassifierCV(xgboost.XGBClassifier(**small, enable_categorical=True), cv=2).fit(
        MIXED, BINARY
    )
    yield Specimen(name, "XGBClassifier with a category column inside CalibratedClassifierCV", calibrated,
                   save=saved(calibrated), **AS_MIXED)  # fmt: skip
    inside = pipeline.Pipeline([("model", mixed)])
    yield Specimen(
        name, "XGBClassifier with a category column inside a Pipeline", inside, save=saved(inside), **AS_MIXED
    )
    old = {**AS_MIXED, "inputs": inputs_of(COLUMNS, kind=["white", "rose", "red"])}
    yield Specimen(name, "A file of XGBoost before 3.1 with a category column", mixed, save=as_before(mixed), format="xgboost",
                   **old, note='The signature must list the "categories"; without them the start is refused.')  # fmt: skip
    accented = xgboost.XGBClassifier(**small, enable_categorical=True).fit(NOT_ASCII, BINARY)
    listed = {**AS_NOT_ASCII, "inputs": inputs_of(COLUMNS, kind=["white", "ros\u00e9", "red"])}
    yield Specimen(name, "XGBClassifier with categories that are not ASCII", accented, save=native(accented, "m.ubj"),
                   format="xgboost", **listed, note='XGBoost 3.2 cuts such names in its file: the signature must list the "categories".')  # fmt: skip
    rounds = xgboost.train({"objective": "multi:softmax", "num_class": 3}, xgboost.DMatrix(NUMBERS, CODES), 6)
    yield Specimen(name, "xgboost.train, multi:softmax", rounds, save=native(rounds, "m.ubj"), format="xgboost", **ON_ARRAY,
                   predict=lambda table: rounds.predict(xgboost.DMatrix(table)).astype(int), classes=[0, 1, 2],
                   proba=lambda table: shares(rounds.predict(xgboost.DMatrix(table), output_margin=True)))  # fmt: skip
    halves = xgboost.DMatrix(NUMBERS[:80], TARGET[:80]), xgboost.DMatrix(NUMBERS[80:], np.flip(TARGET[80:]))
    early = xgboost.train(
        {"max_depth": 3},
        halves[0],
        30,
        evals=[(halves[1], "test")],
        early_stopping_rounds=3,
        verbose_eval=False,
    )
    yield Specimen(name, "xgboost.train with early stopping", early, save=native(early, "m.ubj"), format="xgboost", **ON_ARRAY,
                   predict=lambda table: early.predict(xgboost.DMatrix(table)))  # fmt: skip
    ranker = xgboost.XGBRanker(**small).fit(NUMBERS, CODES, group=[80, 80])
    yield Specimen(name, "XGBRanker", ranker, save=native(ranker, "m.ubj"), format="xgboost", **ON_ARRAY)


def shares(margins):
    powers = np.exp(margins)
    return powers / powers.sum(axis=1, keepdims=True)


def as_before(model):
    """As XGBoost 1.7 wrote it: without the categories."""

    def save(folder):
        document = json.loads(model.get_booster().save_raw("json"))
        del document["learner"]["gradient_booster"]["model"]["cats"]
        (folder / "model.json").write_text(json.dumps({**document, "version": [1, 7, 6]}))
        return "model.json"

    return save


def lightgbms():
    name, small = "LightGBM", {"n_estimators": 6, "verbose": -1, "num_threads": 1}
    mixed = lightgbm.LGBMClassifier(**small).fit(NOT_ASCII, BINARY)
    yield Specimen(
        name,
        "LGBMClassifier with a category column and blanks in names, joblib",
        mixed,
        save=saved(mixed),
        **AS_NOT_ASCII,
    )
    labels = lightgbm.LGBMClassifier(**small).fit(NUMBERS, LABELS)
    yield Specimen(name, "LGBMClassifier, labels are texts, joblib", labels, save=saved(labels), **ON_ARRAY)
    booster = mixed.booster_

    def classes(table):
        return (booster.predict(table) > 0.5).astype(int)

    for file in ("model.txt", "model.bst"):
        yield Specimen(name, f"Booster with a category column and blanks in names, {file}", booster, predict=classes,
                       save=native(booster, file), format="lightgbm", **AS_NOT_ASCII, classes=[0, 1],
                       proba=lambda table: np.column_stack([1 - booster.predict(table), booster.predict(table)]))  # fmt: skip
    many = lightgbm.train({"objective": "multiclass", "num_class": 3, "verbose": -1, "num_threads": 1},
                          lightgbm.Dataset(NUMBERS, CODES), 6)  # fmt: skip
    yield Specimen(name, "Booster, multiclass", many, save=native(many, "m.txt"), format="lightgbm", **ON_ARRAY,
                   predict=lambda table: many.predict(table).argmax(axis=1), proba=many.predict, classes=[0, 1, 2])  # fmt: skip
    target = lightgbm.LGBMRegressor(**small).fit(
        FRAME[["mean age", "size"]].rename(columns={"size": "size (cm)"}), TARGET
    )
    columns = ["mean age", "size (cm)"]
    yield Specimen(name, "LGBMRegressor, odd names", target.booster_, save=native(target.booster_, "m.txt"), format="lightgbm",
                   inputs=[{"name": columns[0], "datatype": "INT64", "shape": [-1]}, ARRAY_INPUTS[0] | {"name": columns[1]}],
                   rows=rows_of(FRAME[["mean age", "size"]]),
                   table=lambda rows: pd.DataFrame(array(rows), columns=columns))  # fmt: skip


def onnxes():
    import onnxruntime
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType
    from sklearn.compose import make_column_transformer

    name = "ONNX"

    def written(model, types, **options):
        content = to_onnx(model, initial_types=types, **options).SerializeToString()

        def save(folder):
            (folder / "model.onnx").write_bytes(content)
            return "model.onnx"

        return save, onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def floats(rows):
        return array(rows).astype(np.float32)

    def run(session, at):
        return lambda table: session.run(
            [session.get_outputs()[at].name], table if isinstance(table, dict) else {"x": table}
        )[0]

    on_floats = {**ON_ARRAY, "table": floats, "format": "onnx", "tolerance": 1e-5}
    types = [("x", FloatTensorType([None, 3]))]
    logistic = linear_model.LogisticRegression().fit(NUMBERS, LABELS)
    save, session = written(logistic, types, options={id(logistic): {"zipmap": False}})
    yield Specimen(name, "A classifier with an array of probabilities", logistic, save=save, predict=run(session, 0),
                   proba=run(session, 1), classes=[], **on_floats)  # fmt: skip
    save, session = written(logistic, types)
    yield Specimen(name, "A classifier with a map of probabilities", logistic, save=save, predict=run(session, 0), classes=[],
                   proba=lambda table, s=session: [np.array([list(row.values()) for row in run(s, 1)(table)])][0],
                   **on_floats)  # fmt: skip
    regression = linear_model.LinearRegression().fit(NUMBERS, TARGET)
    save, session = written(regression, types)
    yield Specimen(name, "A regression", regression, save=save, predict=lambda table, s=session: run(s, 0)(table).ravel(),
                   **on_floats)  # fmt: skip
    save, session = written(regression, [("x", FloatTensorType([1, 3]))])

    def singly(table, session=session):
        return np.concatenate([run(session, 0)(table[at : at + 1]).ravel() for at in range(len(table))])

    yield Specimen(name, "Exported for one row at a time", regression, save=save, predict=singly, **on_floats)
    frame = FRAME[["kind", "size"]].astype({"kind": object})
    columns = make_column_transformer((preprocessing.OneHotEncoder(handle_unknown="ignore"), ["kind"]),
                                      (preprocessing.StandardScaler(), ["size"]))  # fmt: skip
    mixed = pipeline.make_pipeline(columns, linear_model.LogisticRegression()).fit(frame, BINARY)
    save, session = written(
        mixed, [("kind", StringTensorType([None, 1])), ("size", FloatTensorType([None, 1]))]
    )
    yield Specimen(name, "An input for each column, with text", mixed, save=save, predict=run(session, 0), format="onnx",
                   table=lambda rows: {"kind": np.array([[row[0]] for row in rows], dtype=object),
                                       "size": np.array([[row[1]] for row in rows], dtype=np.float32)},
                   inputs=inputs_of(["kind", "size"]), rows=rows_of(frame), odd=False, tolerance=1e-5, classes=[],
                   proba=lambda table, s=session: np.array([list(row.values()) for row in run(s, 1)(table)]))  # fmt: skip


def skopses():
    from skops import io

    def save_as(model):
        def save(folder):
            io.dump(model, folder / "model.skops")
            return "model.skops"

        return save

    logistic = pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression()).fit(
        NUMBERS, LABELS
    )
    yield Specimen("skops", "A pipeline with LogisticRegression", logistic, save=save_as(logistic), format="skops", **ON_ARRAY,
                   note="Forests need their tree type among TRUSTED_TYPES in predict.py.")  # fmt: skip


def statsmodelses():
    name = "statsmodels"
    if importlib.util.find_spec("statsmodels") is None:
        return
    import statsmodels.api as sm
    import statsmodels.formula.api as smf

    frame = FRAME[["kind", "size"]].assign(y=TARGET)
    formula = smf.ols("y ~ C(kind) * size", frame).fit()
    yield Specimen(name, "ols by formula, with a factor", formula, save=saved(formula), table=frame_of(["kind", "size"]),
                   inputs=inputs_of(["kind", "size"]), rows=rows_of(FRAME[["kind", "size"]]))  # fmt: skip
    logit = sm.GLM(BINARY, NUMBERS, family=sm.families.Poisson()).fit()
    yield Specimen(name, "GLM on an array", logit, save=saved(logit), **ON_ARRAY)


def plain():
    name = "Plain Python"
    code = """
PARAMETERS = {"probabilities": bool, "classes": bool}
CLASSES = ["low", "high"]

def load(folder):
    return 0.25

def predict(model, rows, parameters):
    if parameters.get("probabilities"):
        return [[1 - share(row), share(row)] for row in rows]
    return [{"label": CLASSES[row[0] + row[1] > model], "left": None if row[2] is None else row[2] * 2} for row in rows]

def share(row):
    return min(1.0, abs(row[0]))
"""
    outputs = [
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
        {"name": "left", "datatype": "FP64", "shape": [-1]},
    ]
    scope = {}
    exec(code, scope)  # noqa: S102

    def save(folder):
        (folder / "model.py").write_text(code)
        return "model.py"

    yield Specimen(name, "model.py with two outputs", scope, save=save, format="python", outputs=outputs, inputs=ARRAY_INPUTS,
                   rows=ARRAY_ROWS, table=list, predict=lambda rows: scope["predict"](0.25, rows, {}))  # fmt: skip


def torches():
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    code = """
import torch

def load(folder):
    return torch.jit.load(str(folder / "net.pt"))

def predict(model, rows, parameters):
    with torch.no_grad():
        return model(torch.tensor(rows, dtype=torch.float32))[:, 0]
"""
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))

    def save(folder):
        torch.jit.script(net).save(str(folder / "net.pt"))
        (folder / "model.py").write_text(code)
        return ""

    def predict(table):
        with torch.no_grad():
            return net(torch.tensor(table, dtype=torch.float32))[:, 0].numpy()

    yield Specimen("PyTorch", "TorchScript in a folder with model.py", net, save=save, format="python", predict=predict,
                   table=list, inputs=ARRAY_INPUTS, rows=ARRAY_ROWS, odd=False, tolerance=1e-5)  # fmt: skip


GROUPS = (xgboosts, lightgbms, onnxes, skopses, statsmodelses, plain, torches)
