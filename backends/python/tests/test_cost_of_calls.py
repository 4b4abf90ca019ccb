"""What a call of the model costs is learned from the calls that were seen."""

import math

import pytest
from chips_backend.batch import Cost


def test_the_cost_of_a_call_is_learned():
    cost = Cost()
    assert cost.rows_within(1.0) == 1, "nothing is known"
    cost.learn(1, 0.010)
    assert cost.rows_within(0.1) == 10, "one size only: all of it is taken to be per row"
    for rows in (1, 4, 9, 2, 7):
        cost.learn(rows, 0.009 + 0.001 * rows)
    fixed, per_row = cost.line
    assert (fixed, per_row) == pytest.approx((0.009, 0.001))
    assert cost.rows_within(0.0295) == 20
    assert cost.rows_within(0.001) == 1, "even one row misses this target"
    for rows in (1, 4, 9, 2, 7) * 100:
        cost.learn(rows, 0.09 + 0.01 * rows)
    assert cost.line == pytest.approx((0.09, 0.01), rel=0.02), "what was long ago is forgotten"


def test_it_tries_more_rows_where_one_alone_seems_too_slow():
    cost = Cost()
    for _ in range(5):
        cost.learn(1, 0.060)
    assert cost.rows_within(0.040) == 2, "nothing is known of two"
    cost.learn(2, 0.061)
    fixed, per_row = cost.line
    assert fixed > 50 * per_row, "a row costs hardly anything"


def test_strange_measurements_do_no_harm():
    cost = Cost()
    for rows, seconds in ((5, 0.0), (1, 0.5), (100, 0.001), (0, 0.0), (3, 9.0)):
        cost.learn(rows, seconds)
        assert 1 <= cost.rows_within(0.1) <= 10_000
        assert all(part >= 0 and math.isfinite(part) for part in cost.line)
