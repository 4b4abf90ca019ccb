"""Compares two answers to one request.

It compares output by output, with a tolerance for numbers. It keeps what differed, never a value.
"""

import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from gateway.shadow.decode_answer import Answer, decode_outputs

_MOST_DIFFERENCES: Final = 5  # kept of one answer
_MOST_PATH: Final = 120
_DEEPEST: Final = 100
_LARGEST: Final = sys.float_info.max
_ROUNDING: Final = 1e-6  # a tolerance up to this is for rounding, which whole numbers do not have
LARGEST_SUM: Final = 1e300  # sums stay numbers that JSON has


class Difference(msgspec.Struct, frozen=True, omit_defaults=True):
    """One difference between two answers.

    It says where, what, and by how much. There is an `amount` only where both have a number.
    """

    path: str  # such as predictions[3] or price[0].low
    what: str  # number, label, missing, type, length, status, unreadable, bytes
    amount: float | None = None


class OutputComparison(msgspec.Struct):
    """The result of comparing one output of two answers."""

    agrees: bool = True
    numbers: int = 0
    sum_difference: float = 0.0  # absolute
    largest: float = 0.0


class AnswerComparison(msgspec.Struct):
    """The result of comparing two answers to one request."""

    outputs: dict[str, OutputComparison] = {}
    differences: list[Difference] = []  # the first few

    @property
    def agrees(self) -> bool:
        return not self.differences

    @property
    def largest_difference(self) -> float:
        """The largest difference between numbers of the two answers. It is infinite where something else differs, too."""
        if any(one.amount is None for one in self.differences):
            return math.inf
        return max((output.largest for output in self.outputs.values()), default=0.0)


def compare_answers(
    stable: Answer, candidate: Answer, tolerance: float, tolerances: Mapping[str, float]
) -> AnswerComparison:
    """Compare two answers to one request.

    It compares output by output. Numbers agree within `tolerance` x max(1, |a|, |b|), or the output's own in
    `tolerances`; everything else must be equal. Two whole numbers must be equal, too, unless the tolerance is larger
    than 1e-6: they may be labels or ids.
    """
    comparison = AnswerComparison()
    if stable.status != candidate.status:
        comparison.differences.append(Difference("", "status"))
        return comparison
    same = (stable.body, stable.coding, stable.json_length) == (
        candidate.body, candidate.coding, candidate.json_length,
    )  # fmt: skip
    try:
        before, after = decode_outputs(stable), decode_outputs(candidate)
    except (ValueError, RecursionError):
        if not same:
            comparison.differences.append(Difference("", "unreadable"))
        return comparison
    for name in {**before, **after}:
        output = comparison.outputs[name] = OutputComparison()
        if name not in before or name not in after:
            found: Iterator[Difference] = iter([Difference(name[:_MOST_PATH], "missing")])
        else:
            found = _compare(name, before[name], after[name], tolerances.get(name, tolerance), output, 0)
        for difference in _readable(name, found, same=same):
            output.agrees = False
            if len(comparison.differences) < _MOST_DIFFERENCES:
                comparison.differences.append(difference)
    return comparison


def _readable(name: str, found: Iterator[Difference], *, same: bool) -> Iterator[Difference]:
    """The differences found; where an output cannot be compared, one, unless both answers are the `same` bytes."""
    try:
        yield from found
    except (ValueError, RecursionError):
        if not same:
            yield Difference(name[:_MOST_PATH], "unreadable")


def _compare(
    path: str, a: Any, b: Any, tolerance: float, output: OutputComparison, depth: int
) -> Iterator[Difference]:
    if depth > _DEEPEST:
        raise ValueError("nested too deeply to compare")
    if _is_number(a) and _is_number(b):
        difference = _distance(a, b)
        output.numbers += 1
        if math.isfinite(difference):
            output.sum_difference = min(output.sum_difference + difference, LARGEST_SUM)
            output.largest = max(output.largest, difference)
        exact = tolerance <= _ROUNDING and isinstance(a, int) and isinstance(b, int)
        allowed = 0.0 if exact else tolerance * _scale(a, b)
        if not (math.isfinite(difference) and difference <= allowed):
            yield Difference(path[:_MOST_PATH], "number", difference if math.isfinite(difference) else None)
        return
    for step, one, other in _inner(path, a, b):
        if one is _ABSENT or other is _ABSENT:
            yield Difference(step[:_MOST_PATH], "missing")
        else:
            yield from _compare(step, one, other, tolerance, output, depth + 1)
    if isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            yield Difference(path[:_MOST_PATH], "length")
    elif type(a) is not type(b):
        yield Difference(path[:_MOST_PATH], "missing" if a is None or b is None else "type")
    elif not isinstance(a, dict) and a != b:
        yield Difference(path[:_MOST_PATH], "bytes" if isinstance(a, bytes) else "label")


_ABSENT: Final = object()


def _inner(path: str, a: Any, b: Any) -> Iterator[tuple[str, Any, Any]]:
    """The members of two objects by name, or of two lists by position."""
    if isinstance(a, dict) and isinstance(b, dict):
        for name in {**a, **b}:
            yield f"{path}.{name}", a.get(name, _ABSENT), b.get(name, _ABSENT)
    elif isinstance(a, list) and isinstance(b, list):
        for index, (one, other) in enumerate(zip(a, b, strict=False)):
            yield f"{path}[{index}]", one, other


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _scale(a: float, b: float) -> float:
    try:
        return float(max(1.0, abs(a), abs(b)))
    except OverflowError:
        return _LARGEST


def _distance(a: float, b: float) -> float:
    """Whole numbers are compared exactly: a float does not hold all of them."""
    if a == b:
        return 0.0
    try:
        return float(abs(a - b))
    except OverflowError:
        return math.inf
