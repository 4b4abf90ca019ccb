"""An answer written in pieces has the bytes of one that is written at once."""

import msgspec
import pytest
from chips_backend import render_large_json
from chips_backend.render_large_json import render_large
from hypothesis import given
from hypothesis import strategies as st

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=30) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=60,
)


@given(VALUES)
def test_the_same_bytes(value):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(render_large_json, "_PIECE_ITEMS", 3)
        assert render_large({"predictions": value}) == msgspec.json.encode({"predictions": value})


@pytest.mark.parametrize("count", [4_999, 5_000, 5_001, 23_456])
def test_long_lists(count):
    answer = {
        "outputs": [{"name": "y", "data": [at / 7 for at in range(count)]}],
        "predictions": [[1, "a"]] * count,
    }
    assert render_large(answer) == msgspec.json.encode(answer)
