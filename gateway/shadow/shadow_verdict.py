"""The verdict on a whole shadow: whether the candidate's answers agree with the stable version's.

What counts is whether the candidate differs from the stable version more than the stable version differs from itself. The
intervals are confidence sequences: each holds at all times at once with the stated probability, so you may look as often as
you like. They invert the mixture likelihood ratio of a proportion with the prior Beta(1/2, 1/2): a rate p stays in the
interval while B(k + 1/2, n - k + 1/2) / B(1/2, 1/2) < p^k (1 - p)^(n - k) / alpha, by Ville's inequality. Source: H. Robbins,
"Statistical methods related to the law of the iterated logarithm", Ann. Math. Statist. 41 (1970).
"""

from collections.abc import Iterable
from math import lgamma, log
from typing import Any, Final, Literal, NamedTuple

from gateway.rollout.request_counter import bucket_lower_edge_s
from gateway.shadow.difference_counts import OutputFigures, ShadowReport, VersionFigures

ALPHA: Final = 0.05
QUESTIONS: Final = 4  # intervals that a verdict rests on: Bonferroni
_MOSTLY: Final = 0.5  # of the answers: a stable version with so much noise hides what a candidate changes

Finding = Literal["agrees", "differs", "fails", "undecided"]


class ConfidenceInterval(NamedTuple):
    """A confidence interval of a rate, and the rate that was seen."""

    seen: float
    low: float
    high: float


def always_valid_interval(hits: int, requests: int, alpha: float = ALPHA) -> ConfidenceInterval:
    """The always-valid confidence interval of a rate. `hits` of `requests` were seen."""
    if not requests:
        return ConfidenceInterval(0.0, 0.0, 1.0)
    k, n = hits, requests
    bound = lgamma(k + 0.5) + lgamma(n - k + 0.5) - lgamma(n + 1) - 2 * lgamma(0.5) + log(alpha)
    seen = k / n
    return ConfidenceInterval(seen, _edge(k, n, bound, 0.0, seen), _edge(k, n, bound, 1.0, seen))


def _edge(k: int, n: int, bound: float, outer: float, inner: float) -> float:
    """Where the likelihood falls to `bound` between `inner`, its maximum, and `outer`."""
    if inner == outer:
        return outer
    for _ in range(60):
        middle = (outer + inner) / 2
        if _log_likelihood(k, n, middle) > bound:
            inner = middle
        else:
            outer = middle
    return outer


def _log_likelihood(k: int, n: int, p: float) -> float:
    return (k * log(p) if k else 0.0) + ((n - k) * log(1 - p) if n > k else 0.0)


class ShadowVerdict(NamedTuple):
    """The verdict on a shadow, the reason in a sentence, and the intervals that it rests on."""

    finding: Finding
    why: str
    agreement: ConfidenceInterval
    own_agreement: ConfidenceInterval  # of the stable version with itself
    failures: ConfidenceInterval
    stable_failures: ConfidenceInterval


def judge_shadow(report: ShadowReport, allowed: float) -> ShadowVerdict:
    """Judge a shadow by its report.

    `allowed`: the share of the answers that the candidate may change. Only an answer that the stable version gives again can
    be seen to change. So of a stable version that differs from itself in a share `r` of the answers, the candidate may differ
    in r + allowed x (1 - r); one that always differs proves nothing.
    """
    pairs, noise = report.findings.pairs, report.findings.noise
    alpha = ALPHA / QUESTIONS
    differs = always_valid_interval(pairs.compared - pairs.agreed, pairs.compared, alpha)
    # An answer that could not be compared, where the stable version's own could, may differ: nothing agrees because of it.
    unlike, of = pairs.compared - pairs.agreed + report.incomparable, pairs.compared + report.incomparable
    may_be = always_valid_interval(unlike, of, alpha)
    own = always_valid_interval(noise.compared - noise.agreed, noise.compared, alpha)
    candidate, stable = report.findings.candidate, report.findings.stable
    failures = always_valid_interval(candidate.failed, candidate.requests, alpha)
    stable_failures = always_valid_interval(stable.failed, stable.requests, alpha)
    may_differ = own.low + allowed * (1 - own.low)
    finding: Finding = "undecided"
    if candidate.requests and stable.requests and failures.low > stable_failures.high:
        finding = "fails"
        why = f"the candidate fails at least {failures.low:.1%} of the requests, the stable version at most {stable_failures.high:.1%}"
    elif pairs.compared and noise.compared and differs.low > own.high + allowed * (1 - own.high):
        finding = "differs"
        why = f"at least {differs.low:.1%} of the answers differ, and of the stable version's own at most {own.high:.1%}"
    elif pairs.compared and noise.compared and max(differs.high, may_be.high) <= may_differ:
        # An answer that never came is not compared, so agreement alone would pass a version that fails where it would differ.
        if failures.high <= stable_failures.low + allowed:
            finding = "agrees"
            why = f"at most {max(differs.high, may_be.high):.1%} of the answers differ, and {may_differ:.1%} may"
        else:
            why = f"its answers agree, and the candidate may still fail {failures.high:.1%} of the requests: too few to tell"
    elif own.low > _MOSTLY:
        why = (
            f"the stable version differs from itself in at least {own.low:.1%} of the answers, so a change of the others is hardly "
            "seen: begin again with a --tolerance that its noise stays within"
        )
    elif pairs.compared and noise.compared and differs.high <= may_differ:
        why = f"{report.incomparable} answers of the candidate came and could not be compared: too large, or in an unknown coding"
    else:
        why = f"{pairs.compared} answers were compared, {noise.compared} with the stable version's own: too few to tell"
    return ShadowVerdict(finding, why, _complement(differs), _complement(own), failures, stable_failures)


def _complement(rate: ConfidenceInterval) -> ConfidenceInterval:
    return ConfidenceInterval(1 - rate.seen, 1 - rate.high, 1 - rate.low)


def latency_quantile(share: float, figures: VersionFigures) -> float | None:
    """A quantile of a version's latency, in seconds. None where nothing was counted. It is 2.2 % too high at most."""
    total = sum(figures.latency.values())
    seen = 0
    for number in sorted(figures.latency):
        seen += figures.latency[number]
        if seen >= share * total:
            return bucket_lower_edge_s(number + 1)
    return None


def combine_reports(reports: Iterable[ShadowReport], shadow: str) -> ShadowReport:
    """Combine all gateways' reports on one shadow into one."""
    total = ShadowReport(shadow=shadow, gateway="")
    for report in reports:
        if report.shadow == shadow:
            total.add(report)
    return total


def verdict_document(report: ShadowReport, allowed: float) -> dict[str, Any]:
    """The verdict on a shadow with its counts, as JSON values."""
    verdict, findings = judge_shadow(report, allowed), report.findings
    return {
        "finding": verdict.finding,
        "why": verdict.why,
        "allowed_disagreement": allowed,
        "sampled": report.sampled,
        "dropped": dict(report.dropped),
        "incomparable": report.incomparable,
        "compared": findings.pairs.compared,
        "agreement": verdict.agreement._asdict(),
        "stable_compared_with_itself": findings.noise.compared,
        "stable_agreement_with_itself": verdict.own_agreement._asdict(),
        "outputs": {
            name: {"candidate": _output(figures), "stable": _output(findings.noise.outputs.get(name))}
            for name, figures in findings.pairs.outputs.items()
        },
        "candidate": _version(findings.candidate, verdict.failures),
        "stable": _version(findings.stable, verdict.stable_failures),
        "worst": [
            {
                "request_id": one.request_id,
                "differences": [
                    {"path": d.path, "what": d.what, **({} if d.amount is None else {"amount": d.amount})}
                    for d in one.differences
                ],
            }
            for one in findings.worst
        ],
    }


def _output(figures: OutputFigures | None) -> dict[str, Any] | None:
    if figures is None or not figures.compared:
        return None
    mean = figures.sum_difference / figures.numbers if figures.numbers else None
    return {
        "compared": figures.compared,
        "agreement": always_valid_interval(figures.agreed, figures.compared)._asdict(),
        "mean_difference": mean,
        "largest_difference": figures.largest if figures.numbers else None,
    }


def _version(figures: VersionFigures, failures: ConfidenceInterval) -> dict[str, Any]:
    return {
        "requests": figures.requests,
        "failed": figures.failed,
        "failures": failures._asdict(),
        "p50_s": latency_quantile(0.5, figures),
        "p95_s": latency_quantile(0.95, figures),
        "p99_s": latency_quantile(0.99, figures),
    }
