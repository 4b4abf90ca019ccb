"""Train a small real model: which of three cultivars is this wine, by thirteen measurements?

    python examples/wine/train.py OUT [--format joblib|onnx]

writes OUT/model.joblib (or model.onnx), OUT/signature.json and OUT/samples.json, which `chips publish` takes.
The data are scikit-learn's copy of the UCI wine data set: 178 wines from three cultivars of one region.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import joblib
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder to write to; made if needed")
    parser.add_argument("--format", choices=("joblib", "onnx"), default="joblib")
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)

    wine = load_wine()
    names = [name.replace("/", "_") for name in wine.feature_names]
    train_x, test_x, train_y, test_y = train_test_split(
        wine.data, wine.target, random_state=7, stratify=wine.target
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(train_x, train_y)
    print(f"accuracy on {len(test_y)} wines it has not seen: {model.score(test_x, test_y):.3f}")

    if arguments.format == "onnx":
        write_onnx(model, len(names), out / "model.onnx")
    else:
        joblib.dump(model, out / "model.joblib")
    write_json(
        out / "signature.json",
        {
            "inputs": [{"name": name, "datatype": "FP64", "shape": [-1]} for name in names],
            "outputs": [{"name": "cultivar", "datatype": "INT64", "shape": [-1]}],
        },
    )
    write_json(
        out / "samples.json",
        [
            {
                "request": {"instances": [dict(zip(names, map(float, row), strict=True))]},
                "response": {"predictions": model.predict([row]).tolist()},
                "tolerance": 1e-6,
            }
            for row in test_x[:3]
        ],
    )


def write_onnx(model: Any, width: int, path: Path) -> None:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import DoubleTensorType

    path.write_bytes(
        to_onnx(model, initial_types=[("x", DoubleTensorType([None, width]))]).SerializeToString()
    )


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
