"""From gateways' windows to evidence: steps, thresholds, settling, cold starts, and going on after another controller."""

import msgspec
import numpy as np
import pytest

from gateway.core.model_updates import to_document
from gateway.core.rollout_document import RolloutPlan
from gateway.rollout.assessment import Assessment
from gateway.rollout.request_count_reporter import RolloutReport, RolloutWindow
from gateway.rollout.request_counter import Tally, bucket_lower_edge_s, latency_bucket
from tests.unit.rollout.fleet import PLAN, rollout_of, tally


def _report(
    *windows: tuple[int, Tally, Tally], gateway: str = "g1", first: int = 1, after_s: float = 60.0
) -> RolloutReport:
    return RolloutReport(
        rollout="r1",
        gateway=gateway,
        windows=tuple(
            RolloutWindow(
                number=number, position=position, after_s=after_s, versions={"4": candidate, "3": stable}
            )
            for number, (position, candidate, stable) in enumerate(windows, first)
        ),
    )


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 1e-6, 0.0013, 0.25, 300.0])
def test_a_bucket_holds_its_durations(seconds: float):
    number = latency_bucket(seconds)
    assert number >= 0
    assert seconds <= bucket_lower_edge_s(number + 1)
    assert seconds < 1e-6 or bucket_lower_edge_s(number) <= seconds * (1 + 1e-9)


def test_a_window_is_taken_in_once():
    rollout = rollout_of(position=0)
    seen = Assessment.begin(rollout)
    report = _report((0, tally(10), tally(190)))
    assert seen.add_new_windows(rollout, report)
    assert not seen.add_new_windows(rollout, report)
    assert seen.requests == 10
    assert seen.add_new_windows(rollout, _report((0, tally(10), tally(190)), (0, tally(5), tally(95))))
    assert seen.requests == 15
    assert seen.add_new_windows(rollout, _report((0, tally(1), tally(1)), gateway="g2"))


def test_requests_of_an_earlier_step_are_evidence_but_do_not_count_for_the_next():
    rollout = rollout_of(position=1)
    seen = Assessment.begin(rollout)
    seen.add_new_windows(rollout, _report((0, tally(100, 100), tally(1900))))
    assert seen.requests == 0
    assert seen.found_worse()


def test_a_step_begins_at_nothing_and_keeps_the_evidence():
    rollout = rollout_of(position=0)
    seen = Assessment.begin(rollout)
    seen.add_new_windows(rollout, _report((0, tally(100), tally(1900))))
    seen.waited_s = 60.0
    seen.enter_step(1)
    assert (seen.requests, seen.waited_s) == (0, 0.0)
    assert seen.questions["errors"].candidate_total == (100, 0)


def _times(rng: np.random.Generator, count: int, factor: float = 1.0) -> Tally:
    """Log-normal times, of which the 99th percentile is 3.2 times the median."""
    found: dict[int, int] = {}
    for number in map(latency_bucket, 0.02 * factor * rng.lognormal(0, 0.5, count)):
        found[number] = found.get(number, 0) + 1
    return Tally(requests=count, latency=found)


def _run_windows(factor: float, windows: int, *, seed: int = 1, after_s: float = 60.0) -> Assessment:
    rng = np.random.default_rng(seed)
    rollout = rollout_of(position=0, plan=RolloutPlan(steps=(5, 100)))
    seen = Assessment.begin(rollout)
    for number in range(1, windows + 1):
        window = (0, _times(rng, 20, factor), _times(rng, 380))
        seen.add_new_windows(rollout, _report(window, first=number, after_s=after_s))
    return seen


def test_times_that_are_half_as_long_again_are_found_within_2000_requests():
    assert sum(bool(_run_windows(1.5, 100, seed=seed).found_worse()) for seed in range(10)) >= 9


def test_equal_times_are_proved_fine_within_4000_requests():
    assert sum(not _run_windows(1.0, 200, seed=seed).questions_not_yet_fine() for seed in range(10)) >= 9


def test_times_ten_percent_longer_are_within_a_tolerance_of_twenty():
    assert not any(_run_windows(1.1, 100, seed=seed).found_worse() for seed in range(10))


def test_times_are_not_judged_while_a_step_settles():
    seen = _run_windows(3.0, 50, after_s=5.0)
    assert not seen.found_worse()
    assert seen.questions["p99"].candidate_total == (0, 0)
    assert seen.stable_latency


def test_cold_starts_are_counted_and_not_judged():
    rollout = rollout_of(position=0)
    seen = Assessment.begin(rollout)
    rng = np.random.default_rng(2)
    for number in range(1, 60):
        candidate = _times(rng, 20)
        candidate.requests += 5
        candidate.cold += 5
        seen.add_new_windows(rollout, _report((0, candidate, _times(rng, 380)), first=number))
    assert not seen.found_worse()
    assert seen.cold == 5 * 59
    assert seen.evidence()["cold_starts"] == 5 * 59


def test_times_that_are_all_alike_can_be_proved_fine():
    rollout = rollout_of(position=0)
    seen = Assessment.begin(rollout)
    for number in range(1, 120):
        seen.add_new_windows(rollout, _report((0, tally(20), tally(380)), first=number))
    assert seen.questions_not_yet_fine() == []
    assert not seen.found_worse()


def test_refusals_of_a_stricter_version_are_found():
    rollout = rollout_of(position=0)
    seen = Assessment.begin(rollout)
    seen.add_new_windows(rollout, _report((0, tally(30, refusals=30), tally(570, refusals=6))))
    assert "refuses more" in seen.found_worse()


def test_without_enough_stable_requests_there_is_no_threshold():
    rollout = rollout_of(position=0)
    seen = Assessment.begin(rollout)
    seen.add_new_windows(rollout, _report((0, tally(50, seconds=5.0), tally(50))))
    assert seen.stable_bucket_exceeded_by(0.05) is None
    assert not seen.found_worse()


def test_the_memory_of_the_stable_version_is_bounded():
    rollout = rollout_of(position=0, plan=PLAN)
    seen = Assessment.begin(rollout)
    for number in range(1, 20):
        seen.add_new_windows(rollout, _report((0, tally(1), tally(5000)), first=number))
    assert sum(seen.stable_latency.values()) <= 25_000


def test_another_controller_goes_on_with_what_was_kept():
    seen = _run_windows(1.0, 30)
    kept = msgspec.convert(to_document(seen), Assessment, str_keys=True)
    assert kept == seen


def _sparse(failing: float, *, stable: float = 0.01, windows: int, seed: int) -> Assessment:
    """Six processes with one request in each window, half of them for each version; of one process all requests fail."""
    rng = np.random.default_rng(seed)
    rollout = rollout_of(position=0, plan=RolloutPlan(steps=(50, 100)))
    seen = Assessment.begin(rollout)
    for number in range(1, windows + 1):
        for process in range(6):
            to_candidate = bool(rng.integers(2))
            rate = 1.0 if process == 0 else failing if to_candidate else stable
            one = tally(1, int(rng.random() < rate))
            window = (0, one, tally(0)) if to_candidate else (0, tally(0), one)
            seen.add_new_windows(rollout, _report(window, gateway=f"g{process}", first=number))
    return seen


def test_a_version_that_fails_is_found_where_no_window_has_requests_of_both():
    assert all(_sparse(0.9, windows=60, seed=seed).found_worse() for seed in range(5))


def test_equal_versions_are_not_called_worse_where_requests_are_few_and_a_process_is_ill():
    """What waits for its pair waits for one of the same process: which of them a version met is chance."""
    assert sum(bool(_sparse(0.01, windows=250, seed=seed).found_worse()) for seed in range(12)) <= 1


def test_requests_wait_for_their_pair_for_two_minutes():
    rollout = rollout_of(position=0)
    seen = Assessment.begin(rollout)
    alone = (0, tally(0), tally(1, 1))
    seen.add_new_windows(rollout, _report(*[alone] * 8))
    seen.add_new_windows(rollout, _report((0, tally(9), tally(0)), first=9))
    kept = msgspec.convert(to_document(seen), Assessment, str_keys=True)
    assert seen.questions["errors"].blocks == 0, "too long ago to be compared"
    for one in (seen, kept):
        one.add_new_windows(rollout, _report((0, tally(0), tally(9)), first=10))
        assert one.questions["errors"].blocks == 1
        assert one.unpaired == {}
    assert (seen.questions["errors"].candidate_total, seen.questions["errors"].stable_total) == (
        (9, 0),
        (17, 8),
    )


def test_cold_starts_and_requests_count_at_once_though_their_pair_is_missing():
    rollout = rollout_of(position=0)
    seen = Assessment.begin(rollout)
    seen.add_new_windows(rollout, _report((0, tally(7), tally(0))))
    assert seen.requests == 7


def test_what_waits_is_small_however_many_processes_there_are():
    """It lies in one document of the registry."""
    rollout = rollout_of(position=0)
    seen = Assessment.begin(rollout)
    rng = np.random.default_rng(1)
    for number in range(1, 20):
        for process in range(50):
            window = (0, tally(0), _times(rng, 7))
            seen.add_new_windows(rollout, _report(window, gateway=f"g{process}", first=number))
    assert sum(one.stable.requests for one in seen.unpaired.values()) < 20 * 50
    assert seen.questions["errors"].stable_total[0] > 50 * 7 * 15
