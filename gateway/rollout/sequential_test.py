"""A sequential test whether a candidate's rate is higher than the stable version's.

The rate is that of errors, or of slow requests. Its evidence may be looked at as often as you like. Each question is about
two proportions: of the requests that each version served in the same minutes, how many failed, were refused, or took longer
than a threshold. The null hypothesis is a convex set of pairs (rate of the candidate, rate of the stable version), for
example "the candidate's rate is at most the stable one's plus 0.5 percentage points". Evidence against it is an e-process:
a product of e-values, one for each block of requests. Under the null hypothesis its expectation never exceeds one, whenever
you stop, so it reaches 1/alpha with probability alpha at most (Ville's inequality).

The e-value of a block of `n` and `m` requests bets on an alternative (p, q), which was chosen before the block was seen,
against the point (p0, q0) of the null set that is closest to it in Kullback-Leibler divergence, weighted by n and m: the
ratio of the two likelihoods. It is an e-value for each point (r, s) of the null set, since the logarithm of its expectation is
at most n(r-p0)(p-p0)/(p0(1-p0)) + m(s-q0)(q-q0)/(q0(1-q0)), which is minus the directional derivative of the divergence at
its minimum over a convex set, and so not positive. The rates may therefore differ from block to block: load that changes over
the day does no harm, as long as both versions meet it together.

Sources: R. Turner, A. Ly, P. Grünwald, "Generic E-variables for exact sequential k-sample tests that allow for optional
stopping" (2024), and R. Turner, P. Grünwald, "Exact anytime-valid confidence intervals for contingency tables and beyond"
(2023), for the e-value; A. Ramdas, P. Grünwald, V. Vovk, G. Shafer, "Game-theoretic statistics and safe anytime-valid
inference" (2023), for e-processes.
"""

from math import exp, log
from typing import Final, Literal, NamedTuple

import msgspec

ALPHA: Final = 0.05  # of a false alarm over a whole rollout, and of a false proof that nothing is worse

_FLOOR: Final = 1e-4  # rates that bets assume lie between this and one minus this
_PRIOR_REQUESTS: Final = 20.0  # how many requests the first guess weighs
_MEMORY_REQUESTS: Final = 3000.0  # requests of one version after which older ones count half in a bet's guess
_ALARM_SHARE: Final = (
    0.002  # of each bet that goes on a sudden failure: costs 0.4 of log evidence in 200 blocks
)
_ALARM_BLOCKS: Final = (
    200  # after which the share falls as one over their number: 100 000 cost 2.5 more, not 200
)
_ALARM_RATE: Final = 0.5


class Counts(NamedTuple):
    """How many requests there were, and how many were hits. A hit failed, or was slow."""

    requests: int
    hits: int


def closest_null_boundary_rates(
    candidate_requests: int, candidate_rate: float, stable_requests: int, stable_rate: float, margin: float
) -> tuple[float, float]:
    """The rates at the boundary of the null hypothesis that are closest to the given rates.

    With n, p of the candidate and m, q of the stable version, they are the rates (r, s) that are closest to (p, q) in
    Kullback-Leibler divergence: of all with r = s + `margin`, those where n KL(p, r) + m KL(q, s) is least. Rates are in (0, 1), `margin` in (-1, 1). The derivative along the
    line grows with s, so bisection finds its zero.
    """
    n, p, m, q = candidate_requests, candidate_rate, stable_requests, stable_rate
    # The minimum lies between the points of the line that agree with one version each.
    low, high = sorted((q, min(max(p - margin, 0.0), 1.0)))
    low, high = max(low, -margin), min(high, 1.0 - margin)
    for _ in range(60):
        s = (low + high) / 2
        r = s + margin
        if high - low < 1e-9 or not (0 < s < 1 and 0 < r < 1):
            break
        if n * (r - p) / (r * (1 - r)) + m * (s - q) / (s * (1 - s)) < 0:
            low = s
        else:
            high = s
    s = (low + high) / 2
    return min(max(s + margin, 1e-12), 1 - 1e-12), min(max(s, 1e-12), 1 - 1e-12)


def log_e_value(candidate: Counts, stable: Counts, p: float, q: float, margin: float) -> float:
    """The logarithm of the e-value of one block of requests.

    It bets on the rates (p, q) against "r <= s + margin", or ">=" where p is lower. A bet inside the null set is no bet: 0.
    """
    n, k = candidate
    m, j = stable
    r, s = closest_null_boundary_rates(n, p, m, q, margin)
    return (
        k * log(p / r) + (n - k) * log((1 - p) / (1 - r)) + j * log(q / s) + (m - j) * log((1 - q) / (1 - s))
    )


class HigherRateTest(msgspec.Struct, kw_only=True):
    """A sequential test whether the candidate's rate is higher.

    Higher means higher than the stable version's plus `margin`. `worse` is the log evidence against "at most that", `fine`
    that against "higher by `fine_margin` or more". Feed blocks in order with `observe_block`; a block's bet uses the
    earlier blocks alone. `fine_margin` is what `fine` is about: versions that are equal can be told from ones that differ
    by a margin, not by none.
    """

    margin: float
    fine_margin: float
    guess: float  # of both rates, before anything was seen
    blocks: int = 0
    worse: float = 0.0
    fine: float = 0.0
    worst: float = 0.0  # the largest `worse` so far: what was once proved stays proved
    candidate: tuple[float, float] = (0.0, 0.0)  # requests and hits, older ones discounted
    stable: tuple[float, float] = (0.0, 0.0)
    candidate_total: tuple[int, int] = (0, 0)
    stable_total: tuple[int, int] = (0, 0)

    def observe_block(self, candidate: Counts, stable: Counts) -> None:
        """Add one block of requests to the evidence. Both versions served them in the same seconds at one gateway."""
        if candidate.requests and stable.requests:
            p = self._rate(self.candidate)
            q = self._rate(self.stable)
            self.blocks += 1
            self.worse += self._log_worse(candidate, stable, p, q)
            self.worst = max(self.worst, self.worse)
            if p < q + self.fine_margin:
                self.fine += log_e_value(candidate, stable, p, q, self.fine_margin)
        self.candidate, self.stable = _remember(self.candidate, candidate), _remember(self.stable, stable)
        self.candidate_total = _add(self.candidate_total, candidate)
        self.stable_total = _add(self.stable_total, stable)

    def _log_worse(self, candidate: Counts, stable: Counts, p: float, q: float) -> float:
        """A bet on what was seen so far, and a small one on a version that suddenly fails."""
        bet = log_e_value(candidate, stable, p, q, self.margin) if p > q + self.margin else 0.0
        alarm_rate = max(_ALARM_RATE, (1 + q + self.margin) / 2)
        if alarm_rate >= 1 - _FLOOR:
            return bet
        alarm = log_e_value(candidate, stable, alarm_rate, q, self.margin)
        high = max(bet, alarm)
        share = _ALARM_SHARE * min(1.0, _ALARM_BLOCKS / self.blocks)
        return high + log((1 - share) * exp(bet - high) + share * exp(alarm - high))

    def _rate(self, seen: tuple[float, float]) -> float:
        requests, hits = seen
        rate = (hits + self.guess * _PRIOR_REQUESTS) / (requests + _PRIOR_REQUESTS)
        return min(max(rate, _FLOOR), 1 - _FLOOR)


def _remember(seen: tuple[float, float], block: Counts) -> tuple[float, float]:
    keep = 0.5 ** (block.requests / _MEMORY_REQUESTS)
    return seen[0] * keep + block.requests, seen[1] * keep + block.hits


def _add(total: tuple[int, int], block: Counts) -> tuple[int, int]:
    return total[0] + block.requests, total[1] + block.hits


Finding = Literal["worse", "fine", "undecided"]


def judge(evidence: HigherRateTest, *, questions: int, alpha: float = ALPHA) -> Finding:
    """Judge the evidence: worse, fine, or not known yet. The evidence is on one question.

    `questions`: how many there are. "worse" is a false alarm with probability alpha at most over all questions together
    (Bonferroni), however often you look. "fine" is wrong with probability alpha at most: all questions must be fine, so no
    correction is due.
    """
    if evidence.worst >= log(questions / alpha):
        return "worse"
    if evidence.fine >= -log(alpha):
        return "fine"
    return "undecided"
