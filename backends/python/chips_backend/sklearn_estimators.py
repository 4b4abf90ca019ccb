"""Models with the interface of scikit-learn's estimators: what they take, what they return, which labels their probabilities have."""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from chips_backend.boosters import categories_of, lightgbm_predictor
from chips_backend.decode_instances import read_instances
from chips_backend.encoder_categories import encoded_columns, known_categories
from chips_backend.input_tables import (
    Table,
    apart,
    array_table,
    date_dtypes,
    dict_table,
    frame_table,
    text_table,
)
from chips_backend.likely_rows import likely_rows
from chips_backend.manifest import Manifest, Signature, Tensor
from chips_backend.model import Model, Refused, Row, Rows
from chips_backend.predictions_as_json import as_predictions, is_close
from chips_backend.problem_details import Problem
from chips_backend.wrong_files import WrongArtifact

_FLAGS: Final = {"probabilities": bool, "classes": bool}
_DATE: Final = re.compile(r"\d{4}-?\d\d-?\d\d(?![^T ])")  # as ISO 8601 begins
_MOST_TRIED: Final = 10  # samples
_MOST_COLUMNS: Final = 1000  # of a model that says nothing of its columns are tried as a DataFrame
_NO_PREDICT: Final = {
    "LocalOutlierFactor": "make it with novelty=True",
    "DBSCAN": "it labels only the rows that it was fitted on; predict with a classifier fitted on those labels",
    "NearestNeighbors": "wrap it in a class with predict(), or use KNeighborsClassifier",
}


def estimator_model(estimator: Any, manifest: Manifest) -> Model:
    """Serve `estimator` by `predict`, or as a transformer. Trained on a DataFrame, it gets one. Raises WrongArtifact."""
    asked = next(
        (name for name in ("predict", "transform") if callable(getattr(estimator, name, None))), None
    )
    if asked is None:
        kind = type(estimator).__name__
        advice = _NO_PREDICT.get(kind, "publish an object with predict(table)")
        raise WrongArtifact(f"the artifact holds a {kind}, which has no predict(): {advice}")
    names = getattr(estimator, "feature_names_in_", None)
    signature = _completed(estimator, manifest, None if names is None else [str(name) for name in names])
    has_probabilities = callable(getattr(estimator, "predict_proba", None))
    classes = _labels(estimator) if has_probabilities else None

    def predict(table: Any, parameters: dict[str, Any]) -> Any:
        if not parameters.get("probabilities"):
            return getattr(estimator, asked)(table)
        if not has_probabilities:
            raise Refused("this model has no probabilities")
        return _rows_first(estimator.predict_proba(table))

    form = _choose(_forms(estimator, manifest, signature, names), predict, manifest, signature)
    known = _known(has_probabilities, classes)
    return _model(form, predict, manifest, signature, known, classes, _examples(estimator, signature))


def booster_model(booster: Any, manifest: Manifest) -> Model:
    """Serve LightGBM's own file."""
    names = booster.feature_name()
    signature = _completed(booster, manifest, names)
    predict, classes = lightgbm_predictor(booster)
    form = _choose(_forms(booster, manifest, signature, names), predict, manifest, signature)
    return _model(form, predict, manifest, signature, _known(classes is not None, classes), classes, [])


def _model(
    form: "_Form",
    predict: Any,
    manifest: Manifest,
    signature: Signature,
    known: Any,
    classes: Any,
    examples: Sequence[Row],
) -> Model:
    return Model(
        form.table,
        predict,
        parameters=known,
        classes=classes,
        signature=signature,
        apart=None if manifest.rows == "together" else apart(signature, is_array=form.is_array),
        examples=examples,
    )


def _known(has_probabilities: bool, classes: Any) -> Mapping[str, Any]:  # noqa: FBT001
    if not has_probabilities:
        return {}
    return _FLAGS if classes is not None else {"probabilities": bool}


def _rows_first(probabilities: Any) -> Any:
    """A model with several outputs returns a list with an array for each: turn it, so that rows come first."""
    if isinstance(probabilities, list):
        return list(zip(*probabilities, strict=True))
    return probabilities


def _labels(estimator: Any) -> Any:
    classes = getattr(estimator, "classes_", None)
    if classes is None and isinstance(getattr(estimator, "n_components", None), int):  # mixtures
        return list(range(estimator.n_components))
    if classes is None:
        return None
    if isinstance(classes, list):
        return [as_predictions(labels, len(labels)) for labels in classes]
    return as_predictions(classes, len(classes))


# -- what goes in


def _completed(estimator: Any, manifest: Manifest, names: Sequence[str] | None) -> Signature:
    """The manifest's signature; where it has no inputs, those that the model and the samples show."""
    signature = manifest.signature
    if not signature.inputs:
        signature = msgspec.structs.replace(signature, inputs=_shown_inputs(estimator, manifest, names))
    known = categories_of(estimator, names or [], signature)
    return with_categories(signature, known)


def with_categories(signature: Signature, known: Mapping[str, Sequence[Any]]) -> Signature:
    """The signature with the model's own categories. WrongArtifact where the published ones are others."""
    inputs = []
    for tensor in signature.inputs:
        own = known.get(tensor.name, known.get(tensor.name.replace(" ", "_")))
        if own is not None and tensor.categories is not None and list(tensor.categories) != list(own):
            raise WrongArtifact(
                f"the categories of {tensor.name} in the signature are not those of the model, in the same order: "
                f"{', '.join(map(str, own[:20]))}"
            )
        inputs.append(tensor if own is None else msgspec.structs.replace(tensor, categories=tuple(own)))
    return msgspec.structs.replace(signature, inputs=tuple(inputs))


def _shown_inputs(estimator: Any, manifest: Manifest, names: Sequence[str] | None) -> tuple[Tensor, ...]:
    first: Any = None
    for sample in manifest.samples:
        instances = sample.request.get("instances")
        if isinstance(instances, list) and instances:
            first = instances[0]
            break
    if isinstance(first, dict) and (names is None or set(first) == set(names)):
        return tuple(_like(name, first[name]) for name in names or first)
    width = len(names) if names is not None else getattr(estimator, "n_features_in_", None)
    if isinstance(first, list) and (width is None or width == len(first)):
        return tuple(
            _like(name, value) for name, value in zip(names or _numbered(len(first)), first, strict=True)
        )
    if not isinstance(width, int) or isinstance(width, bool):
        raise WrongArtifact(
            "neither the model nor the manifest says what goes in: publish it with --signature, which lists the inputs"
        )
    return tuple(Tensor(name=name, datatype="FP64") for name in names or _numbered(width))


def _numbered(width: int) -> list[str]:
    return [f"x{at}" for at in range(width)]


def _like(name: str, value: Any) -> Tensor:
    kind = "BYTES" if isinstance(value, str) else "BOOL" if isinstance(value, bool) else "FP64"
    return Tensor(name=name, datatype=kind)


# -- the form of its table


class _Form(NamedTuple):
    table: Table
    is_array: bool


def _forms(estimator: Any, manifest: Manifest, signature: Signature, names: Any) -> Iterator[_Form]:
    """The forms in which the model may want its rows, the likeliest first."""
    inputs = signature.inputs
    categories = {t.name: t.categories for t in inputs if t.categories is not None}
    listed = [tensor.name for tensor in inputs]
    # An encoder takes the values themselves; a column of categories comes second there, for one that was trained on it.
    plain = [name for name in known_categories(estimator, listed) if name in categories]
    columns = [tensor.name for tensor in inputs] if names is None else [str(name) for name in names]
    if names is not None and not _are_numbered(columns):
        by_column = {**categories, **{name.replace(" ", "_"): of for name, of in categories.items()}}
        if plain:
            fewer = {name: of for name, of in by_column.items() if name not in plain}
            yield _Form(frame_table(signature, columns, categories=fewer), is_array=False)
        yield _Form(frame_table(signature, columns, categories=by_column), is_array=False)
        dated = _dated(manifest, signature)
        for dtype in date_dtypes() if dated else ():
            table = frame_table(signature, columns, categories=by_column, dates=dated, date_dtype=dtype)
            yield _Form(table, is_array=False)
        return
    is_text = len(inputs) == 1 and inputs[0].datatype == "BYTES" and len(inputs[0].shape) <= 1
    text = _Form(text_table(signature), is_array=True)
    if is_text and _takes_texts(estimator):
        yield text
        return
    yield _Form(array_table(signature), is_array=True)
    if is_text:
        yield text
    if names is None and all(len(tensor.shape) <= 1 for tensor in inputs) and len(inputs) <= _MOST_COLUMNS:
        yield _Form(frame_table(signature, columns, categories=categories), is_array=False)
        yield _Form(dict_table(signature), is_array=False)


def _dated(manifest: Manifest, signature: Signature) -> list[str]:
    """The inputs that may be dates: texts without categories that are dates in all samples, or all texts without a sample."""
    rows = [row for trial in _sample_trials(manifest, signature) for row in trial.rows]
    found = []
    for at, tensor in enumerate(signature.inputs):
        if tensor.datatype == "BYTES" and tensor.categories is None:
            present = [row[at] for row in rows if row[at] is not None]
            if not rows or (present and all(isinstance(one, str) and _DATE.match(one) for one in present)):
                found.append(tensor.name)
    return found


def _are_numbered(columns: Sequence[str]) -> bool:
    return list(columns) == [f"Column_{at}" for at in range(len(columns))]  # LightGBM's names for arrays


def _takes_texts(estimator: Any) -> bool:
    first = estimator
    while getattr(first, "steps", None):
        first = first.steps[0][1]
    return hasattr(first, "build_analyzer")  # scikit-learn's vectorizers for text


class _Trial(NamedTuple):
    rows: Rows
    wanted: Any
    tolerance: float


def _choose(
    forms: Iterator[_Form],
    predict: Callable[[Any, dict[str, Any]], Any],
    manifest: Manifest,
    signature: Signature,
) -> _Form:
    """The first form in which the most samples come out as published, or else the first one that can be predicted at all.

    Only one form is never tried here: the warm-up says more about what is wrong with it.
    """
    first = next(forms)
    others = list(forms)
    if not others:
        return first
    trials = (
        list(_sample_trials(manifest, signature)) if manifest.samples else list(_likely_trials(signature))
    )
    outputs = [tensor.name for tensor in signature.outputs]
    best, most = first, (0, 0)
    for form in (first, *others):
        outcome = _try(form, predict, trials, outputs)
        if outcome > most:
            best, most = form, outcome
        if outcome[0] == len(trials) or (outcome[1] and not manifest.samples):
            break
    return best


def _sample_trials(manifest: Manifest, signature: Signature) -> Iterator[_Trial]:
    for sample in manifest.samples[:_MOST_TRIED]:
        if sample.request.get("parameters"):
            continue
        try:
            rows = read_instances(msgspec.json.decode(msgspec.json.encode(sample.request)), signature).rows
        except Problem:
            continue
        yield _Trial(rows, sample.response.get("predictions"), sample.tolerance)


def _likely_trials(signature: Signature) -> Iterator[_Trial]:
    for row in likely_rows(signature):
        yield _Trial([row], None, 0.0)


def _try(form: _Form, predict: Any, trials: Sequence[_Trial], outputs: Sequence[str]) -> tuple[int, int]:
    """In how many trials it predicts as published, and in how many it predicts something."""
    right = runs = 0
    for trial in trials:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                came = as_predictions(predict(form.table(trial.rows), {}), len(trial.rows), outputs)
        except Exception:  # noqa: BLE001, S112  (that is the question)
            continue
        runs += 1
        right += trial.wanted is not None and is_close(came, trial.wanted, trial.tolerance)
    return right, runs


# -- rows that it is likely to take


def _examples(estimator: Any, signature: Signature) -> list[Row]:
    """A row of the first categories that its encoders know, zeros elsewhere."""
    encoded = encoded_columns(estimator, [tensor.name for tensor in signature.inputs])
    known = {name: as_predictions(values[:1], 1)[0] for name, values, _ in encoded if values}
    if not known:
        return []
    plain = next(likely_rows(signature))
    return [
        [known.get(tensor.name, plain[at]) for at, tensor in enumerate(signature.inputs)],
    ]
