"""A model that every language can have: 2x + 3n + k, of a number, a short and a long integer."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.contract.backends.process import ROOT

SIGNATURE = {
    "inputs": [
        {"name": "x", "datatype": "FP64", "shape": [-1]},
        {"name": "n", "datatype": "INT32", "shape": [-1]},
        {"name": "k", "datatype": "INT64", "shape": [-1]},
    ],
    "outputs": [{"name": "y", "datatype": "FP64", "shape": [-1]}],
}
SAMPLES = [
    {"request": {"instances": [{"x": 1.5, "n": 2, "k": 3}]}, "response": {"predictions": [12.0]}},
    {"request": {"instances": [[0.0, 0, 0], [1.0, 1, 1]]}, "response": {"predictions": [0.0, 6.0]}},
]
TENSORS = [
    {"name": name, "shape": [1], "datatype": kind, "data": [value]}
    for name, kind, value in (("x", "FP64", 1.5), ("n", "INT32", 2), ("k", "INT64", 3))
]


def publish(store: str, source: Path, model: str = "linear", version: str = "1", **environ: Any) -> None:
    """`chips publish`, as a person would."""
    described = source.parent / "described"
    described.mkdir(exist_ok=True)
    (described / "signature.json").write_text(json.dumps(SIGNATURE))
    (described / "samples.json").write_text(json.dumps(SAMPLES))
    command = [sys.executable, "-m", "gateway.cli", "publish", str(source), "--model", model, "--no-try"]
    command += ["--version", version, "--store", store, "--signature", str(described / "signature.json")]
    command += ["--samples", str(described / "samples.json")]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environ}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done


def write_joblib(path: Path) -> Path:
    """As scikit-learn has it."""
    import joblib
    import numpy as np
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit(np.eye(3), np.zeros(3))
    model.coef_, model.intercept_ = np.array([2.0, 3.0, 1.0]), 0.0
    joblib.dump(model, path)
    return path
