"""From a trained model to a folder that `chips publish` takes: `save(model, "trained", example=X.head(50))`.

`save` writes the model in the safest format that holds it, `signature.json` (names, datatypes, categories) and `samples.json`
(a few rows with the model's own answers). It then loads what it wrote as a backend does, scores the samples, and compares:
what cannot be served exactly as it predicts here is refused here.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

import msgspec

from chips_backend.answers import WrongAnswer, as_predictions, is_close
from chips_backend.columns import CannotSave, Column, columns_of, rows_of, take
from chips_backend.files import WrongArtifact
from chips_backend.loaders import load_model
from chips_backend.manifest import Manifest, Signature, Tensor, parse_manifest
from chips_backend.model import Refused
from chips_backend.problem import Problem
from chips_backend.schema import read_instances
from chips_backend.testing import manifest_of

TOLERANCE: Final = 1e-6  # of the samples: absolute, or relative to the larger number
_MODEL_FILES: Final = {
    "joblib": "model.joblib",
    "skops": "model.skops",
    "onnx": "model.onnx",
    "xgboost": "model.ubj",
    "lightgbm": "model.txt",
}


class Saved(NamedTuple):
    """What `save` wrote, and what it understood of the model's inputs and outputs."""

    folder: Path
    format: str
    signature: Signature
    samples: int  # rows with answers in samples.json

    @property
    def command(self) -> str:
        """The command that publishes it; put the model's name and version in."""
        place = self.folder
        return (
            f"chips publish {place / _MODEL_FILES[self.format]} --signature {place / 'signature.json'} "
            f"--samples {place / 'samples.json'} --model NAME --version 1"
        )


def save(
    model: Any,
    folder: str | Path,
    *,
    example: Any,
    format: str | None = None,  # noqa: A002  (the manifest's word)
    samples: int = 5,
    overwrite: bool = False,
    out: TextIO | None = None,
) -> Saved:
    """Write `model` into `folder`, with its signature and samples, and check that a backend predicts the same.

    `example`: rows as the model takes them, 10 to 1000 of the training data: a DataFrame of pandas or Polars, a two-dimensional
    NumPy array or SciPy sparse matrix, or a list of texts. Datatypes, names and categories come from it and from the model.
    `format`: joblib, skops, onnx, xgboost or lightgbm; by default the safest that holds this model. `samples`: how many rows of
    the example to publish with their answers; they cover missing values and categories first. `overwrite`: replace the files
    of an earlier `save`. `out`: where the summary goes (standard output).

    Raises CannotSave; nothing of an earlier `save` is lost then.
    """
    target = Path(folder)
    if samples < 1:
        raise CannotSave("samples must be at least 1: a version without samples cannot be checked")
    columns = columns_of(example, _names_of(model))
    kind = format or _safest_format(model)
    if kind not in _MODEL_FILES:
        raise CannotSave(f'the format "{kind}" is not known; choose {", ".join(_MODEL_FILES)}')
    written = [target / name for name in (_MODEL_FILES[kind], "signature.json", "samples.json")]
    there = [path.name for path in written if path.exists()]
    if there and not overwrite:
        raise CannotSave(
            f"{target} already has {', '.join(there)}; pass overwrite=True to replace, or choose another folder"
        )

    chosen = rows_of(columns, samples)
    instances = [{column.name: column.values[row] for column in columns} for row in chosen]
    predictions = _predict(model, take(example, chosen), len(chosen))
    signature = Signature(inputs=tuple(column.tensor() for column in columns), outputs=_outputs(predictions))
    content = [
        {
            "request": {"instances": [instance]},
            "response": {"predictions": [prediction]},
            "tolerance": TOLERANCE,
        }
        for instance, prediction in zip(instances, predictions, strict=True)
    ]
    target.mkdir(parents=True, exist_ok=True)
    draft = target / f".draft-{_MODEL_FILES[kind]}"
    try:
        _write(model, kind, draft)
        _check(draft, kind, signature, content)
        draft.replace(written[0])
    finally:
        draft.unlink(missing_ok=True)
    written[1].write_text(_pretty(_plain(signature)), encoding="utf-8")
    written[2].write_text(_pretty(content), encoding="utf-8")
    saved = Saved(target, kind, signature, len(chosen))
    _summarize(saved, columns, written[0], out or sys.stdout)
    return saved


# -- what the model is


def _names_of(model: Any) -> Sequence[str] | None:
    names = getattr(model, "feature_names_in_", None)
    if names is None and callable(getattr(model, "feature_name", None)):  # LightGBM's Booster
        names = model.feature_name()
    return None if names is None else [str(name) for name in names]


def _safest_format(model: Any) -> str:
    """A format that holds data only, where one holds this model; joblib, which runs code when loaded, otherwise."""
    kind = f"{type(model).__module__.partition('.')[0]}.{type(model).__name__}"
    if kind == "onnx.ModelProto":
        return "onnx"
    if kind == "lightgbm.Booster":
        return "lightgbm"
    if kind == "xgboost.Booster":
        return "xgboost"
    return "skops" if _holds_in_skops(model) else "joblib"


def _holds_in_skops(model: Any) -> bool:
    try:
        from skops import io

        return not io.get_untrusted_types(data=io.dumps(model))
    except Exception:  # noqa: BLE001  (not installed, or whatever it raises for a type that it does not hold)
        return False


def _predict(model: Any, table: Any, count: int) -> list[Any]:
    ask = next(
        (getattr(model, name) for name in ("predict", "transform") if callable(getattr(model, name, None))),
        None,
    )
    if type(model).__module__.startswith("xgboost") and type(model).__name__ == "Booster":
        import xgboost

        table = xgboost.DMatrix(table, enable_categorical=True)
    if ask is None:
        if type(model).__name__ == "ModelProto":
            raise CannotSave(
                "an ONNX model: write it with onnx.save, and publish it with a signature and samples of your own"
            )
        raise CannotSave(
            f"{type(model).__name__} has no predict() and no transform(); save an object that has one"
        )
    try:
        return as_predictions(ask(table), count)
    except WrongAnswer as error:
        raise CannotSave(
            f"{error}; wrap the model in a class whose predict() returns one prediction a row"
        ) from None
    except Exception as error:
        raise CannotSave(
            f"the model does not predict the rows of `example`: {type(error).__name__}: {error}. "
            "Pass rows as the model takes them in predict()"
        ) from error


def _outputs(predictions: Sequence[Any]) -> tuple[Tensor, ...]:
    first = predictions[0]
    if isinstance(first, dict):
        return tuple(_output(name, [one[name] for one in predictions]) for name in first)
    return (_output("prediction", predictions),)


def _output(name: str, values: Sequence[Any]) -> Tensor:
    shape: list[int] = [-1]
    flat: list[Any] = list(values)
    while flat and isinstance(flat[0], list):
        lengths = {len(value) for value in flat}
        shape.append(lengths.pop() if len(lengths) == 1 else -1)
        flat = [item for value in flat for item in value]
    present = [value for value in flat if value is not None]
    kinds = {type(value) for value in present}
    datatype = (
        "BOOL"
        if kinds == {bool}
        else "INT64"
        if kinds == {int}
        else "FP64"
        if kinds <= {int, float}
        else "BYTES"
    )
    return Tensor(name=name, datatype=datatype, shape=tuple(shape))


# -- writing, and reading it back as a backend does


def _write(model: Any, kind: str, path: Path) -> None:
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

            _refuse_what_a_script_owns(model)
            joblib.dump(model, path, compress=3)
    except CannotSave:
        raise
    except Exception as error:
        raise CannotSave(f"the model cannot be written as {kind}: {type(error).__name__}: {error}") from error


def _refuse_what_a_script_owns(model: Any) -> None:
    """A pickle names functions and classes by their module; no backend has the `__main__` of a notebook or script."""
    import pickle
    import pickletools

    try:
        content = pickle.dumps(model, protocol=4)
    except Exception as error:
        raise CannotSave(
            f"the model cannot be pickled: {error}. A lambda or a function inside a function cannot; write it as a function of a module"
        ) from error
    texts: list[str] = []
    own: set[str] = set()
    for operation, argument, _ in pickletools.genops(content):
        if operation.name in {"SHORT_BINUNICODE", "BINUNICODE", "MEMOIZE"}:
            if isinstance(argument, str):
                texts.append(argument)
        elif operation.name == "STACK_GLOBAL" and len(texts) > 1 and texts[-2] == "__main__":
            own.add(texts[-1])
    if own:
        raise CannotSave(
            f"the model uses {', '.join(sorted(own))} of this script or notebook (__main__), which no backend has: move it to a "
            "module of its own, import it from there, train again, and publish that module with the model"
        )


def _check(path: Path, kind: str, signature: Signature, content: list[dict[str, Any]]) -> None:
    """Load it as a backend does; each sample alone, and all together, must come out as the model itself predicts."""
    manifest = _manifest(path, kind, signature)
    try:
        loaded = load_model(path.parent, manifest)
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
    body = json.loads(json.dumps({"instances": instances}))
    scoring = read_instances(body, loaded.signature or manifest.signature, {})
    names = [tensor.name for tensor in manifest.signature.outputs]
    return as_predictions(
        loaded.predict(loaded.table(scoring.rows), {}), len(instances), names if len(names) > 1 else ()
    )


def _manifest(path: Path, kind: str, signature: Signature) -> Manifest:
    described = manifest_of({path.name: path.read_bytes()}, format=kind, signature=_plain(signature))
    return parse_manifest(msgspec.json.encode(described))


def _text(error: Exception) -> str:
    problems = getattr(error, "problems", None) or getattr(error, "detail", None)
    return str(problems or error)


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 200 else text[:200] + "…"


def _plain(signature: Signature) -> dict[str, Any]:
    def tensor(one: Tensor) -> dict[str, Any]:
        described: dict[str, Any] = {"name": one.name, "datatype": one.datatype, "shape": list(one.shape)}
        return described if one.categories is None else {**described, "categories": list(one.categories)}

    return {
        "inputs": [tensor(one) for one in signature.inputs],
        "outputs": [tensor(one) for one in signature.outputs],
    }


def _pretty(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _summarize(saved: Saved, columns: Sequence[Column], path: Path, out: TextIO) -> None:
    width = max(len("INPUT"), *(len(column.name) for column in columns[:30]))
    lines = [f"{'INPUT':{width}}  DATATYPE  VALUES"]
    lines += [f"{column.name:{width}}  {column.datatype:8}  {column.note()}" for column in columns[:30]]
    if len(columns) > 30:
        lines.append(f"… and {len(columns) - 30} more in signature.json")
    outputs = ", ".join(f"{one.name} {one.datatype}" for one in saved.signature.outputs)
    lines += [
        f"output  {outputs}",
        f"written {path} ({saved.format}), with {saved.samples} samples that a backend predicts as the model does here",
        f"next    {saved.command}",
    ]
    if saved.format == "joblib":
        lines.append("note    joblib runs code when it is loaded: publish only what you trained yourself")
    out.write("\n".join(lines) + "\n")


__all__ = ["CannotSave", "Saved", "save"]
