"""The statistics of a verdict: exact where that can be computed, by simulation with fixed seeds where it cannot."""

from itertools import product
from math import comb, exp, log

import numpy as np
import pytest

from gateway.rollout.sequential_test import (
    ALPHA,
    Counts,
    HigherRateTest,
    closest_null_boundary_rates,
    judge,
    log_e_value,
)

_QUESTIONS = 4


def _likelihood(requests: int, hits: int, rate: float) -> float:
    return comb(requests, hits) * rate**hits * (1 - rate) ** (requests - hits)


def _expected_e_value(
    n: int, m: int, bet: tuple[float, float], truth: tuple[float, float], margin: float
) -> float:
    return sum(
        _likelihood(n, k, truth[0])
        * _likelihood(m, j, truth[1])
        * exp(log_e_value(Counts(n, k), Counts(m, j), *bet, margin))
        for k, j in product(range(n + 1), range(m + 1))
    )


@pytest.mark.parametrize("margin", [0.0, 0.005, 0.2, -0.1])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 12), (7, 3)])
def test_no_point_of_the_null_hypothesis_expects_to_win(n: int, m: int, margin: float) -> None:
    """Exact: all outcomes of a block, for true rates on and inside the border."""
    for bet in [(0.35, 0.05), (0.9, 0.3), (0.02, 0.3), (0.01, 0.99)]:
        worse = bet[0] > bet[1] + margin
        for s, beyond in product((0.12, 0.15, 0.4, 0.75), (0.0, 0.01, 0.1)):
            r = s + margin - beyond if worse else s + margin + beyond
            if 0 <= r <= 1:
                assert _expected_e_value(n, m, bet, (r, s), margin) <= 1 + 1e-9


def test_a_bet_that_is_right_expects_to_win() -> None:
    assert _expected_e_value(7, 7, (0.6, 0.1), (0.6, 0.1), 0.05) > 2


@pytest.mark.parametrize("margin", [0.0, 0.005, -0.02, 0.3])
def test_the_projection_is_the_nearest_point(margin: float) -> None:
    def divergence(n: int, p: float, m: int, q: float, s: float) -> float:
        r = s + margin
        kl = n * (p * log(p / r) + (1 - p) * log((1 - p) / (1 - r)))
        return kl + m * (q * log(q / s) + (1 - q) * log((1 - q) / (1 - s)))

    for n, p, m, q in [
        (20, 0.03, 380, 0.01),
        (1, 0.5, 1, 0.001),
        (300, 0.0001, 10, 0.02),
        (5, 0.999, 50, 0.1),
    ]:
        r, s = closest_null_boundary_rates(n, p, m, q, margin)
        assert r == pytest.approx(s + margin, abs=1e-9)
        grid = [x for x in np.linspace(0.0005, 0.9995, 1500) if 0 < x + margin < 1]
        best = min(divergence(n, p, m, q, float(x)) for x in grid)
        assert divergence(n, p, m, q, s) <= best + 1e-6


def _first(
    rng: np.random.Generator,
    finding: str,
    *,
    candidate: float,
    stable: float,
    margin: float,
    requests: tuple[int, int] = (20, 380),
    blocks: int,
) -> int | None:
    """Requests of the candidate until the finding, looked at after each block."""
    evidence = HigherRateTest(margin=margin, fine_margin=max(margin, 0.001), guess=stable)
    n, m = requests
    draws = zip(rng.binomial(n, candidate, blocks), rng.binomial(m, stable, blocks), strict=True)
    for number, (k, j) in enumerate(draws, 1):
        evidence.observe_block(Counts(n, int(k)), Counts(m, int(j)))
        if judge(evidence, questions=_QUESTIONS) == finding:
            return number * n
    return None


@pytest.mark.slow
def test_no_difference_is_seldom_called_worse_over_a_whole_rollout() -> None:
    """Four questions, looked at every 15 s for 10 min at each of 1, 5, 25 and 50 %, while rates drift as load does."""
    rng = np.random.default_rng(20261130)
    alarms = 0
    rollouts = 250
    shares = np.repeat([0.01, 0.05, 0.25, 0.5], 40)
    drift = 1 + 0.8 * np.sin(np.linspace(0, 9, len(shares)))
    rates = {"errors": 0.01, "refusals": 0.004, "p95": 0.05, "p99": 0.01}
    for _ in range(rollouts):
        questions = [HigherRateTest(margin=0.0, fine_margin=0.001, guess=0.01) for _ in rates]
        for share, factor in zip(shares, drift, strict=True):
            n = max(1, int(400 * share))
            for evidence, rate in zip(questions, rates.values(), strict=True):
                k, j = rng.binomial([n, 400 - n], rate * factor)
                evidence.observe_block(Counts(n, int(k)), Counts(400 - n, int(j)))
        alarms += any(judge(evidence, questions=len(rates)) == "worse" for evidence in questions)
    assert alarms <= ALPHA * rollouts


@pytest.mark.parametrize(
    ("candidate", "stable", "margin", "within"),
    [
        pytest.param(0.02, 0.01, 0.0, 5_000, id="errors doubled, none tolerated"),
        pytest.param(0.02, 0.01, 0.005, 25_000, id="errors doubled, half a point tolerated"),
        pytest.param(0.03, 0.0, 0.005, 1_000, id="three percent fail"),
        pytest.param(0.03, 0.01, 0.0, 2_500, id="p99 slower by half, of log-normal times"),
        pytest.param(1.0, 0.0, 0.005, 40, id="dead"),
    ],
)
def test_a_worse_version_is_found_within_a_number_of_requests(
    candidate: float, stable: float, margin: float, within: int
) -> None:
    rng = np.random.default_rng(7)
    found = [
        _first(rng, "worse", candidate=candidate, stable=stable, margin=margin, blocks=within // 20)
        for _ in range(20)
    ]
    assert sum(number is not None for number in found) >= 19


def test_a_version_that_dies_late_is_found_in_its_first_block() -> None:
    rng = np.random.default_rng(5)
    evidence = HigherRateTest(margin=0.005, fine_margin=0.005, guess=0.001)
    for k in rng.binomial(20, 0.004, 400):
        evidence.observe_block(Counts(20, int(k)), Counts(380, 1))
        assert judge(evidence, questions=_QUESTIONS) != "worse"
    evidence.observe_block(Counts(20, 20), Counts(380, 1))
    assert judge(evidence, questions=_QUESTIONS) == "worse"


def test_a_long_rollout_does_not_dull_the_verdict() -> None:
    """A day of six gateways: what is bet on a sudden failure must not use up the evidence of a later one."""
    evidence = HigherRateTest(margin=0.005, fine_margin=0.005, guess=0.01)
    for _ in range(30_000):
        evidence.observe_block(Counts(20, 0), Counts(380, 0))
    assert evidence.worse > -3
    rng = np.random.default_rng(3)
    blocks = 0
    while judge(evidence, questions=_QUESTIONS) != "worse":
        evidence.observe_block(Counts(20, int(rng.binomial(20, 0.03))), Counts(380, 0))
        blocks += 1
    assert blocks * 20 <= 2_500


def test_an_equal_version_is_called_fine_within_the_tolerance() -> None:
    rng = np.random.default_rng(3)
    found = [_first(rng, "fine", candidate=0.002, stable=0.002, margin=0.005, blocks=400) for _ in range(20)]
    assert sum(number is not None for number in found) >= 18


def test_a_version_on_the_border_is_seldom_called_fine() -> None:
    rng = np.random.default_rng(4)
    found = [_first(rng, "fine", candidate=0.015, stable=0.01, margin=0.005, blocks=200) for _ in range(100)]
    assert sum(number is not None for number in found) <= 5


def test_little_traffic_is_undecided() -> None:
    evidence = HigherRateTest(margin=0.005, fine_margin=0.005, guess=0.01)
    assert judge(evidence, questions=_QUESTIONS) == "undecided"
    for _ in range(100):
        evidence.observe_block(Counts(1, 0), Counts(3, 0))
    assert judge(evidence, questions=_QUESTIONS) == "undecided"


def test_without_the_stable_version_nothing_is_compared() -> None:
    evidence = HigherRateTest(margin=0.0, fine_margin=0.001, guess=0.01)
    evidence.observe_block(Counts(1000, 1000), Counts(0, 0))
    assert judge(evidence, questions=_QUESTIONS) == "undecided"
    assert evidence.candidate_total == (1000, 1000)


def test_what_was_proved_stays_proved() -> None:
    evidence = HigherRateTest(margin=0.0, fine_margin=0.001, guess=0.01)
    evidence.observe_block(Counts(50, 50), Counts(50, 0))
    for _ in range(50):
        evidence.observe_block(Counts(50, 0), Counts(50, 50))
    assert judge(evidence, questions=_QUESTIONS) == "worse"
