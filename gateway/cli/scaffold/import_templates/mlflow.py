"""Loads and serves an imported MLflow model. Its own pyfunc flavour runs it. Written by `chips import-model`."""

import json
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pandas as pd
import yaml

_HOME = Path(__file__).parent / "mlflow"
_SIGNATURE = yaml.safe_load((_HOME / "MLmodel").read_text())["signature"]
_INPUTS = json.loads(_SIGNATURE["inputs"])
_DTYPES = {
    "long": "int64",
    "integer": "int32",
    "double": "float64",
    "float": "float32",
    "boolean": "bool",
    "string": "object",
    "datetime": "datetime64[ns]",
}
_TYPES = {"long": int, "integer": int, "double": float, "float": float, "boolean": bool, "string": str}
PARAMETERS = {one["name"]: _TYPES.get(one["type"], object) for one in json.loads(_SIGNATURE.get("params") or "[]")}


def load(folder):
    return mlflow.pyfunc.load_model(str(Path(folder) / "mlflow"))


def predict(model, rows, parameters):
    table = _tensors(rows) if _INPUTS[0]["type"] == "tensor" else _frame(rows)
    return model.predict(table, params=parameters or None) if PARAMETERS else model.predict(table)


def _frame(rows):
    """A DataFrame with the dtypes that MLflow's schema asks for."""
    columns = {}
    for at, one in enumerate(_INPUTS):
        values = [row[at] for row in rows]
        dtype = _DTYPES.get(one["type"], "object")
        if dtype == "datetime64[ns]":
            columns[one["name"]] = pd.to_datetime(pd.Series(values), format="ISO8601").astype(dtype)
        elif None in values and dtype in {"int64", "int32"}:  # as pandas reads such a column; MLflow says whether that will do
            columns[one["name"]] = pd.Series(values, dtype="float64")
        elif None in values and dtype == "bool":
            columns[one["name"]] = pd.Series(values, dtype="object")
        else:
            columns[one["name"]] = pd.Series(values, dtype=dtype)
    return pd.DataFrame(columns)


def _tensors(rows):
    """One array, or one by name, with the dtypes and shapes of MLflow's schema."""
    if len(_INPUTS) == 1 and "name" not in _INPUTS[0]:
        return _array(_INPUTS[0], [row[0] if len(row) == 1 and isinstance(row[0], list) else row for row in rows])
    return {one["name"]: _array(one, [row[at] for row in rows]) for at, one in enumerate(_INPUTS)}


def _array(one, values):
    spec = one["tensor-spec"]
    array = np.array(values, dtype="object" if spec["dtype"] == "str" else spec["dtype"])
    return array.reshape(-1, *spec["shape"][1:]) if -1 not in spec["shape"][1:] else array
