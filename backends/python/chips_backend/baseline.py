"""`baseline.json`: what the training data looked like, column by column, in figures that can be merged.

Numbers are counted in the bins of a DDSketch (Masson, Rim and Lee, VLDB 2019, https://arxiv.org/abs/1908.10693): the value v > 0
falls into the bin ceil(log(v) / log(gamma)), so a quantile read from the bins is off by (gamma - 1) / (gamma + 1) of its value at
most. Two sketches are merged by adding their bins. Where a column needs too many bins, gamma is squared and neighbours are joined
(UDDSketch, Epicoco et al., IEEE Access 2020), which keeps that bound for all quantiles; sketches of different gamma are merged at
the larger one. Texts, booleans and categories are counted by value, the frequent ones only.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from chips_backend.example_columns import Column

SCHEMA: Final = 1
ACCURACY: Final = 0.01  # relative error of a quantile, before bins are joined
GAMMA: Final = (1 + ACCURACY) / (1 - ACCURACY)
# A value that fewer rows have may point to a person; it is counted under "other".
LEAST_COUNT: Final = 10
MOST_VALUES: Final = 50
_MOST_BINS: Final = 256
_FEWEST_BINS: Final = 32
_BINS_OF_ALL: Final = 200_000
_LARGEST_EXPONENT: Final = 709.78  # of e, in a 64-bit float
_SMALLEST: Final = 2.2250738585072014e-308 * GAMMA  # smaller ones count as zero


class Sketch:
    """The numbers of a column, counted in bins of equal relative width (gamma). `joined`: how often gamma was squared."""

    def __init__(self) -> None:
        self.joined = 0
        self.zero = 0
        self.bins: dict[bool, Counter[int]] = {False: Counter(), True: Counter()}  # True: of positive numbers

    @property
    def gamma(self) -> float:
        return float(GAMMA ** (2**self.joined))

    @property
    def count(self) -> int:
        return self.zero + sum(map(Counter.total, self.bins.values()))

    def add(self, values: Any, most_bins: int) -> None:
        """Count an array of finite numbers."""
        size = np.abs(values)
        is_zero = size <= _SMALLEST
        self.zero += int(is_zero.sum())
        for positive, bins in self.bins.items():
            wanted = size[(values > 0 if positive else values < 0) & ~is_zero]
            if wanted.size:
                keys, counts = np.unique(np.ceil(np.log(wanted) / math.log(self.gamma)), return_counts=True)
                for key, count in zip(keys.astype(int).tolist(), counts.tolist(), strict=True):
                    bins[key] += count
        self.limit(most_bins)

    def limit(self, most_bins: int) -> None:
        """Join neighbours until there are no more bins than that, at least one for each sign."""
        while sum(map(len, self.bins.values())) > max(most_bins, 2):
            self.join()

    def join(self) -> None:
        for positive, bins in self.bins.items():
            joined: Counter[int] = Counter()
            for key, count in bins.items():
                joined[-(-key // 2)] += count
            self.bins[positive] = joined
        self.joined += 1

    def merge(self, other: "Sketch") -> None:
        """Add the other's counts; both end at the larger gamma."""
        while self.joined < other.joined:
            self.join()
        while other.joined < self.joined:
            other.join()
        self.zero += other.zero
        for positive, bins in self.bins.items():
            bins.update(other.bins[positive])

    def quantile(self, share: float) -> float:
        """The value below which `share` (0 to 1) of the numbers lie; NaN where there are none."""
        if not self.count:
            return math.nan
        rank, seen = share * (self.count - 1), 0
        ordered = [
            *((-self._value(key), count) for key, count in sorted(self.bins[False].items(), reverse=True)),
            (0.0, self.zero),
            *((self._value(key), count) for key, count in sorted(self.bins[True].items())),
        ]
        for value, count in ordered:
            seen += count
            if seen > rank:
                return value
        return ordered[-1][0]

    def _value(self, key: int) -> float:
        exponent = key * math.log(self.gamma) + math.log(2 / (1 + self.gamma))
        return math.exp(min(exponent, _LARGEST_EXPONENT))

    def described(self) -> dict[str, Any]:
        signs = {"negative": False, "positive": True}
        return {
            "gamma": self.gamma,
            "zero": self.zero,
            **{
                name: {str(key): self.bins[sign][key] for key in sorted(self.bins[sign])}
                for name, sign in signs.items()
            },
        }


class Statistics:
    """Of one column: how many values, how many missing, and how they are distributed."""

    def __init__(self, datatype: str, *, by_value: bool) -> None:
        self.datatype = datatype
        self.count = 0
        self.missing = 0
        self.sketch = None if by_value else Sketch()
        self.values: Counter[str] = Counter()

    def add(self, values: Sequence[Any], most_bins: int = _MOST_BINS) -> None:
        """Count the values of some rows: None is missing, of a list each entry counts."""
        present = [value for value in values if value is not None]
        self.count += len(present)
        self.missing += len(values) - len(present)
        if self.sketch is None:
            self.values.update(map(_text, _flat(present)))
            return
        numbers = np.array([value for value in _flat(present) if value is not None], dtype=np.float64)
        self.sketch.add(numbers[np.isfinite(numbers)], most_bins)

    def described(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"datatype": self.datatype, "count": self.count, "missing": self.missing}
        if self.sketch is not None:
            return {**facts, "quantiles": self.sketch.described()}
        frequent = [
            (value, count) for value, count in self.values.most_common(MOST_VALUES) if count >= LEAST_COUNT
        ]
        others = self.values.total() - sum(count for _, count in frequent)
        return {**facts, "frequent": dict(frequent), "other": others}


class Baseline:
    """Statistics of inputs and outputs, added to some rows at a time."""

    def __init__(self) -> None:
        self.rows = 0
        self.inputs: dict[str, Statistics] = {}
        self.outputs: dict[str, Statistics] = {}

    def add_inputs(self, columns: Sequence[Column]) -> None:
        self.rows += len(columns[0].values)
        most_bins = min(_MOST_BINS, max(_FEWEST_BINS, _BINS_OF_ALL // len(columns)))
        for column in columns:
            by_value = column.categories is not None or column.datatype in {"BYTES", "BOOL"}
            known = self.inputs.setdefault(column.name, Statistics(column.datatype, by_value=by_value))
            known.add(column.values, most_bins)

    def add_outputs(self, outputs: Mapping[str, tuple[str, Sequence[Any]]]) -> None:
        """`outputs`: name -> (datatype, one value a row)."""
        for name, (datatype, values) in outputs.items():
            by_value = datatype in {"BYTES", "BOOL"}
            self.outputs.setdefault(name, Statistics(datatype, by_value=by_value)).add(values)

    def described(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "rows": self.rows,
            "least_count": LEAST_COUNT,
            "inputs": {name: of.described() for name, of in self.inputs.items()},
            "outputs": {name: of.described() for name, of in self.outputs.items()},
        }


def sketch_of(described: Mapping[str, Any]) -> Sketch:
    """A sketch from `quantiles` of a baseline.json, to merge it or to ask it for quantiles."""
    sketch = Sketch()
    sketch.joined = round(math.log2(math.log(described["gamma"]) / math.log(GAMMA)))
    sketch.zero = int(described["zero"])
    for name, sign in (("negative", False), ("positive", True)):
        sketch.bins[sign].update({int(key): int(count) for key, count in described[name].items()})
    return sketch


def _flat(values: Sequence[Any]) -> list[Any]:
    flat = list(values)
    while any(isinstance(value, list) for value in flat):
        flat = [item for value in flat for item in (value if isinstance(value, list) else [value])]
    return flat


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
