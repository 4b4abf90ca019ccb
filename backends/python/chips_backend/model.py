"""What a loaded model is to this backend: how its input table is built from rows, and how it predicts that."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Row = Sequence[Any]  # one value for each input, in the order of the signature; None where it is missing
Rows = Sequence[Row]


class Refused(ValueError):
    """Raise it in `predict` for rows or parameters that the model cannot take: the caller gets 422 with this text."""


@dataclass(frozen=True)
class Model:
    """`predict(table(rows), parameters)` gives one prediction for each row, in the same order."""

    table: Callable[[Rows], Any]
    predict: Callable[[Any, dict[str, Any]], Any]
