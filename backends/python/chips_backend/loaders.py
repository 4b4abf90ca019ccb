"""One loader for each format of artifact. All files have been checked against their SHA-256 before one is called.

Checked means: they are what was published. joblib and plain Python run code from the artifact all the same, so whoever
may publish to the store may run code here; skops, ONNX, XGBoost and LightGBM files hold data only.
"""

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from chips_backend.manifest import Manifest, Signature
from chips_backend.model import Model, Refused
from chips_backend.tables import Table, array_table, frame_table


def load_model(folder: Path, manifest: Manifest, *, trusted: Sequence[str] = ()) -> Model:
    """Load the artifact in `folder` by the format that its manifest names. `trusted` types: see skops."""
    loader = _LOADERS.get(manifest.format)
    if loader is None:
        raise ValueError(
            f'this backend loads {", ".join(_LOADERS)}, not "{manifest.format}"; teach it in predict.py'
        )
    return loader(folder, manifest, trusted)


def _joblib(folder: Path, manifest: Manifest, _: Sequence[str]) -> Model:
    import joblib

    return _estimator(
        joblib.load(folder / manifest.main_file(".joblib", ".pkl", ".pickle")), manifest.signature
    )


def _skops(folder: Path, manifest: Manifest, trusted: Sequence[str]) -> Model:
    from skops import io

    path = folder / manifest.main_file(".skops")
    unknown = sorted(set(io.get_untrusted_types(file=path)) - set(trusted))
    if unknown:
        raise ValueError(
            f"the model uses types that skops does not trust by itself: {', '.join(unknown)}. "
            "Look at each; list those that you trust under TRUSTED_TYPES in predict.py"
        )
    return _estimator(io.load(path, trusted=list(trusted)), manifest.signature)


def _estimator(estimator: Any, signature: Signature, *, text_is_category: bool = False) -> Model:
    """A model with scikit-learn's way of talking. Trained on a DataFrame, it gets one."""
    if not hasattr(estimator, "predict"):
        raise TypeError(f"the artifact holds a {type(estimator).__name__}, which has no predict()")

    def predict(table: Any, parameters: dict[str, Any]) -> Any:
        if not len(table):
            return []
        asked = "predict_proba" if parameters.get("probabilities") else "predict"
        if not hasattr(estimator, asked):
            raise Refused("this model has no probabilities")
        try:
            return getattr(estimator, asked)(table)
        except ValueError as error:
            # Most estimators take no missing value and say so in this way. The caller sent it, so it is a 422.
            if "contains NaN" in str(error):
                raise Refused("this model takes no missing values, and a value is null") from None
            raise

    return Model(
        _table_for(getattr(estimator, "feature_names_in_", None), signature, text_is_category), predict
    )


def _table_for(names: Any, signature: Signature, text_is_category: bool = False) -> Table:  # noqa: FBT001, FBT002
    columns = [] if names is None else [str(name) for name in names]
    if not columns or columns == [
        f"Column_{at}" for at in range(len(columns))
    ]:  # LightGBM's names for arrays
        return array_table(signature)
    return frame_table(signature, columns, text_is_category=text_is_category)


def _xgboost(folder: Path, manifest: Manifest, _: Sequence[str]) -> Model:
    import json

    import xgboost

    path = folder / manifest.main_file(".ubj", ".json")
    booster = xgboost.Booster(model_file=path)
    objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
    kinds = {"binary": xgboost.XGBClassifier, "multi": xgboost.XGBClassifier, "rank": xgboost.XGBRanker}
    model = kinds.get(objective.partition(":")[0], xgboost.XGBRegressor)(n_jobs=_threads())
    model.load_model(path)
    return _estimator(model, manifest.signature, text_is_category=True)


def _lightgbm(folder: Path, manifest: Manifest, _: Sequence[str]) -> Model:
    try:
        import lightgbm
    except OSError as error:  # its own library needs one of the system, which no package of Python brings
        raise OSError(f"{error}; on Debian: apt install libgomp1") from error

    booster = lightgbm.Booster(model_file=folder / manifest.main_file(".txt"))
    objective = str(booster.dump_model(num_iteration=1).get("objective", "")).partition(" ")[0]

    def predict(table: Any, parameters: dict[str, Any]) -> Any:
        if not len(table):
            return []
        scores = np.asarray(booster.predict(table, num_threads=_threads()))
        wants_probabilities = parameters.get("probabilities")
        if objective == "binary":
            return (
                np.column_stack([1 - scores, scores]) if wants_probabilities else (scores > 0.5).astype(int)
            )
        if objective in {"multiclass", "multiclassova"}:
            return scores if wants_probabilities else scores.argmax(axis=1)
        if wants_probabilities:
            raise Refused("this model has no probabilities")
        return scores

    return Model(_table_for(booster.feature_name(), manifest.signature, text_is_category=True), predict)


def _onnx(folder: Path, manifest: Manifest, _: Sequence[str]) -> Model:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _threads()
    path = folder / manifest.main_file(".onnx")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs, outputs = session.get_inputs(), session.get_outputs()
    feed = _onnx_feed(inputs, manifest.signature)
    declared = manifest.signature.outputs
    is_flat = bool(declared) and len(declared[0].shape) == 1

    def predict(table: Any, parameters: dict[str, Any]) -> Any:
        if not parameters.get("probabilities"):
            result = session.run([outputs[0].name], table)[0]
            # A regression's answer is [rows, 1] in ONNX, and one number for each row everywhere else.
            return (
                result.ravel()
                if is_flat and getattr(result, "ndim", 1) == 2 and result.shape[1] == 1
                else result
            )
        if len(outputs) < 2:
            raise Refused("this model has no probabilities")
        result = session.run([outputs[1].name], table)[0]
        return [list(row.values()) for row in result] if isinstance(result, list) else result

    return Model(feed, predict)


_ONNX_DTYPES: Final = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16,
    "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_, "tensor(string)": np.object_,
}  # fmt: skip


def _onnx_feed(inputs: Sequence[Any], signature: Signature) -> Table:
    """Rows as what the session is fed with: one table for a single input, else a column by name for each."""
    unknown = [f"{given.name}: {given.type}" for given in inputs if given.type not in _ONNX_DTYPES]
    if unknown:
        raise ValueError(f"inputs of this kind need code of their own in predict.py: {', '.join(unknown)}")
    if len(inputs) == 1:
        table = array_table(signature, _ONNX_DTYPES[inputs[0].type])
        return lambda rows: {inputs[0].name: table(rows)}
    places = {tensor.name: at for at, tensor in enumerate(signature.inputs)}
    missing = [given.name for given in inputs if given.name not in places]
    if missing:
        raise ValueError(f"the signature lacks the model's inputs {', '.join(missing)}")

    def feed(rows: Any) -> dict[str, Any]:
        columns = {}
        for given in inputs:
            column = array_table(Signature(), _ONNX_DTYPES[given.type])(
                [row[places[given.name]] for row in rows]
            )
            columns[given.name] = (
                column.reshape(-1, 1) if column.ndim == 1 and len(given.shape) == 2 else column
            )
        return columns

    return feed


def _python(folder: Path, manifest: Manifest, _: Sequence[str]) -> Model:
    """model.py of the artifact: `load(folder)` gives a model, `predict(model, rows, parameters)` its predictions."""
    path = folder / "model.py"
    if "model.py" not in {file.place for file in manifest.files}:
        raise ValueError(
            "an artifact in plain Python has a file model.py, with load(folder) and predict(model, rows, parameters)"
        )
    sys.path.insert(0, str(folder))  # for modules beside it
    spec = importlib.util.spec_from_file_location("model", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules["model"] = module
    spec.loader.exec_module(module)
    model = module.load(folder)
    return Model(list, lambda rows, parameters: module.predict(model, rows, parameters))


def _threads() -> int:
    """How many threads one prediction may use; the start sets it, so that predictions do not fight for processors."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() else 1


_Loader = Callable[[Path, Manifest, Sequence[str]], Model]
_LOADERS: Final[Mapping[str, _Loader]] = {
    "joblib": _joblib,
    "skops": _skops,
    "onnx": _onnx,
    "xgboost": _xgboost,
    "lightgbm": _lightgbm,
    "python": _python,
}
