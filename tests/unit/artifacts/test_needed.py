"""What a model needs, by looking into its file: nothing of it is imported or called."""

import pickle
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from gateway.artifacts.infer_requirements import SCRIPT, infer_requirements

TABLE = pd.DataFrame({"a": np.arange(30.0), "c": list("xyz") * 10, "d": pd.Categorical(list("uv") * 15)})
TARGET = np.arange(30) % 2
SKLEARN = {"scikit-learn", "numpy"}

MODELS: dict[str, tuple[Callable[[], Any], set[str]]] = {
    "a forest behind encoders": (
        lambda: make_pipeline(
            make_column_transformer((OneHotEncoder(), ["c", "d"]), (StandardScaler(), ["a"])),
            RandomForestClassifier(3),
        ).fit(TABLE, TARGET),
        SKLEARN,
    ),
    "text": (
        lambda: make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TABLE.c * 3, TARGET),
        SKLEARN,
    ),
    "boosting": (lambda: HistGradientBoostingClassifier(max_iter=2).fit(TABLE[["a"]], TARGET), SKLEARN),
    "columns in Fortran's order": (lambda: np.asfortranarray(np.ones((7, 3))), {"numpy"}),
    "objects": (lambda: np.array([["a", None], [3, b"x"]], dtype=object), {"numpy"}),
    "records": (lambda: np.zeros(5, dtype=[("a", "i4"), ("b", "f8")]), {"numpy"}),
    "nothing": (lambda: np.zeros((0, 3)), {"numpy"}),
    "texts and truths": (
        lambda: [np.array(["ab", "c"]), np.array([True, False]), np.array([b"xyz"])],
        {"numpy"},
    ),
    "times": (lambda: pd.date_range("2026-01-01", periods=4), {"numpy", "pandas"}),
    "a frame": (lambda: TABLE, {"numpy", "pandas"}),
}
WAYS: dict[str, Callable[[Any, Path], Any]] = {
    "joblib": joblib.dump,
    "joblib, zlib": lambda model, path: joblib.dump(model, path, compress=3),
    "joblib, gzip": lambda model, path: joblib.dump(model, path, compress=("gzip", 3)),
    "joblib, xz": lambda model, path: joblib.dump(model, path, compress=("xz", 1)),
    "joblib, bz2": lambda model, path: joblib.dump(model, path, compress=("bz2", 1)),
    "pickle 0": lambda model, path: path.write_bytes(pickle.dumps(model, protocol=0)),
    "pickle 2": lambda model, path: path.write_bytes(pickle.dumps(model, protocol=2)),
    "pickle 5": lambda model, path: path.write_bytes(pickle.dumps(model, protocol=5)),
}


@pytest.mark.parametrize("what", MODELS)
def test_the_packages_are_found_in_whatever_way_it_was_saved(tmp_path: Path, what: str):
    make, wanted = MODELS[what]
    model = make()
    for way, save in WAYS.items():
        path = tmp_path / f"{way}.joblib"
        save(model, path)
        needed = infer_requirements([(path.name, path)], "joblib")
        assert set(needed.packages) - {"python", "joblib"} == wanted, way
        assert all(needed.packages[name] == metadata.version(name) for name in wanted), way
        assert needed.own == {}, way


def test_what_the_file_says_of_its_version_counts_not_what_is_installed(tmp_path: Path):
    model = LogisticRegression().fit(TABLE[["a"]], TARGET)
    state = model.__getstate__()
    content = pickle.dumps(model).replace(state["_sklearn_version"].encode(), b"1.2.0")
    path = tmp_path / "model.pkl"
    path.write_bytes(content)
    needed = infer_requirements([("model.pkl", path)], "joblib")
    assert needed.packages["scikit-learn"] == "1.2.0"
    assert needed.older == [
        f"scikit-learn 1.2.0 saved it, and scikit-learn {metadata.version('scikit-learn')} is installed here"
    ]


def test_nothing_that_is_pickled_is_called(tmp_path: Path):
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "exploded",))

    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps([Bomb()]))
    infer_requirements([("model.pkl", path)], "joblib")
    assert not (tmp_path / "exploded").exists()


def test_a_function_of_the_training_script_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def days(table: Any) -> Any:
        return table

    days.__module__, days.__qualname__ = SCRIPT, "days"
    monkeypatch.setattr(sys.modules[SCRIPT], "days", days, raising=False)
    path = tmp_path / "model.joblib"
    joblib.dump(FunctionTransformer(days), path)
    assert infer_requirements([("model.joblib", path)], "joblib").own == {SCRIPT: ["days"]}


def test_a_module_of_ones_own_is_named_unless_it_lies_in_the_artifact(tmp_path: Path):
    path = tmp_path / "model.pkl"
    path.write_bytes(b"cown_steps\nDays\n.")
    assert infer_requirements([("model.pkl", path)], "joblib").own == {"own_steps": ["Days"]}
    background = tmp_path / "own_steps.py"
    background.write_text("class Days: ...\n")
    files = [("model.pkl", path), ("own_steps.py", background)]
    assert infer_requirements(files, "joblib").own == {}


def test_plain_python_names_what_it_imports(tmp_path: Path):
    path = tmp_path / "model.py"
    path.write_text("import json, numpy.linalg\nfrom sklearn import tree\nfrom . import x\n")
    assert set(infer_requirements([("model.py", path)], "python").packages) == {"python", *SKLEARN}


@pytest.mark.parametrize("suffix", ["ubj", "json"])
def test_xgboost_writes_its_version_into_the_file(tmp_path: Path, suffix: str):
    import xgboost

    path = tmp_path / f"model.{suffix}"
    xgboost.XGBClassifier(n_estimators=2).fit(TABLE[["a"]], TARGET).save_model(path)
    found = infer_requirements([(path.name, path)], "xgboost").packages
    assert xgboost.__version__ in found.values()
    assert "scikit-learn" not in found


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x04", b"\x80\x04\x95", b"x" * 99, b"\x1f\x8bx", b"\x78\x9cx", b"BZhx"]
)
def test_what_cannot_be_followed_says_so(tmp_path: Path, content: bytes):
    path = tmp_path / "model.pkl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.pkl: it cannot be"):
        infer_requirements([("model.pkl", path)], "joblib")


def test_a_file_that_is_cut_off_says_so(tmp_path: Path):
    path = tmp_path / "model.joblib"
    joblib.dump(np.ones(1000), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="ends inside an array"):
        infer_requirements([("model.joblib", path)], "joblib")
