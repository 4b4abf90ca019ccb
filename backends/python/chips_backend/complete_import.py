"""`python -m chips_backend.complete_import FOLDER FORMAT`: complete an imported model with the answers to its example rows.

FOLDER has the model, signature.json with its inputs, and examples.json, a list of instances. It gets samples.json, with an answer
for each instance, and signature.json gets the outputs and the categories that the model's encoders know. Run by the Python that will serve the model, since it loads it.
"""

import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from chips_backend.artifact_draft import SAMPLES, SIGNATURE, TOLERANCE, plain, write_json
from chips_backend.decode_instances import read_instances
from chips_backend.encoder_categories import known_categories, with_known_categories
from chips_backend.example_columns import Column
from chips_backend.loaders import load_model
from chips_backend.manifest import Manifest, Signature, parse_manifest
from chips_backend.predictions_as_json import as_predictions
from chips_backend.saving import outputs_of
from chips_backend.testing import manifest_of

EXAMPLES = "examples.json"
_EX_DATAERR = 65


def complete(folder: Path, kind: str) -> int:
    """Write the samples; returns how many. Raises whatever the model raises."""
    instances: list[Any] = json.loads((folder / EXAMPLES).read_bytes())
    signature = json.loads((folder / SIGNATURE).read_bytes())
    described = {path.name for path in (folder / EXAMPLES, folder / SIGNATURE)}
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and path.name not in described
    }
    manifest = parse_manifest(msgspec.json.encode(manifest_of(files, format=kind, signature=signature)))
    loaded = load_model(folder, manifest)
    known = loaded.signature or manifest.signature
    answers = []
    for instance in instances:
        rows = read_instances({"instances": [instance]}, known, {}).rows
        answers += as_predictions(loaded.predict(loaded.table(rows), {}), 1)
    names = [tensor.name for tensor in known.inputs]
    columns = [
        Column(tensor.name, tensor.datatype, [_value(one, names, at) for one in instances], tensor.shape)
        for at, tensor in enumerate(known.inputs)
    ]
    encoded = known_categories(_estimator(folder, kind, manifest), names)
    listed = {column.name: column.categories for column in with_known_categories(columns, encoded)}
    inputs = tuple(
        msgspec.structs.replace(tensor, categories=tensor.categories or listed[tensor.name])
        for tensor in known.inputs
    )
    outputs = Signature(inputs=inputs, outputs=outputs_of(answers))
    samples = [
        {"request": {"instances": [instance]}, "response": {"predictions": [answer]}, "tolerance": TOLERANCE}
        for instance, answer in zip(instances, answers, strict=True)
    ]
    write_json(folder / SAMPLES, samples)
    write_json(folder / SIGNATURE, plain(outputs))
    (folder / EXAMPLES).unlink()
    return len(samples)


def _value(instance: Any, names: Sequence[str], at: int) -> Any:
    return instance.get(names[at]) if isinstance(instance, dict) else instance[at]


def _estimator(folder: Path, kind: str, manifest: Manifest) -> Any:
    """The scikit-learn model itself, whose encoders know categories; None where there is none."""
    if kind == "joblib":
        import joblib

        return joblib.load(folder / manifest.main_file(".joblib"))
    described = folder / "mlflow/MLmodel"
    if kind == "python" and described.exists() and "\n  sklearn:" in described.read_text(encoding="utf-8"):
        return importlib.import_module("mlflow.sklearn").load_model(str(described.parent))
    return None


def main() -> int:
    folder, kind = Path(sys.argv[1]), sys.argv[2]
    try:
        complete(folder, kind)
    except Exception as error:  # noqa: BLE001  (a model's own code)
        detail = getattr(error, "problems", None) or getattr(error, "detail", None) or error
        sys.stderr.write(f"{type(error).__name__}: {detail}\n")
        return _EX_DATAERR
    return 0


if __name__ == "__main__":
    sys.exit(main())
