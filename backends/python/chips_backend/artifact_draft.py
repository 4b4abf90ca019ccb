"""A draft of an artifact: written, then loaded and scored as a backend does, before it takes its place.

Run as a program (`python -m chips_backend.artifact_draft FOLDER FORMAT`), it checks a draft in a process that has none of the author's
modules but those in the draft.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from chips_backend.decode_instances import read_instances
from chips_backend.example_columns import CannotSave
from chips_backend.loaders import load_model
from chips_backend.manifest import Manifest, Signature, Tensor, parse_manifest
from chips_backend.model import Refused
from chips_backend.own_code import OwnCode
from chips_backend.predictions_as_json import WrongAnswer, as_predictions, is_close
from chips_backend.problem_details import Problem
from chips_backend.testing import manifest_of
from chips_backend.wrong_files import WrongArtifact

TOLERANCE: Final = 1e-6  # of the samples: absolute, or relative to the larger number
MODEL_FILES: Final = {
    "joblib": "model.joblib",
    "skops": "model.skops",
    "onnx": "model.onnx",
    "xgboost": "model.ubj",
    "lightgbm": "model.txt",
}
SIGNATURE: Final = "signature.json"
SAMPLES: Final = "samples.json"
_EX_DATAERR: Final = 65


def write_model(model: Any, kind: str, folder: Path, own: OwnCode) -> None:
    """Write the model and its author's modules into `folder`. Raises CannotSave."""
    path = folder / MODEL_FILES[kind]
    if kind == "onnx" and not hasattr(model, "SerializeToString"):
        raise CannotSave(
            f"{type(model).__name__} is no ONNX model: convert it first, as with skl2onnx.to_onnx(model, X[:1]), and save the result"
        )
    for name, source in own.files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source, encoding="utf-8")
    try:
        if kind == "skops":
            from skops import io

            path.write_bytes(io.dumps(model))
        elif kind == "xgboost":
            path.write_bytes(
                (model.get_booster() if hasattr(model, "get_booster") else model).save_raw("ubj")
            )
        elif kind == "lightgbm":
            path.write_text(
                (model.booster_ if hasattr(model, "booster_") else model).model_to_string(), encoding="utf-8"
            )
        elif kind == "onnx":
            path.write_bytes(model.SerializeToString())
        else:
            import joblib

            with own.in_place():
                joblib.dump(model, path, compress=3)
    except Exception as error:
        raise CannotSave(f"the model cannot be written as {kind}: {type(error).__name__}: {error}") from error


def check(folder: Path, kind: str, *, alone: bool) -> None:
    """Each sample alone, and all together, must come out as the model itself predicts. Raises CannotSave.

    `alone`: in a process of its own, where the author's modules are to be found in the draft only.
    """
    if not alone:
        _check(folder, kind)
        return
    home = str(Path(__file__).resolve().parent.parent)
    code = f"import sys; sys.path.append({home!r}); from chips_backend.artifact_draft import main; sys.exit(main())"
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-P", "-c", code, str(folder.absolute()), kind],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip()
        raise CannotSave(
            said if done.returncode == _EX_DATAERR else f"a backend could not serve it: {said[-2000:]}"
        )


def main() -> int:
    """Check the draft that the arguments name; what is wrong goes to standard error."""
    try:
        _check(Path(sys.argv[1]), sys.argv[2])
    except CannotSave as error:
        sys.stderr.write(
            f"{error}\n(the model was loaded with {', '.join(_own_files(Path(sys.argv[1])))} of your own next to it, and nothing else of yours)"
        )
        return _EX_DATAERR
    return 0


def _own_files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.py"))


def _check(folder: Path, kind: str) -> None:
    signature = json.loads((folder / SIGNATURE).read_bytes())
    content = json.loads((folder / SAMPLES).read_bytes())
    files = [MODEL_FILES[kind], *_own_files(folder)]
    described = manifest_of(
        {name: (folder / name).read_bytes() for name in files},
        format=kind,
        signature=signature,
        samples=content,  # by which a backend finds the form of its table
    )
    try:
        manifest = parse_manifest(msgspec.json.encode(described))
        loaded = load_model(folder, manifest)
        alone = [_score(loaded, manifest, [sample["request"]["instances"][0]]) for sample in content]
        together = _score(loaded, manifest, [sample["request"]["instances"][0] for sample in content])
    except (WrongArtifact, WrongAnswer, Refused, Problem) as error:
        raise CannotSave(f"a backend could not serve it: {_text(error)}") from error
    except Exception as error:
        raise CannotSave(f"a backend could not serve it: {type(error).__name__}: {error}") from error
    for number, sample in enumerate(content):
        wanted = sample["response"]["predictions"][0]
        for got, how in ((alone[number][0], "alone"), (together[number], "together with the others")):
            if not is_close(got, wanted, TOLERANCE):
                raise CannotSave(
                    f"a backend would predict {_short(got)} for the sample {number} {how}, the model here {_short(wanted)}: "
                    f"its input was {_short(sample['request']['instances'][0])}. Does the model see the columns in another type or "
                    "order than `example` has?"
                )


def _score(loaded: Any, manifest: Manifest, instances: list[Any]) -> list[Any]:
    scoring = read_instances({"instances": instances}, loaded.signature or manifest.signature, {})
    names = [tensor.name for tensor in manifest.signature.outputs]
    return as_predictions(
        loaded.predict(loaded.table(scoring.rows), {}), len(instances), names if len(names) > 1 else ()
    )


def _text(error: Exception) -> str:
    problems = getattr(error, "problems", None) or getattr(error, "detail", None)
    return str(problems or error)


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 200 else text[:200] + "…"


def plain(signature: Signature) -> dict[str, Any]:
    """A signature as signature.json has it."""

    def tensor(one: Tensor) -> dict[str, Any]:
        described: dict[str, Any] = {"name": one.name, "datatype": one.datatype, "shape": list(one.shape)}
        return described if one.categories is None else {**described, "categories": list(one.categories)}

    return {
        "inputs": [tensor(one) for one in signature.inputs],
        "outputs": [tensor(one) for one in signature.outputs],
    }


def write_json(path: Path, content: Any, *, indent: int | None = 2) -> None:
    text = json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def predict_onnx(model: Any, signature: Signature, rows: list[list[Any]], folder: Path) -> list[Any]:
    """What ONNX Runtime answers for these rows; the file in `folder` is the model."""
    write_model(model, "onnx", folder, OwnCode({}))
    name = MODEL_FILES["onnx"]
    described = manifest_of({name: (folder / name).read_bytes()}, format="onnx", signature=plain(signature))
    loaded = load_model(folder, parse_manifest(msgspec.json.encode(described)))
    return as_predictions(loaded.predict(loaded.table(rows), {}), len(rows))
