"""Counts of a shadow's answers that agree and differ.

The worst examples are kept, too. The counts of several gateways add up. No payload, no values.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from gateway.rollout.request_counter import Bucket, Count, latency_bucket
from gateway.shadow.compare_answers import LARGEST_SUM, AnswerComparison, Difference
from gateway.shadow.decode_answer import Answer

WORST: Final = 20
_MOST_OUTPUTS: Final = 200
_LONGEST_NAME: Final = 120  # characters
_OTHER: Final = "(other outputs)"


def _check_part(part: int, whole: int) -> None:
    """Raise ValueError where a report says what cannot be."""
    if part > whole:
        raise ValueError(f"{part} of {whole}")


class DifferenceExample(msgspec.Struct, frozen=True, omit_defaults=True):
    """An example of a request whose answers differed. `amount`: the largest difference where only numbers differ."""

    request_id: str
    differences: list[Difference]
    amount: float | None = None

    @property
    def rank(self) -> tuple[bool, float]:
        return self.amount is None, self.amount or 0.0


class OutputFigures(msgspec.Struct, omit_defaults=True):
    """The counts and differences of one output. They are over all pairs of answers that have it."""

    compared: Count = 0
    agreed: Count = 0
    numbers: Count = 0
    sum_difference: float = 0.0
    largest: float = 0.0

    def __post_init__(self) -> None:
        _check_part(self.agreed, self.compared)

    def add(self, other: "OutputFigures") -> None:
        self.compared += other.compared
        self.agreed += other.agreed
        self.numbers += other.numbers
        self.sum_difference = min(self.sum_difference + other.sum_difference, LARGEST_SUM)
        self.largest = max(self.largest, other.largest)


class PairFigures(msgspec.Struct, omit_defaults=True):
    """The counts of compared pairs of answers, and of each output.

    A pair is of the stable version and the candidate, or of the stable version and itself.
    """

    compared: Count = 0
    agreed: Count = 0
    outputs: dict[str, OutputFigures] = {}

    def __post_init__(self) -> None:
        _check_part(self.agreed, self.compared)

    def count(self, comparison: AnswerComparison) -> None:
        self.compared += 1
        self.agreed += comparison.agrees
        for name, one in comparison.outputs.items():
            self._output(name).add(OutputFigures(1, one.agrees, one.numbers, one.sum_difference, one.largest))

    def add(self, other: "PairFigures") -> None:
        self.compared += other.compared
        self.agreed += other.agreed
        for name, figures in other.outputs.items():
            self._output(name).add(figures)

    def _output(self, name: str) -> OutputFigures:
        """Bounded: an answer may name its outputs as it likes."""
        name = name[:_LONGEST_NAME]
        if name not in self.outputs and len(self.outputs) >= _MOST_OUTPUTS:
            name = _OTHER
        return self.outputs.setdefault(name, OutputFigures())

    def no_answer_had(self, output: str) -> bool:
        """Whether no answer had the output called `output`. False where that is not known, and where there was no answer."""
        return bool(self.outputs) and not {output[:_LONGEST_NAME], _OTHER} & self.outputs.keys()


class VersionFigures(msgspec.Struct, omit_defaults=True):
    """The counts of one version's shadowed requests.

    They count requests and failures, and latency. `latency` is by bucket (`gateway.rollout.request_counter`).
    """

    requests: Count = 0
    failed: Count = 0  # 5xx, or no whole answer
    latency: dict[Bucket, Count] = {}

    def __post_init__(self) -> None:
        _check_part(self.failed, self.requests)

    def count(self, answer: Answer) -> None:
        self.requests += 1
        self.failed += bool(answer.failure) or answer.status >= 500
        number = latency_bucket(answer.duration_s)
        self.latency[number] = self.latency.get(number, 0) + 1

    def add(self, other: "VersionFigures") -> None:
        self.requests += other.requests
        self.failed += other.failed
        for number, count in other.latency.items():
            self.latency[number] = self.latency.get(number, 0) + count


class Findings(msgspec.Struct, omit_defaults=True):
    """All findings of one shadow.

    They are both versions' counts, compared pairs, the stable version's noise, and the worst examples.
    """

    candidate: VersionFigures = msgspec.field(default_factory=VersionFigures)
    stable: VersionFigures = msgspec.field(default_factory=VersionFigures)
    pairs: PairFigures = msgspec.field(default_factory=PairFigures)
    noise: PairFigures = msgspec.field(default_factory=PairFigures)
    worst: list[DifferenceExample] = []

    def add(self, other: "Findings") -> None:
        self.candidate.add(other.candidate)
        self.stable.add(other.stable)
        self.pairs.add(other.pairs)
        self.noise.add(other.noise)
        self.keep_worst(other.worst)

    def keep_worst(self, examples: Iterable[DifferenceExample]) -> None:
        self.worst = sorted([*self.worst, *examples], key=lambda one: one.rank, reverse=True)[:WORST]


class ShadowReport(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One gateway process's report on a shadow. It is the ephemeral document `shadow-figures/MODEL.GATEWAY`."""

    shadow: str  # its id
    gateway: str
    sampled: Count = 0  # requests that the share picked
    dropped: dict[str, Count] = {}  # of those, by the bound that they met
    incomparable: Count = 0  # of those: the candidate's answer was too large, or in an unknown coding
    findings: Findings = msgspec.field(default_factory=Findings)

    def add(self, other: "ShadowReport") -> None:
        self.sampled += other.sampled
        self.incomparable += other.incomparable
        for reason, count in other.dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + count
        self.findings.add(other.findings)
