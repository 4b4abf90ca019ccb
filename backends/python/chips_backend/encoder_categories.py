"""The categories that fitted encoders in a model hold: the values of a column that the model knows.

A model whose encoder ignores unknown values answers for any text, so a misspelt category would get a prediction without a word.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

import numpy as np

from chips_backend.example_columns import CannotSave, Column

_DEEPEST: Final = 8  # of models in models
_MOST_LISTED: Final = 10_000  # of more categories, the signature would be larger than many a model
_MOST_FITTED: Final = 20  # copies of one model, as in a bagging, that are looked at
# Transformers that leave values as they are, apart from missing ones.
_KEEPS_VALUES: Final = frozenset({"SimpleImputer"})
_ONE_COLUMN: Final = frozenset({"LabelBinarizer", "LabelEncoder"})  # they hold `classes_` of their one column
_INNER: Final = (
    "best_estimator_",
    "estimator_",
    "estimator",
    "regressor_",
    "classifier_",
    "base_estimator",
    "final_estimator_",
    "_preprocessor",  # of scikit-learn's gradient boosting: it encodes the columns that are categories
)
_INNER_LISTS: Final = ("estimators_", "calibrated_classifiers_")


class Encoded(NamedTuple):
    """What an encoder knows of one of the model's columns."""

    name: str
    values: Sequence[Any]  # without the missing one
    is_exact: bool  # False where a step before the encoder may have changed the values


def encoded_columns(model: Any, columns: Sequence[str]) -> Iterator[Encoded]:
    """Each column of the model's table that an encoder in it has fitted, from one encoder after the other.

    `columns` are the names of the table, where the model holds none.
    """
    yield from _of(model, [str(name) for name in columns], is_exact=True, depth=_DEEPEST)


def known_categories(model: Any, columns: Sequence[str]) -> Mapping[str, Sequence[Any]]:
    """By column, the values that some encoder in the model knows, where nothing changes a value before it is encoded."""
    found: dict[str, dict[Any, None]] = {}
    inexact = set()
    for name, values, is_exact in encoded_columns(model, columns):
        if not is_exact:
            inexact.add(name)
        found.setdefault(name, {}).update(dict.fromkeys(values))
    return {name: list(values) for name, values in found.items() if name not in inexact}


def catboost_categories(model: Any, columns: Sequence[Column], training: Any) -> Mapping[str, Sequence[Any]]:
    """By column, the categories that CatBoost was trained on: the model has only their hashes, so `training` must show them."""
    indices = getattr(model, "get_cat_feature_indices", None)
    if not callable(indices) or not hasattr(training, "columns"):
        return {}
    names = [columns[at].name for at in indices() if at < len(columns)]
    labels = {str(label): label for label in training.columns}
    return {name: _present(training[labels[name]].unique()) for name in names if name in labels}


def with_known_categories(
    columns: Sequence[Column],
    known: Mapping[str, Sequence[Any]],
    *,
    accept_unknown: Sequence[str] | bool = False,
) -> list[Column]:
    """The columns, with the categories that the model knows where a signature can list them.

    `accept_unknown`: True, or the names of columns that may have other values. Raises CannotSave where one is no column.
    """
    accepted = [] if isinstance(accept_unknown, bool) else list(accept_unknown)
    strange = [name for name in accepted if name not in {column.name for column in columns}]
    if strange:
        raise CannotSave(f"accept_unknown names {', '.join(strange)}, which is no column of the example")
    return [
        _with_known(column, known[column.name], is_open=accept_unknown is True or column.name in accepted)
        if column.name in known
        else column
        for column in columns
    ]


def _with_known(column: Column, known: Sequence[Any], *, is_open: bool) -> Column:
    values = _listable(known, column.datatype)
    if not values or len(column.shape) > 1:
        return column
    if is_open:
        return column._replace(remark=f"its encoder knows {len(values)} values, and others are accepted")
    if len(values) > _MOST_LISTED:
        return column._replace(remark=f"its encoder knows {len(values)} values, too many to refuse others")
    other = next((value for value in column.values if value is not None and value not in values), None)
    if other is not None:
        return column._replace(
            remark=f"its encoder does not know {other!r}, which is in the example, so any value is accepted"
        )
    own = [value for value in column.categories or () if value in values]  # in the column's own order
    return column._replace(
        categories=tuple(dict.fromkeys([*own, *values])), remark="the encoder's; others are refused"
    )


def _listable(known: Sequence[Any], datatype: str) -> dict[str | int, None]:
    """As a signature has them; empty where it cannot list them."""
    if datatype == "BYTES" and all(isinstance(value, str) for value in known):
        return dict.fromkeys(map(str, known))
    is_number = all(isinstance(value, int | float | np.number) for value in known)
    if "INT" in datatype and is_number and all(float(value).is_integer() for value in known):
        return dict.fromkeys(map(int, known))
    return {}


def _of(step: Any, columns: Sequence[str], *, is_exact: bool, depth: int) -> Iterator[Encoded]:
    if depth == 0 or isinstance(step, type | str) or step is None:
        return
    names = _names(step, columns)
    yield from _of_encoder(step, names, is_exact=is_exact)
    for _, transformer, chosen in _parts(step, "transformers_", 3):
        below = _chosen(chosen, names)
        if below is not None:
            yield from _of(transformer, below, is_exact=is_exact, depth=depth - 1)
    for _, transformer in _parts(step, "transformer_list", 2):
        yield from _of(transformer, names, is_exact=is_exact, depth=depth - 1)
    yield from _of_steps(step, names, is_exact=is_exact, depth=depth)
    for inner in _inner(step):
        yield from _of(inner, names, is_exact=is_exact, depth=depth - 1)


def _of_steps(step: Any, names: Sequence[str], *, is_exact: bool, depth: int) -> Iterator[Encoded]:
    """Of a pipeline, as far as its columns are still those of the table."""
    for _, inner in _parts(step, "steps", 2):
        found = list(_of(inner, names, is_exact=is_exact, depth=depth - 1))
        yield from found
        if found or hasattr(inner, "transformers_") or hasattr(inner, "transformer_list"):
            return  # what follows has columns that were made inside of the model
        is_exact = is_exact and (
            inner is None or isinstance(inner, str) or type(inner).__name__ in _KEEPS_VALUES
        )


def _names(step: Any, columns: Sequence[str]) -> Sequence[str]:
    try:
        own = getattr(step, "feature_names_in_", None)
    except Exception:  # noqa: BLE001  (a property of a pipeline that is not fitted)
        own = None
    names = columns if own is None else [str(name) for name in own]
    # What a transformer in the model made has other names.
    return names if set(names) <= set(columns) else columns


def _parts(step: Any, name: str, length: int) -> Iterator[tuple[Any, ...]]:
    parts = getattr(step, name, None)
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, tuple) and len(part) >= length:
            yield part[:length]


def _chosen(chosen: Any, names: Sequence[str]) -> list[str] | None:
    """The names of the columns that a ColumnTransformer gives to one of its transformers; None where that is not known."""
    if isinstance(chosen, slice):
        whole = all(at is None or isinstance(at, int) for at in (chosen.start, chosen.stop, chosen.step))
        return list(names[chosen]) if whole else None
    if isinstance(chosen, str | int | np.integer):
        chosen = [chosen]
    if callable(chosen):
        return None
    listed = list(chosen)
    if listed and all(isinstance(at, bool | np.bool_) for at in listed):
        return [name for name, taken in zip(names, listed, strict=False) if taken]
    found = [
        names[int(at)] if isinstance(at, int | np.integer) and at < len(names) else str(at) for at in listed
    ]
    return found if set(found) <= set(names) else None


def _inner(step: Any) -> Iterator[Any]:
    for name in _INNER:
        inner = getattr(step, name, None)
        if hasattr(inner, "fit"):
            yield inner
    for name in _INNER_LISTS:
        parts = getattr(step, name, None)
        if isinstance(parts, list):
            yield from islice((part[-1] if isinstance(part, tuple) else part for part in parts), _MOST_FITTED)


def _of_encoder(step: Any, names: Sequence[str], *, is_exact: bool) -> Iterator[Encoded]:
    listed: Any = getattr(step, "categories_", None)
    if isinstance(listed, list) and len(listed) == len(names):  # scikit-learn's encoders
        for name, values in zip(names, listed, strict=True):
            yield Encoded(name, _present(values), is_exact)
    elif type(step).__name__ in _ONE_COLUMN and len(names) == 1 and hasattr(step, "classes_"):
        yield Encoded(names[0], _present(step.classes_), is_exact)
    elif hasattr(step, "cols"):  # the package category_encoders
        mappings = getattr(getattr(step, "ordinal_encoder", step), "category_mapping", None)
        tables = {one["col"]: one["mapping"] for one in mappings or () if {"col", "mapping"} <= set(one)}
        if mappings is None and isinstance(getattr(step, "mapping", None), dict):
            tables = step.mapping
        for name, table in tables.items():
            if str(name) in names and hasattr(table, "index"):
                yield Encoded(str(name), _present(table.index), is_exact)


def _present(values: Any) -> list[Any]:
    return [value for value in values if value is not None and value == value]  # noqa: PLR0124  (NaN)
