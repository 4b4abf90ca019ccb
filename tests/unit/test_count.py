"""benchmarks.count: what it names exists, and a count that is off is told."""

import importlib
from functools import reduce

import pytest

from benchmarks import count


@pytest.mark.parametrize("function", count.FUNCTIONS)
def test_it_counts_inside_functions_that_exist(function: str):
    module, _, path = function.partition(":")
    assert callable(reduce(getattr, path.split("."), importlib.import_module(module)))


def test_one_percent_more_is_as_expected_and_two_percent_less():
    expected = {"accepted": 200_000, "bad key": 100_000}
    assert not count.differences({"accepted": 201_900.0, "bad key": 98_100.0}, expected)
    assert [text.partition(":")[0] for text in count.differences({"accepted": 203_000.0}, expected)] == [
        "accepted"
    ]
    assert "(-3.0%)" in count.differences({"bad key": 97_000.0}, expected)[0]


def test_every_platform_has_a_figure_for_every_case():
    assert count.kept()
    for totals in count.kept().values():
        assert set(totals) == set(count.HELD)
