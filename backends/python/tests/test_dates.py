"""Dates in requests become what the model was trained on, or are refused by row."""

import pandas as pd
import pytest
from chips_backend import input_tables
from chips_backend.input_tables import _times, date_dtypes
from chips_backend.model import Refused

UNITS = ["datetime64[ns]", "datetime64[us]", "datetime64[s]", "datetime64[us, UTC]"]


@pytest.mark.parametrize("dtype", UNITS)
@pytest.mark.parametrize("text", ["now", "today", "", "nan", "NaT", "-2026-11-29", "tomorrow", "29/11/2026"])
def test_words_are_no_dates(text: str, dtype: str):
    with pytest.raises(Refused, match="expected a date or time") as caught:
        _times(["2026-11-29", text], 3, dtype)
    assert (caught.value.row, caught.value.field) == (1, 3)


@pytest.mark.parametrize("dtype", UNITS)
@pytest.mark.parametrize(
    "text", ["2026-11-29", "20261129", "2026", "2026-11-29T10:00:00", "2026-11-29 10:00:00.25"]
)
def test_dates_are(text: str, dtype: str):
    found = _times([text, None], 0, dtype)
    assert (str(found.dtype), found.iloc[0].year, found.isna().tolist()) == (dtype, 2026, [False, True])


@pytest.mark.parametrize("dtype", UNITS[1:])
def test_dates_that_are_good_alone_are_good_together(dtype: str):
    texts = ["2026-11-29T10:00:00.123456789", "1500-01-01"]
    together = _times(texts, 0, dtype)
    assert together.tolist() == [_times([text], 0, dtype).iloc[0] for text in texts]


def test_each_dtype_is_tried_in_the_same_order_in_every_process():
    own = input_tables.default_date_dtype()
    assert date_dtypes()[0] == own
    rest = [one for one in ("datetime64[ns]", "datetime64[us]", "datetime64[s]") if one != own]
    assert date_dtypes()[1:-1] == rest
    assert pd.api.types.is_datetime64_any_dtype(pd.Series([], dtype=date_dtypes()[-1]))
