"""What a loaded model is to this backend: how its input table is built from rows, how it predicts, what it knows of itself."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from chips_backend.manifest import Signature

Row = Sequence[Any]  # one value for each input, in the order of the signature; None where it is missing
Rows = Sequence[Row]


class Refused(ValueError):
    """Raise it in `predict` for rows or parameters that the model cannot take: the caller gets 422 with this text.

    `row` is the index of the row that is to blame, `field` the index of its value; the text is then put behind the place.
    """

    def __init__(self, text: str = "", *, row: int | None = None, field: int | None = None) -> None:
        super().__init__(text)
        self.row = row
        self.field = field


@dataclass(frozen=True)
class Model:
    """`predict(table(rows), parameters)` gives one prediction for each row, in the same order."""

    table: Callable[[Rows], Any]
    predict: Callable[[Any, dict[str, Any]], Any]
    parameters: Mapping[str, Any] = field(
        default_factory=dict
    )  # the request parameters it knows -> their type
    classes: Any = None  # the labels of its probabilities: a list, or a list of lists, one for each output
    signature: Signature | None = None  # where the model itself says more than its manifest
    # Rows with different values of it are predicted in different calls: one's missing value must not change another's dtype.
    apart: Callable[[Row], Hashable] | None = None
    examples: Sequence[Row] = ()  # rows that the model is likely to take
    notes: Sequence[str] = ()  # what may be the reason where it does not work


class Facts(NamedTuple):
    """What the web side knows of a loaded model."""

    signature: Signature
    parameters: Mapping[
        str, str
    ]  # name -> "boolean", "integer", "number", "string", "array", "object" or "any"
    classes: Any = None
    examples: Sequence[Row] = ()
    notes: Sequence[str] = ()


_KINDS = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


def facts_of(model: Any, signature: Signature, own: Mapping[str, Any]) -> Facts:
    """`model` is what `predict.load` returned, which may be anything; `own` the parameters that predict.py declares."""
    known = {**getattr(model, "parameters", {}), **own} if isinstance(model, Model) else dict(own)
    return Facts(
        signature=(model.signature if isinstance(model, Model) else None) or signature,
        parameters={name: _KINDS.get(kind, "any") for name, kind in sorted(known.items())},
        classes=model.classes if isinstance(model, Model) else None,
        examples=list(model.examples) if isinstance(model, Model) else [],
        notes=tuple(model.notes) if isinstance(model, Model) else (),
    )
