"""The verdict: judged against the stable version's own noise, and valid however often one looks."""

import random
from typing import Any

import msgspec
import pytest

from gateway.shadow.compare_answers import AnswerComparison, Difference, OutputComparison
from gateway.shadow.decode_answer import Answer
from gateway.shadow.difference_counts import (
    DifferenceExample,
    Findings,
    PairFigures,
    ShadowReport,
    VersionFigures,
)
from gateway.shadow.shadow_verdict import (
    ALPHA,
    always_valid_interval,
    combine_reports,
    judge_shadow,
    latency_quantile,
    verdict_document,
)


def report(differ: int, compared: int, own: int, twice: int, failed: int = 0) -> ShadowReport:
    return ShadowReport(
        shadow="s",
        gateway="g",
        findings=Findings(
            candidate=VersionFigures(requests=compared + failed, failed=failed),
            stable=VersionFigures(requests=compared + failed),
            pairs=PairFigures(compared=compared, agreed=compared - differ),
            noise=PairFigures(compared=twice, agreed=twice - own),
        ),
    )


@pytest.mark.parametrize(
    ("found", "finding"),
    [
        (report(0, 2000, 0, 400), "agrees"),
        (report(2000, 2000, 0, 400), "differs"),
        (report(300, 2000, 0, 400), "differs"),
        (report(600, 2000, 120, 400), "undecided"),  # 30 % as in its own noise
        (report(1900, 2000, 40, 400), "differs"),  # far more than its own 10 %
        (report(0, 20, 0, 4), "undecided"),
        (report(0, 0, 0, 0), "undecided"),
        (report(0, 2000, 0, 0), "undecided"),  # nothing to judge it by
        (report(30_000, 30_000, 30_000, 30_000), "undecided"),  # noise that hides every change
        (report(29_900, 30_000, 5700, 6000), "differs"),
        (report(0, 500, 0, 100, failed=500), "fails"),
        (report(0, 1985, 0, 400, failed=15), "undecided"),  # it may fail where it would differ
        (report(0, 20_000, 0, 4000, failed=20), "agrees"),
    ],
)
def test_a_verdict_is_judged_by_the_stable_versions_own_noise(found: ShadowReport, finding: str):
    verdict = judge_shadow(found, 0.01)
    assert verdict.finding == finding, verdict.why


def test_a_stable_version_that_always_differs_from_itself_proves_nothing_and_the_verdict_says_what_helps():
    verdict = judge_shadow(report(50_000, 50_000, 50_000, 50_000), 0.01)
    assert verdict.finding == "undecided"
    assert "--tolerance" in verdict.why


def test_answers_of_the_candidate_that_could_not_be_compared_do_not_make_it_agree():
    found = report(0, 2000, 0, 400)
    found.incomparable = 500
    verdict = judge_shadow(found, 0.01)
    assert (verdict.finding, verdict.why[:3]) == ("undecided", "500")
    total = combine_reports([found, found], "s")
    assert total.incomparable == 1000
    assert verdict_document(total, 0.01)["incomparable"] == 1000


@pytest.mark.parametrize(
    "findings",
    [
        {"pairs": {"compared": 3, "agreed": 4}},
        {"noise": {"compared": -1}},
        {"candidate": {"requests": 1, "failed": 2}},
        {"stable": {"requests": 1, "latency": {"5": -1}}},
        {"stable": {"requests": 1, "latency": {"9007199254740992": 1}}},
        {"pairs": {"compared": 1, "outputs": {"y": {"compared": 1, "agreed": 2}}}},
    ],
)
def test_a_report_that_cannot_be_true_is_not_read(findings: dict[str, Any]):
    """Its counts would end the command and the console's page that show the verdict."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"shadow": "s", "gateway": "g", "findings": findings}, ShadowReport, str_keys=True)


def test_an_interval_holds_what_was_seen_and_narrows():
    widths = []
    for requests in (10, 100, 1000, 100_000):
        seen = always_valid_interval(requests // 10, requests)
        assert 0 < seen.low < 0.1 < seen.high < 1
        widths.append(seen.high - seen.low)
    assert widths == sorted(widths, reverse=True)
    assert always_valid_interval(0, 100).low == 0
    assert always_valid_interval(100, 100).high == 1
    assert always_valid_interval(0, 0) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("rate", [0.002, 0.05, 0.5])
def test_an_interval_holds_at_every_look(rate: float):
    """400 courses of 2 000 answers, looked at after each block of 20: at most 5 % ever leave the truth out."""
    drawn = random.Random(20261130)
    courses, outside = 400, 0
    bounds = {}
    for _ in range(courses):
        hits = 0
        for block in range(1, 101):
            hits += sum(drawn.random() < rate for _ in range(20))
            key = (hits, block * 20)
            if key not in bounds:
                bounds[key] = always_valid_interval(*key)
            if not bounds[key].low <= rate <= bounds[key].high:
                outside += 1
                break
    assert outside <= courses * ALPHA


def test_under_no_difference_the_verdict_is_rarely_a_false_alarm():
    """A model that differs from itself in 20 % of its answers, and a candidate that does no more than that."""
    drawn = random.Random(7)
    courses, alarms = 150, 0
    for _ in range(courses):
        differ = own = 0
        for block in range(1, 41):
            differ += sum(drawn.random() < 0.2 for _ in range(50))
            own += sum(drawn.random() < 0.2 for _ in range(10))
            if judge_shadow(report(differ, block * 50, own, block * 10), 0.0).finding in {"differs", "fails"}:
                alarms += 1
                break
    assert alarms <= courses * ALPHA


def test_a_candidate_that_differs_in_one_of_ten_answers_is_found_within_a_thousand():
    drawn = random.Random(11)
    for _ in range(30):
        differ = sum(drawn.random() < 0.1 for _ in range(1000))
        assert judge_shadow(report(differ, 1000, 0, 200), 0.01).finding == "differs"


def test_the_reports_of_gateways_add_up_and_the_worst_stay():
    one, other = report(1, 10, 0, 2), report(2, 20, 1, 4)
    other.dropped = {"busy": 3}
    one.findings.worst = [
        DifferenceExample(f"a{n}", [Difference("p", "number", float(n))], float(n)) for n in range(20)
    ]
    other.findings.worst = [DifferenceExample("label", [Difference("p", "label")])]
    total = combine_reports([one, other, ShadowReport(shadow="another", gateway="x", sampled=9)], "s")
    assert (total.findings.pairs.compared, total.findings.pairs.agreed) == (30, 27)
    assert (total.sampled, total.dropped) == (0, {"busy": 3})
    assert [example.request_id for example in total.findings.worst[:2]] == ["label", "a19"]
    assert len(total.findings.worst) == 20


def test_figures_of_outputs_are_bounded():
    figures = PairFigures()
    for number in range(1000):
        figures.count(AnswerComparison(outputs={f"output {number}": OutputComparison()}))
    assert len(figures.outputs) <= 201
    assert sum(output.compared for output in figures.outputs.values()) == 1000


def test_times_are_quantiles():
    figures = VersionFigures()
    for number in range(1, 101):
        figures.count(Answer(200, b"", "", None, number / 1000))
    assert latency_quantile(0.5, figures) == pytest.approx(0.050, rel=0.03)
    assert latency_quantile(0.99, figures) == pytest.approx(0.099, rel=0.03)
    assert latency_quantile(0.5, VersionFigures()) is None


def test_the_document_holds_figures_and_no_values():
    found = report(1, 10, 0, 2)
    found.findings.worst = [DifferenceExample("order-7", [Difference("price[0]", "number", 0.5)], 0.5)]
    document = verdict_document(found, 0.01)
    assert document["worst"] == [
        {"request_id": "order-7", "differences": [{"path": "price[0]", "what": "number", "amount": 0.5}]}
    ]
    assert document["agreement"]["seen"] == 0.9
    assert document["candidate"]["failed"] == 0
