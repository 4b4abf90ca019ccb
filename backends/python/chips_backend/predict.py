"""The file to edit: how a model is loaded, and how it predicts. Nothing here knows about the web.

`load` is called once in each worker, after every file of the artifact has been checked against its SHA-256. `predict`
gets rows in the order of the signature and returns one prediction for each row, in the same order.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from chips_backend.manifest import Manifest

# "thread": for libraries that let go of the interpreter while they compute (scikit-learn, ONNX Runtime).
# "process": for models in plain Python, which would otherwise run one at a time.
RUNS_IN: Final[Literal["thread", "process"]] = "thread"

Row = Sequence[Any]  # one value for each input; None where it is missing


def load(folder: Path, manifest: Manifest) -> Any:
    """Load the model from the artifact's files in `folder`."""
    path = folder / manifest.main_file(".onnx" if manifest.format == "onnx" else ".joblib", ".pkl", ".pickle")
    if manifest.format == "onnx":
        import onnxruntime

        return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    if manifest.format == "joblib":
        import joblib

        return joblib.load(path)
    raise ValueError(
        f'this backend loads "joblib" and "onnx", not "{manifest.format}"; teach it in predict.py'
    )


def predict(model: Any, rows: Sequence[Row], parameters: dict[str, Any]) -> list[Any]:
    """Predict each row. A scikit-learn classifier also gives probabilities: `{"parameters": {"probabilities": true}}`."""
    if hasattr(model, "get_inputs"):
        return _predict_onnx(model, rows)
    table = np.array([[np.nan if value is None else value for value in row] for row in rows])
    if parameters.get("probabilities"):
        return list(model.predict_proba(table).tolist())
    return list(model.predict(table).tolist())


def _predict_onnx(session: Any, rows: Sequence[Row]) -> list[Any]:
    (first, *others) = session.get_inputs()
    if others:
        raise ValueError("this model has several inputs; say in predict.py which field goes where")
    kind = np.float64 if first.type == "tensor(double)" else np.float32
    table = np.array([[np.nan if value is None else value for value in row] for row in rows], dtype=kind)
    return list(session.run([session.get_outputs()[0].name], {first.name: table})[0].tolist())
