"""Read a model's baseline: the statistics of its training data.

The file is `baseline.json`. `save` writes the file in each language. Numbers are counted in the bins of a DDSketch (Masson,
Rim and Lee, VLDB 2019, https://arxiv.org/abs/1908.10693); two sketches are merged by adding their bins.
docs/how-to/save-a-model.md describes the file.
"""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

BASELINE_NAME: Final = "baseline.json"

_Count = Annotated[int, Meta(ge=0)]
_Bins = Mapping[int, Annotated[int, Meta(ge=1)]]


class QuantileSketch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A sketch of a column's numbers that gives quantiles (DDSketch).

    It counts by logarithmic bin. Bin i of `positive` holds gamma^(i-1) to gamma^i, `negative` the same of -v.
    """

    gamma: Annotated[float, Meta(gt=1)]
    zero: _Count
    negative: _Bins
    positive: _Bins


class ColumnStatistics(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The statistics of one input or output column. It has either `quantiles`, or `frequent` and `other`."""

    datatype: str
    count: _Count  # rows that have a value
    missing: _Count
    quantiles: QuantileSketch | UnsetType = UNSET
    frequent: Mapping[str, Annotated[int, Meta(ge=1)]] | UnsetType = UNSET
    other: _Count | UnsetType = UNSET  # values that `frequent` does not name


class Baseline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The baseline: statistics of each input and output of a model over its training data.

    Inputs are counted over all `rows` rows, outputs over at most 10 000 of them.
    """

    schema: Literal[1]
    rows: _Count
    least_count: _Count  # a value that fewer rows have is not named
    inputs: Mapping[str, ColumnStatistics]
    outputs: Mapping[str, ColumnStatistics]


def parse_baseline(content: bytes) -> Baseline:
    """Read a baseline.json. ValueError says what is wrong with it."""
    try:
        baseline = msgspec.json.decode(content, type=Baseline)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{BASELINE_NAME} cannot be read: {error}") from None
    for name, column in (*baseline.inputs.items(), *baseline.outputs.items()):
        by_value = column.frequent is not UNSET and column.other is not UNSET
        if (column.quantiles is not UNSET) == by_value:
            raise ValueError(f"{BASELINE_NAME}: {name!r} must have either quantiles, or frequent and other")
        if column.frequent is not UNSET and any(
            count < baseline.least_count for count in column.frequent.values()
        ):
            raise ValueError(f"{BASELINE_NAME}: {name!r} names a value that too few rows have")
    for name, column in baseline.inputs.items():
        if column.count + column.missing != baseline.rows:
            raise ValueError(f"{BASELINE_NAME}: {name!r} has not {baseline.rows} rows")
    return baseline
