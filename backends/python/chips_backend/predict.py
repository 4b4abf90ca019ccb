"""The file to edit: how a model is loaded, and how it predicts. Nothing here knows about the web.

`load` is called once in each worker, after every file of the artifact has been checked against its SHA-256. `predict`
gets rows in the order of the signature and returns one prediction for each row, in the same order. What it raises
becomes a 500 and a stack in the log; `Refused("why")` becomes a 422 that tells the caller why.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from chips_backend.loaders import load_model
from chips_backend.manifest import Manifest
from chips_backend.model import Model, Rows

# "thread": for libraries that let go of the interpreter while they compute (scikit-learn, ONNX Runtime, XGBoost, …).
# "process": for models in plain Python, which would otherwise run one at a time. They share a model's memory.
RUNS_IN: Final[Literal["thread", "process"]] = "thread"

# Types of a skops file that you have looked at and trust, such as "sklearn.calibration._CalibratedClassifier".
TRUSTED_TYPES: Final[tuple[str, ...]] = ()

# Request parameters of your own, name -> type, such as {"currency": str}: what nobody declares is refused with 422.
PARAMETERS: Final[Mapping[str, type]] = {}


def load(folder: Path, manifest: Manifest) -> Model:
    """Load the model from the artifact's files in `folder`: joblib, skops, ONNX, XGBoost, LightGBM or plain Python."""
    return load_model(folder, manifest, trusted=TRUSTED_TYPES)


def predict(model: Model, rows: Rows, parameters: dict[str, Any]) -> Any:
    """Predict each row. A classifier also gives probabilities: `{"parameters": {"probabilities": true}}`."""
    table = model.table(rows)  # a DataFrame where the model was trained on one, else an array: change it here
    return model.predict(table, parameters)
