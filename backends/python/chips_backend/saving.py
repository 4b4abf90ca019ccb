"""From a trained model to a folder that `chips publish` takes: `save(model, "trained", example=X.head(50))`.

`save` writes the model in the safest format that holds it, `signature.json` (names, datatypes, categories) and `samples.json`
(a few rows with the model's own answers). It then loads what it wrote as a backend does, scores the samples, and compares:
what cannot be served exactly as it predicts here is refused here.
"""

import shlex
import sys
import tempfile
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

from chips_backend.artifact_draft import (
    MODEL_FILES,
    SAMPLES,
    SIGNATURE,
    TOLERANCE,
    check,
    plain,
    predict_onnx,
    write_json,
    write_model,
)
from chips_backend.baseline import LEAST_COUNT, Baseline
from chips_backend.encoder_categories import catboost_categories, known_categories, with_known_categories
from chips_backend.example_columns import CannotSave, Column, columns_of, pieces, rows_of, sliceable, take
from chips_backend.installed_packages import packages_of
from chips_backend.manifest import Signature, Tensor
from chips_backend.model import Refused
from chips_backend.model_card_draft import CARD, draft_card, write_new
from chips_backend.own_code import OwnCode, own_code_of
from chips_backend.predictions_as_json import WrongAnswer, as_predictions, is_close
from chips_backend.wrong_files import WrongArtifact

BASELINE: Final = "baseline.json"
_CELLS_AT_ONCE: Final = 1_000_000  # of the training data are looked at in one go
_MOST_PREDICTED: Final = 10_000  # rows of the training data
# What reads a format that holds no classes, whatever package made the model.
_READERS: Final = {"onnx": "onnxruntime", "xgboost": "xgboost", "lightgbm": "lightgbm"}


class Saved(NamedTuple):
    """What `save` wrote, and what it understood of the model's inputs and outputs."""

    folder: Path
    format: str
    signature: Signature
    samples: int  # rows with answers in samples.json
    modules: Sequence[str] = ()  # files of the author's own code that were taken along
    packages: Sequence[str] = ()  # NAME==VERSION of what the model needs

    @property
    def command(self) -> str:
        """The command that publishes it; put the model's name and version in."""
        return f"chips publish {shlex.quote(str(self.folder))} --model NAME --version 1"


def save(
    model: Any,
    folder: str | Path,
    *,
    example: Any,
    training: Any = None,
    format: str | None = None,  # noqa: A002  (the manifest's word)
    samples: int = 5,
    overwrite: bool = False,
    accept_unknown: bool | Sequence[str] = False,
    out: TextIO | None = None,
) -> Saved:
    """Write `model` into `folder`, with its signature and samples, and check that a backend predicts the same.

    `example`: rows as the model takes them, 10 to 1000 of the training data: a DataFrame of pandas or Polars, a two-dimensional
    NumPy array or SciPy sparse matrix, or a list of texts. Datatypes, names and categories come from it and from the model.
    `training`: all of the training data, in the same form; baseline.json then describes its columns and the predictions
    for them, without any row. `format`: joblib, skops, onnx, xgboost or lightgbm; by default the safest that holds this model.
    `samples`: how many rows of the example to publish with their answers; they cover missing values and categories first.
    `accept_unknown`: the categories that encoders in the model know are all that is accepted; True, or names of columns,
    accepts other values there, as the encoder's `handle_unknown` says.
    `overwrite`: replace the files of an earlier `save`. `out`: where the summary goes (standard output).

    Functions and classes of your own that the model uses are taken along as source. Raises CannotSave; nothing of an earlier
    `save` is lost then.
    """
    target = Path(folder)
    if samples < 1:
        raise CannotSave("samples must be at least 1: a version without samples cannot be checked")
    example = sliceable(example)
    columns = _columns(model, example, training, accept_unknown=accept_unknown)
    kind = format or _safest_format(model)
    if kind not in MODEL_FILES:
        raise CannotSave(f'the format "{kind}" is not known; choose {", ".join(MODEL_FILES)}')
    own = own_code_of(model) if kind in {"joblib", "skops"} else OwnCode({})
    written = [
        MODEL_FILES[kind],
        *own.files,
        SIGNATURE,
        SAMPLES,
        *([BASELINE] if training is not None else []),
    ]
    if not overwrite:
        _refuse_to_replace(target, own)
    chosen = rows_of(columns, samples)
    is_new = not target.exists()
    target.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".draft-", dir=target) as place:
            draft = Path(place)
            predictor = _Predictor(model, columns, draft)
            predictions = predictor.predict(take(example, chosen), columns, chosen)
            _refuse_random(predictions, predictor.predict(take(example, chosen), columns, chosen))
            signature = Signature(
                inputs=tuple(column.tensor() for column in columns), outputs=outputs_of(predictions)
            )
            write_json(draft / SIGNATURE, plain(signature))
            write_json(draft / SAMPLES, _samples(columns, chosen, predictions))
            write_model(model, kind, draft, own)
            check(draft, kind, alone=bool(own.files))
            if training is not None:
                described = _baseline(sliceable(training), columns, predictor, signature)
                write_json(draft / BASELINE, described, indent=None)
            packages = _packages(model, kind, own)
            card = _card(model, kind, signature, packages, training)
            _put_in_place(draft, target, written)
            if write_new(target, card):
                written.append(CARD)
    except BaseException:
        if is_new:
            target.rmdir()
        raise
    saved = Saved(target, kind, signature, len(chosen), tuple(own.files), packages)
    _summarize(saved, columns, written, out or sys.stdout)
    return saved


def _refuse_random(first: Sequence[Any], second: Sequence[Any]) -> None:
    """Samples are the same at each start. Raises CannotSave."""
    if not all(is_close(one, other, TOLERANCE) for one, other in zip(first, second, strict=True)):
        raise CannotSave(
            "the model predicts something else for the same rows each time: have predict() draw its random numbers from a generator "
            "that it makes itself with a fixed seed, such as numpy.random.default_rng(0)"
        )


def _refuse_to_replace(target: Path, own: OwnCode) -> None:
    there = [
        name for name in (*MODEL_FILES.values(), SIGNATURE, SAMPLES, BASELINE) if (target / name).exists()
    ]
    there += [
        name for name, source in own.files.items()
        if (target / name).exists() and (target / name).read_text(encoding="utf-8", errors="replace") != source
    ]  # fmt: skip
    if there:
        raise CannotSave(
            f"{target} already has {', '.join(there)}; pass overwrite=True to replace, or choose another folder"
        )


def _put_in_place(draft: Path, target: Path, written: Sequence[str]) -> None:
    """The new files, and none that an earlier `save` left and that would now be published with them."""
    for name in written:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (draft / name).replace(target / name)
    left = [target / name for name in (*MODEL_FILES.values(), BASELINE)] + list(target.glob("own_code_*.py"))
    for path in left:
        if path.name not in written:
            path.unlink(missing_ok=True)


def _samples(columns: Sequence[Column], chosen: Sequence[int], predictions: Sequence[Any]) -> list[Any]:
    return [
        {
            "request": {"instances": [{column.name: column.values[row] for column in columns}]},
            "response": {"predictions": [prediction]},
            "tolerance": TOLERANCE,
        }
        for row, prediction in zip(chosen, predictions, strict=True)
    ]


def _baseline(training: Any, columns: Sequence[Column], predictor: "_Predictor", signature: Signature) -> Any:
    known = {column.name: column.datatype for column in columns}
    baseline = Baseline()
    size = _row_count(training)
    every = -(-size // _MOST_PREDICTED)  # so many rows that one of them is predicted
    for piece in pieces(training, max(1, _CELLS_AT_ONCE // len(columns))):
        found = columns_of(piece, list(known), known)
        if [column.name for column in found] != list(known):
            raise CannotSave("training and example have different columns: pass example=training.head(50)")
        baseline.add_inputs(found)
        rows = list(range(0, len(found[0].values), every))
        predictions = predictor.predict(take(piece, rows), found, rows)
        outputs = signature.outputs
        if len(outputs) == 1:
            baseline.add_outputs({outputs[0].name: (outputs[0].datatype, predictions)})
        else:
            baseline.add_outputs({
                one.name: (one.datatype, [prediction[one.name] for prediction in predictions]) for one in outputs
            })  # fmt: skip
    return baseline.described()


def _row_count(table: Any) -> int:
    return int(table.shape[0] if hasattr(table, "shape") else len(table))


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


class _Predictor:
    """The model's own answers. `draft`: a folder for a model that answers only from its file."""

    def __init__(self, model: Any, columns: Sequence[Column], draft: Path) -> None:
        self._model = model
        self._columns = columns
        self._draft = draft

    def predict(self, table: Any, columns: Sequence[Column], rows: Sequence[int]) -> list[Any]:
        """One prediction for each row of `table`, which are these rows of `columns`. Raises CannotSave."""
        try:
            if type(self._model).__name__ == "ModelProto":
                inputs = Signature(inputs=tuple(column.tensor() for column in self._columns))
                values = [[column.values[row] for column in columns] for row in rows]
                return predict_onnx(self._model, inputs, values, self._draft)
            return as_predictions(self._ask()(table), len(rows))
        except CannotSave:
            raise
        except WrongAnswer as error:
            raise CannotSave(
                f"{error}; wrap the model in a class whose predict() returns one prediction a row"
            ) from None
        except (WrongArtifact, Refused) as error:
            raise CannotSave(f"the model does not predict the rows of `example`: {error}") from error
        except Exception as error:
            raise CannotSave(
                f"the model does not predict the rows of `example`: {type(error).__name__}: {error}. "
                "Pass rows as the model takes them in predict()"
            ) from error

    def _ask(self) -> Any:
        model = self._model
        asked = [getattr(model, name, None) for name in ("predict", "transform")]
        found = next((one for one in asked if callable(one)), None)
        if found is None:
            raise CannotSave(
                f"{type(model).__name__} has no predict() and no transform(); save an object that has one"
            )
        if type(model).__module__.startswith("xgboost") and type(model).__name__ == "Booster":
            import xgboost

            return lambda table: found(xgboost.DMatrix(table, enable_categorical=True))
        return found


def outputs_of(predictions: Sequence[Any]) -> tuple[Tensor, ...]:
    """The outputs that some predictions show."""
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


# -- what it says


def _columns(
    model: Any, example: Any, training: Any, *, accept_unknown: bool | Sequence[str]
) -> list[Column]:
    """The example's columns, with the categories that the model knows."""
    columns = columns_of(example, _names_of(model))
    known = known_categories(model, [column.name for column in columns])
    known = known or catboost_categories(model, columns, training)
    return with_known_categories(columns, known, accept_unknown=accept_unknown)


def _card(model: Any, kind: str, signature: Signature, packages: Sequence[str], training: Any) -> str:
    return draft_card(
        f"{type(model).__module__}.{type(model).__qualname__}",
        kind,
        signature,
        packages=packages,
        training_rows=None if training is None else _row_count(training),
    )


def _packages(model: Any, kind: str, own: OwnCode) -> tuple[str, ...]:
    """NAME==VERSION of the packages that a backend imports to load and score what was written."""
    import ast

    modules = {_READERS[kind]} if kind in _READERS else {type(model).__module__, *own.modules}
    if kind == "skops":
        modules.add("skops")
    for source in own.files.values():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules.add(node.module or "")
    tops = {module.partition(".")[0] for module in modules} - set(sys.stdlib_module_names)
    return tuple(sorted(f"{name}=={metadata.version(name)}" for name in set(packages_of(tops).values())))


def _summarize(saved: Saved, columns: Sequence[Column], written: Iterable[str], out: TextIO) -> None:
    width = max(len("INPUT"), *(len(column.name) for column in columns[:30]))
    lines = [f"{'INPUT':{width}}  DATATYPE  VALUES"]
    lines += [f"{column.name:{width}}  {column.datatype:8}  {column.note()}" for column in columns[:30]]
    if len(columns) > 30:
        lines.append(f"… and {len(columns) - 30} more in {SIGNATURE}")
    outputs = ", ".join(f"{one.name} {one.datatype}" for one in saved.signature.outputs)
    lines.append(f"output   {outputs}")
    lines.append(
        f"written  {saved.folder / MODEL_FILES[saved.format]} ({saved.format}), with {saved.samples} samples that a backend "
        "predicts as the model does here"
    )
    if saved.modules:
        lines.append(f"         {', '.join(saved.modules)}: code of yours that the model uses")
    if BASELINE in written:
        lines.append(
            f"         {BASELINE}: each column and the predictions in figures; a text that fewer than {LEAST_COUNT} rows have is left out"
        )
    lines.append(
        f"         {CARD}: a draft of the model card; write what it asks for"
        if CARD in written
        else f"         {CARD} was kept as it is: does it still describe this model?"
    )
    if saved.packages:
        lines.append(f"needs    {', '.join(saved.packages)}")
    lines += [
        f"next     chips new python NAME --from {shlex.quote(str(saved.folder))}, then chips deploy models/NAME",
        f"or       {saved.command}",
    ]
    if saved.format == "joblib":
        lines.append("note     joblib runs code when it is loaded: publish only what you trained yourself")
    lines.append(
        f"note     {SAMPLES} holds {saved.samples} rows of the example as they are; look at them before you publish"
    )
    foreign = sorted(
        path.name
        for path in saved.folder.iterdir()
        if path.name not in {CARD, *(name.partition("/")[0] for name in written)}
    )
    if foreign:
        lines.append(
            f"note     {', '.join(foreign[:5])} in {saved.folder} would be published too: better save to a folder of its own"
        )
    out.write("\n".join(lines) + "\n")


__all__ = ["CannotSave", "Saved", "save"]
