"""XGBoost and LightGBM: their own files, and the categories that their models hold."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from chips_backend.manifest import Signature, Tensor
from chips_backend.model import Refused
from chips_backend.wrong_files import WrongArtifact

Categories = Mapping[str, Sequence[Any]]
_OLD_BINARY: Final = b"binf"


def threads() -> int:
    """How many threads one prediction may use; the start sets it, so that predictions do not fight for processors."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() else 1


# -- XGBoost


def load_xgboost(path: Path) -> Any:
    """XGBoost's own file as an estimator, whatever the file's name. Raises WrongArtifact."""
    import xgboost

    content = bytearray(path.read_bytes())
    if content.startswith(_OLD_BINARY) or not content.lstrip().startswith(b"{"):
        raise WrongArtifact(
            f"{path.name} is not in a format that this XGBoost reads: save it with the XGBoost that made it by "
            'save_model("model.ubj"), and publish that'
        )
    booster = xgboost.Booster()
    booster.load_model(content)
    objective = msgspec.json.decode(booster.save_config(), type=_Config).learner.objective.name
    kinds = {"binary": xgboost.XGBClassifier, "multi": xgboost.XGBClassifier, "rank": xgboost.XGBRanker}
    model = kinds.get(objective.partition(":")[0], xgboost.XGBRegressor)(n_jobs=threads())
    model.load_model(content)
    if booster.attr("scikit_learn") is None:
        # xgboost.train() made it, whose own predict() uses all rounds; the estimator's stops at the best one.
        model.get_booster().set_attr(best_iteration=None, best_score=None)
        # It also looks for infinities, which the estimator's shorter way lets through.
        setattr(model, "_can_use_inplace_predict", lambda: False)  # noqa: B010
    return model


class _Objective(msgspec.Struct):
    name: str


class _ConfigLearner(msgspec.Struct):
    objective: _Objective


class _Config(msgspec.Struct):
    learner: _ConfigLearner


class _Encoding(msgspec.Struct):
    values: list[int | float] = []
    offsets: list[int] | None = None  # of texts, into `values`, which are bytes then


class _Encodings(msgspec.Struct):
    enc: list[_Encoding] = []


class _Trees(msgspec.Struct):
    cats: _Encodings = msgspec.field(default_factory=_Encodings)


class _Booster(msgspec.Struct):
    model: _Trees = msgspec.field(default_factory=_Trees)
    gbtree: "_Booster | None" = None  # of dart


class _Learner(msgspec.Struct):
    gradient_booster: _Booster = msgspec.field(default_factory=_Booster)


class _Saved(msgspec.Struct):
    learner: _Learner


def _xgboost_categories(booster: Any) -> dict[int, list[Any] | None]:
    """The categories of each column that has some; None where the file does not hold them (before XGBoost 3.1)."""
    kinds = booster.feature_types or []
    columns = [at for at, kind in enumerate(kinds) if kind == "c"]
    if not columns:
        return {}
    trees = msgspec.json.decode(bytes(booster.save_raw("json")), type=_Saved).learner.gradient_booster
    encodings = (trees.gbtree or trees).model.cats.enc
    return {at: _decoded(encodings[at]) if at < len(encodings) else None for at in columns}


def _decoded(encoding: _Encoding) -> list[Any] | None:
    if encoding.offsets is None:
        return list(encoding.values) or None
    content = bytes(int(value) & 0xFF for value in encoding.values)  # they are written as signed
    if not content.isascii():
        # XGBoost 3.1 and 3.2 count characters where they should count bytes: the names are cut, and the last ones lost.
        return None
    return [content[a:b].decode() for a, b in pairwise(encoding.offsets)] or None


# -- LightGBM


def load_lightgbm(path: Path) -> Any:
    try:
        import lightgbm
    except OSError as error:  # its own library needs one of the system, which no package of Python brings
        raise OSError(f"{error}; on Debian: apt install libgomp1") from error
    try:
        return lightgbm.Booster(model_file=path)
    except lightgbm.basic.LightGBMError as error:
        raise WrongArtifact(
            f"{path.name} is no model file of LightGBM ({error}): is it the right file?"
        ) from None


def lightgbm_predictor(booster: Any) -> tuple[Callable[[Any, dict[str, Any]], Any], Any]:
    """How its own file predicts, and the labels of its probabilities: a classifier gives the class."""
    objective = str(booster.dump_model(num_iteration=1).get("objective", "")).partition(" ")[0]
    is_many = objective in {"multiclass", "multiclassova"}
    classes = (
        list(range(booster.num_model_per_iteration()))
        if is_many
        else [0, 1]
        if objective == "binary"
        else None
    )

    def predict(table: Any, parameters: dict[str, Any]) -> Any:
        scores = np.asarray(booster.predict(table, num_threads=threads()))
        wants_probabilities = parameters.get("probabilities")
        if wants_probabilities and classes is None:
            raise Refused("this model has no probabilities")
        if objective == "binary":
            return (
                np.column_stack([1 - scores, scores]) if wants_probabilities else (scores > 0.5).astype(int)
            )
        if is_many:
            return scores if wants_probabilities else scores.argmax(axis=1)
        return scores

    return predict, classes


def _lightgbm_categories(booster: Any, columns: Sequence[str], signature: Signature) -> dict[str, list[Any]]:
    """LightGBM keeps the categories in the order of the columns that had some, but not which those were."""
    held = booster.pandas_categorical or []
    if not held:
        return {}
    tensors = {tensor.name.replace(" ", "_"): tensor for tensor in signature.inputs}
    chosen = [name for name in columns if _may_have(tensors.get(name.replace(" ", "_")))]
    if len(chosen) != len(held):
        infos = dict(zip(booster.feature_name(), _feature_infos(booster), strict=False))
        split = {name for name, info in infos.items() if not info.startswith("[") and info != "none"}
        chosen = [name for name in columns if name in chosen or name.replace(" ", "_") in split]
    if len(chosen) != len(held):
        raise WrongArtifact(
            f"the model was trained on {len(held)} columns of categories, and the signature does not say which they are: "
            'give each of these inputs its "categories" in the signature'
        )
    return dict(zip(chosen, held, strict=True))


def _may_have(tensor: Tensor | None) -> bool:
    return tensor is not None and (tensor.datatype == "BYTES" or tensor.categories is not None)


def _feature_infos(booster: Any) -> list[str]:
    for line in booster.model_to_string(num_iteration=1).splitlines():
        if line.startswith("feature_infos="):
            return str(line).removeprefix("feature_infos=").split(" ")
    return []


# -- both, by themselves or inside other estimators


def categories_of(estimator: Any, columns: Sequence[str], signature: Signature) -> dict[str, Sequence[Any]]:
    """The categories of the columns that boosted trees in `estimator` were trained on, by column.

    Raises WrongArtifact where a model needs categories and neither it nor the signature has them.
    """
    found: dict[str, Sequence[Any]] = {}
    for inner in _inside(estimator):
        names = [str(name) for name in getattr(inner, "feature_names_in_", columns)]
        if columns and set(names) != set(columns):
            continue  # its columns are made inside of the model
        booster = getattr(inner, "booster_", None)
        if hasattr(inner, "get_booster"):
            if inner.__sklearn_is_fitted__():  # else it is what others were copied from
                found.update(_of_xgboost(inner.get_booster(), columns, signature))
        elif hasattr(booster, "pandas_categorical"):
            found.update(_lightgbm_categories(booster, names, signature))
        elif hasattr(inner, "pandas_categorical"):
            found.update(_lightgbm_categories(inner, names, signature))
    return found


def _of_xgboost(
    booster: Any, columns: Sequence[str], signature: Signature
) -> Iterator[tuple[str, Sequence[Any]]]:
    given = {tensor.name: tensor.categories for tensor in signature.inputs}
    names = list(columns) or [tensor.name for tensor in signature.inputs]
    lacking = []
    for at, held in _xgboost_categories(booster).items():
        name = names[at] if at < len(names) else f"column {at}"
        if held is not None:
            yield name, held
        elif given.get(name) is None:
            lacking.append(name)
    if lacking:
        raise WrongArtifact(
            f"the model was trained on categories in {', '.join(lacking)}, and its file does not hold them (files of XGBoost "
            'before 3.1 do not, later ones cut names that are not ASCII). Give each of these inputs its "categories" in the signature: all values, in the order '
            "that pandas had them in training (df[column].cat.categories)"
        )


def _inside(estimator: Any, depth: int = 4) -> Iterator[Any]:
    """`estimator`, and those that it is made of."""
    yield estimator
    if depth == 0:
        return
    for name in ("best_estimator_", "estimator_", "estimator", "regressor_", "final_estimator_"):
        inner = getattr(estimator, name, None) if not isinstance(estimator, type) else None
        if hasattr(inner, "fit"):
            yield from _inside(inner, depth - 1)
    for name in ("steps", "estimators_", "calibrated_classifiers_"):
        parts = getattr(estimator, name, None)
        for part in list(parts)[:3] if isinstance(parts, list) else ():
            inner = part[-1] if isinstance(part, tuple) else part
            if any(hasattr(inner, name) for name in ("predict", "predict_proba", "transform")):
                yield from _inside(inner, depth - 1)
