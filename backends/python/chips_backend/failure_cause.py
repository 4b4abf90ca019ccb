"""Find the cause of a failed prediction: the caller's rows (and which row and field), or the model."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from chips_backend.decode_instances import shown
from chips_backend.model import Row, Rows
from chips_backend.prediction_pool import Failed, Outcome

MOST_FIELDS: Final = 10

Predict = Callable[[Rows, dict[str, Any]], Awaitable[Outcome]]


class ModelFailed(Exception):
    """The model failed, and nobody else is to blame."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(f"{failed.kind}: {failed.text}")
        self.failed = failed


class CannotTake(Exception):
    """The model cannot take what the caller sent. Each problem is a row, a field and what to say of it; no row: all of it."""

    def __init__(self, problems: Sequence[tuple[int | None, int | None, str]], stack: str = "") -> None:
        super().__init__("; ".join(text for _, _, text in problems))
        self.problems = problems
        self.stack = stack


async def explain(
    failed: Failed, rows: Rows, parameters: dict[str, Any], good: Row | None, predict: Predict
) -> CannotTake | ModelFailed:
    """The exception to raise for `rows`, which failed. `predict` is called with other rows to find the cause."""
    if failed.refused is not None:
        row, field = failed.refused
        return CannotTake([(row, field, failed.text)])
    if not failed.may_be_the_caller or good is None or not rows:
        return ModelFailed(failed)

    async def fails(some: Rows) -> bool:
        return isinstance(await predict(some, parameters), Failed)

    if await fails([good]):
        if parameters and not isinstance(await predict([good], {}), Failed):
            return CannotTake([(None, None, "the model cannot take these parameters")], failed.stack)
        return ModelFailed(failed)
    low, high = 0, len(rows)
    while high - low > 1:
        middle = (low + high) // 2
        if await fails(rows[low:middle]):
            high = middle
        else:
            low = middle
    if not await fails(rows[low : low + 1]):
        return ModelFailed(failed)  # not by itself, or not again
    fields = await _fields(rows[low], good, fails)
    problems: list[tuple[int | None, int | None, str]] = [
        (low, field, f"the model cannot take {_shown(rows[low], field)}") for field in fields
    ]
    return CannotTake(problems or [(low, None, "the model cannot take this row")], failed.stack)


async def _fields(row: Row, good: Row, fails: Callable[[Rows], Awaitable[bool]]) -> list[int]:
    """The fields of `row` that each by itself make the good row fail."""
    if not _are_alike(row, good):
        return []
    names = list(row) if isinstance(row, dict) else range(len(row))
    guilty: list[int] = []
    waiting = [[at for at, name in enumerate(names) if row[name] != good[name]]]
    while waiting and len(guilty) < MOST_FIELDS:
        some = waiting.pop()
        if not some or not await fails([_mixed(row, good, some)]):
            continue
        if len(some) == 1:
            guilty.append(some[0])
        else:
            waiting += [some[len(some) // 2 :], some[: len(some) // 2]]
    return sorted(guilty)


def _are_alike(row: Any, good: Any) -> bool:
    if isinstance(row, dict):
        return isinstance(good, dict) and set(row) <= set(good)
    return isinstance(row, list | tuple) and isinstance(good, list | tuple) and len(row) == len(good)


def _mixed(row: Any, good: Any, fields: Sequence[int]) -> Any:
    if isinstance(row, dict):
        names = list(row)
        return {**good, **{names[at]: row[names[at]] for at in fields}}
    mixed = list(good)
    for at in fields:
        mixed[at] = row[at]
    return mixed


def _shown(row: Any, field: int) -> str:
    return shown(list(row.values())[field] if isinstance(row, dict) else row[field])
