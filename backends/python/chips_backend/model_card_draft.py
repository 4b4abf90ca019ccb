"""A draft of the model card: what `save` knows of a model, and a line to be written for all that only people know.

The headings are those that `chips publish` asks for; a card counts as complete when no line begins with TODO.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from chips_backend.manifest import Signature, Tensor

CARD: Final = "card.md"
_MOST_NAMED: Final = 30  # columns
_MOST_CHARACTERS: Final = 60  # of a column's name


def draft_card(
    model: str, kind: str, signature: Signature, *, packages: Sequence[str], training_rows: int | None
) -> str:
    """The card in Markdown. `model`: the name of its class; `training_rows`: None where the training data is not known."""
    needs = f", with {', '.join(packages)}" if packages else ""
    trained = (
        "" if training_rows is None else f"\nTrained on {training_rows} rows; baseline.json describes them.\n"
    )
    return f"""# Model card

<!-- A draft: replace every line that begins with TODO. chips publish takes this file with the model. -->

## Owner

TODO: the team or person that answers for this model, with an address.

## Purpose

TODO: what its predictions are used for, by whom, and what they must not be used for.

It predicts {_listed(signature.outputs)} by {_plain(model)} ({kind}{needs}).

## Data

TODO: where the training data comes from, which period it covers, and who may use it.
{trained}
Inputs: {_listed(signature.inputs)}.

## Limits

TODO: for which inputs or groups of people it is wrong more often, and when it must be trained again.

## Metrics

TODO: how good it is, measured how, on which data, and against what.
"""


def write_new(folder: Path, text: str) -> bool:
    """Write the card where there is none; False, and nothing changes, where there is one."""
    try:
        with (folder / CARD).open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def _listed(columns: Sequence[Tensor]) -> str:
    named = [f"`{_plain(column.name)}` {column.datatype}" for column in columns[:_MOST_NAMED]]
    more = len(columns) - len(named)
    return ", ".join(named) + (f" and {more} more" if more > 0 else "")


def _plain(name: str) -> str:
    """A name without what Markdown or a reader of the card could take for something else."""
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in name
    ).replace("`", "'")
    return shown if len(shown) <= _MOST_CHARACTERS else shown[: _MOST_CHARACTERS - 1] + "…"
