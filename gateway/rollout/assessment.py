"""The evidence that a rollout has accumulated on whether its candidate is fine or worse.

Worse means worse than the stable version. The controller adds the gateways' reports to it; `decision` decides on it. It
also holds how far the current step is.
"""

from math import ceil, inf, log, log2
from typing import Any, Final

import msgspec

from gateway.core.rollout_document import Rollout, RolloutPlan
from gateway.rollout.request_count_reporter import RolloutReport, RolloutWindow
from gateway.rollout.request_counter import PER_DOUBLING, Tally
from gateway.rollout.sequential_test import ALPHA, Counts, Finding, HigherRateTest, judge

ASSESSMENTS: Final = "rollout-assessments"
ERRORS: Final = "errors"
REFUSALS: Final = "refusals"
SLOW: Final = {"p95": 0.05, "p99": 0.01}  # the share of the stable version's own requests above the threshold
_WORDS: Final = {
    ERRORS: "fails more often than the stable version",
    REFUSALS: "refuses more requests than the stable version",
    "p95": "is slower at the 95th percentile",
    "p99": "is slower at the 99th percentile",
}
# Of the requests at a step. A slow version that does not account for its time looks the same, so the last step bears less.
MOST_COLD: Final = 0.2
MOST_COLD_AT_LAST: Final = 0.05
_LEAST_PROOF: Final = 0.001
_CONTRARY: Final = -log(
    ALPHA
)  # by so much the evidence of "fine" falls where a step's own requests speak against it, and not by chance
# Windows (two minutes) in which requests of one version wait for one of the other: where a process has one or two requests a window,
# many windows have none of one version, and a version that fails them all would never be found.
_PAIRED_WITHIN: Final = 8
_PLENTY: Final = 20  # requests of one version: the other's next one will meet some in its own window, so these need not be kept
_ENOUGH: Final = 200  # requests of the stable version before its quantiles count
_MOST: Final = 20_000  # after which older ones count half


def _questions(plan: RolloutPlan) -> dict[str, HigherRateTest]:
    proof = max(plan.max_errors, _LEAST_PROOF)
    asked = {
        name: HigherRateTest(margin=plan.max_errors, fine_margin=proof, guess=0.01)
        for name in (ERRORS, REFUSALS)
    }
    # The tolerance is in the threshold. For the proof, half of the share is granted in addition.
    return asked | {
        name: HigherRateTest(margin=0.0, fine_margin=share / 2, guess=share) for name, share in SLOW.items()
    }


class SingleVersionWindows(msgspec.Struct, kw_only=True):
    """Windows of one gateway in which only one version had requests.

    They are kept until the other version has some, too. All of them are then judged as one window.
    """

    windows: int = 0
    settled: bool = True  # all of them began when the step's settling was over
    candidate: Tally = msgspec.field(default_factory=Tally)
    stable: Tally = msgspec.field(default_factory=Tally)


class Assessment(msgspec.Struct, kw_only=True):
    """The state of a rollout's assessment.

    It has the evidence on each question, and the progress of the current step. It is kept in the ephemeral document
    `rollout-assessments/MODEL`, so that another controller can go on where this one was.
    """

    rollout: str  # its id
    position: int
    questions: dict[str, HigherRateTest]
    requests: int = 0  # of the candidate, at this step
    cold_here: int = 0  # of them, those that waited for an instance to start
    waited_s: float = 0.0  # at this step
    cold: int = 0
    fine_before: dict[str, float] = {}  # by question: the evidence of "fine" when the step began
    seen: dict[str, int] = {}  # by gateway: the last window that was taken in
    unpaired: dict[str, SingleVersionWindows] = {}  # by gateway
    stable_latency: dict[int, int] = {}  # by bucket
    reporting: int = 0  # gateway processes whose figures come in time
    silent: int = 0  # and those whose do not: the step waits for them
    left_out: int = 0  # that were waited for in vain

    @classmethod
    def begin(cls, rollout: Rollout) -> "Assessment":
        return cls(rollout=rollout.id, position=rollout.position, questions=_questions(rollout.plan))

    def enter_step(self, position: int) -> None:
        """Enter a step: count its requests and its time from zero."""
        if position != self.position:
            self.position, self.requests, self.cold_here, self.waited_s = position, 0, 0, 0.0
            self.fine_before = {name: evidence.fine for name, evidence in self.questions.items()}

    def add_new_windows(self, rollout: Rollout, report: RolloutReport) -> bool:
        """Add the windows of a gateway's report that were not seen before. Return whether anything has changed.

        All of them are evidence; those of the current step also count for its progress.
        """
        new = [window for window in report.windows if window.number > self.seen.get(report.gateway, 0)]
        for window in new:
            self._observe(rollout, report.gateway, window)
        if new:
            self.seen[report.gateway] = new[-1].number
        return bool(new) | (report.final and self.judge_single_version_windows(rollout.plan, report.gateway))

    def judge_single_version_windows(self, plan: RolloutPlan, gone_gateway: str) -> bool:
        """Judge the windows that a gone gateway has left, in which only one version had requests.

        Return whether there were any. Over days, many gateways come and go.
        """
        pair = self.unpaired.pop(gone_gateway, None)
        if pair is not None:
            self._judge(plan, pair)
        return pair is not None

    def _observe(self, rollout: Rollout, gateway: str, window: RolloutWindow) -> None:
        candidate = window.versions.get(rollout.candidate) or Tally()
        stable = window.versions.get(rollout.stable) or Tally()
        if window.position == self.position:
            self.requests += candidate.requests
            self.cold_here += candidate.cold
        self.cold += candidate.cold
        pair = self.unpaired.setdefault(gateway, SingleVersionWindows())
        pair.windows += 1
        pair.settled &= window.after_s >= rollout.plan.settle_s
        pair.candidate.add(candidate)
        pair.stable.add(stable)
        fewer, more = sorted((pair.candidate.requests, pair.stable.requests))
        if fewer or more >= _PLENTY or pair.windows >= _PAIRED_WITHIN:
            del self.unpaired[gateway]
            self._judge(rollout.plan, pair)

    def _judge(self, plan: RolloutPlan, pair: SingleVersionWindows) -> None:
        candidate, stable = pair.candidate, pair.stable
        for name, hits in (
            (ERRORS, (candidate.errors, stable.errors)),
            (REFUSALS, (candidate.refusals, stable.refusals)),
        ):
            self.questions[name].observe_block(
                Counts(candidate.requests, hits[0]), Counts(stable.requests, hits[1])
            )
        if pair.settled:
            self._observe_latency(plan, candidate, stable)
        self._learn(stable)

    def _observe_latency(self, plan: RolloutPlan, candidate: Tally, stable: Tally) -> None:
        slower = ceil(log2(1 + plan.slower) * PER_DOUBLING)
        for name, share in SLOW.items():
            threshold = self.stable_bucket_exceeded_by(share)
            if threshold is not None:
                self.questions[name].observe_block(
                    _above(candidate, threshold + slower), _above(stable, threshold)
                )

    def stable_bucket_exceeded_by(self, share: float) -> int | None:
        """The latency bucket that at most `share` of the stable version's requests exceed.

        None while too few are known.
        """
        total = sum(self.stable_latency.values())
        if total < _ENOUGH:
            return None
        above = 0
        for number in sorted(self.stable_latency, reverse=True):
            above += self.stable_latency[number]
            if above > share * total:
                return number
        return None

    def _learn(self, stable: Tally) -> None:
        for number, count in stable.latency.items():
            self.stable_latency[number] = self.stable_latency.get(number, 0) + count
        if sum(self.stable_latency.values()) > _MOST:
            halves = {number: count // 2 for number, count in self.stable_latency.items()}
            self.stable_latency = {number: count for number, count in halves.items() if count}

    # -- what it says

    def findings(self) -> dict[str, Finding]:
        return {
            name: judge(evidence, questions=len(self.questions)) for name, evidence in self.questions.items()
        }

    def found_worse(self) -> str:
        """What the candidate was found to be worse at, in words. Empty where nothing was."""
        found = [name for name, finding in self.findings().items() if finding == "worse"]
        return "; ".join(f"it {_WORDS[name]} ({self._compared(name)})" for name in found)

    def too_many_cold_starts(self, *, at_last_comparison: bool) -> bool:
        """Whether too many of the candidate's requests at this step waited for a cold start.

        Then the times of the others say little. `at_last_comparison`: this is the step before 100 %, or the last one of the
        plan, which allows fewer.
        """
        return self.cold_here > (MOST_COLD_AT_LAST if at_last_comparison else MOST_COLD) * self.requests

    def questions_this_step_contradicts(self) -> list[str]:
        """The questions on which this step's own requests speak against the evidence for "fine" of earlier steps.

        That evidence has fallen since the step began, and not by chance. A version may fail only with the load of its last
        step: what it did before that must not outvote it.
        """
        return [
            name
            for name, evidence in self.questions.items()
            if evidence.fine < self.fine_before.get(name, -inf) - _CONTRARY
        ]

    def questions_not_yet_fine(self) -> list[str]:
        """The questions that are not answered with "fine" yet. Those whose answer is contradicted are among them."""
        contradicted = self.questions_this_step_contradicts()
        return [
            name for name, finding in self.findings().items() if finding != "fine" or name in contradicted
        ]

    def evidence(self) -> dict[str, Any]:
        """The evidence on each question as JSON values. It is for people and for the history."""
        findings = self.findings()
        return {
            name: {
                "finding": findings[name],
                "candidate": list(evidence.candidate_total),
                "stable": list(evidence.stable_total),
            }
            for name, evidence in self.questions.items()
        } | {
            "cold_starts": self.cold,
            "gateways": self.reporting,
            "gateways_left_out": self.left_out,
        }

    def _compared(self, name: str) -> str:
        evidence = self.questions[name]
        (n, k), (m, j) = evidence.candidate_total, evidence.stable_total
        return f"{k} of {n}, {j} of {m}"


def _above(tally: Tally, threshold: int) -> Counts:
    """How many of the requests whose time is known took longer than the bucket `threshold`."""
    return Counts(
        sum(tally.latency.values()),
        sum(count for number, count in tally.latency.items() if number > threshold),
    )
