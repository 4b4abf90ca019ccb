"""Which requests count for a version, as what, and with which time."""

from typing import Any

import msgspec
import pytest

from gateway.core.errors import BrokenUpstreamResponse, DeadlineExceeded, Overloaded
from gateway.rollout.request_counter import RequestCounter, Tally, VersionWindowCollector, latency_bucket
from tests.unit.telemetry.exchanges import make_exchange


@pytest.fixture
def counter() -> RequestCounter:
    counter = RequestCounter()
    counter.collectors = {"wine": {"3": VersionWindowCollector(), "4": VersionWindowCollector()}}
    return counter


def _count(counter: RequestCounter, *, took_s: float = 0.1, **changes) -> Tally:
    counter(make_exchange(version="4", took_s=took_s, **changes))
    assert counter.collectors["wine"]["3"].fold_times_into_tally() == Tally()
    return counter.collectors["wine"]["4"].fold_times_into_tally()


def test_a_good_answer_counts_with_its_time(counter: RequestCounter):
    tally = _count(counter)
    assert (tally.requests, tally.errors, tally.refusals, tally.cold) == (1, 0, 0, 0)
    (number,) = tally.latency
    assert abs(number - latency_bucket(0.1)) <= 1
    assert _count(counter).latency == {number: 2}


def test_the_callers_own_upload_and_reading_are_not_the_versions_time(counter: RequestCounter):
    slow = make_exchange(version="4", took_s=0.1)
    slow.buffering_s = 5.0
    slow.arrived -= 5.0
    slow.ended += 7.0  # it read the answer slowly
    counter(slow)
    (number,) = counter.collectors["wine"]["4"].fold_times_into_tally().latency
    assert abs(number - latency_bucket(0.1)) <= 1


def test_the_time_to_open_a_connection_is_not_the_versions(counter: RequestCounter):
    """With 1 % of the traffic it has none that is kept open, and each request would look slow."""
    fresh = make_exchange(version="4", took_s=0.15)
    fresh.attempts[-1].opening_s = 0.05
    counter(fresh)
    (number,) = counter.collectors["wine"]["4"].fold_times_into_tally().latency
    assert abs(number - latency_bucket(0.1)) <= 1


@pytest.mark.parametrize(
    ("changes", "errors", "refusals"),
    [
        ({"status": 500}, 1, 0),
        ({"status": 502, "error": BrokenUpstreamResponse("x")}, 1, 0),
        ({"status": 504, "error": DeadlineExceeded("x"), "attempts": 0}, 1, 0),
        ({"status": 422}, 0, 1),
        ({"status": 503, "error": Overloaded("x")}, 0, 0),
        ({"caller_disconnected": True}, 0, 0),
    ],
)
def test_what_is_the_versions_fault(counter: RequestCounter, changes, errors: int, refusals: int):
    tally = _count(counter, **changes)
    assert (tally.requests, tally.errors, tally.refusals) == (1, errors, refusals)


@pytest.mark.parametrize(
    "changes",
    [
        {"status": 429, "error": Overloaded("x"), "attempts": 0},  # it never reached the backend
        {"attempts": 0},  # a browser's preflight
        {"status": 101, "took_s": 3600.0},  # a tunnel
        {"assigned": "pin"},  # its caller chose the version
        {"routed": 0.0},
    ],
)
def test_what_does_not_count(counter: RequestCounter, changes):
    assert _count(counter, **changes) == Tally()


def test_models_and_versions_of_no_rollout_are_left_alone(counter: RequestCounter):
    counter(make_exchange(model="iris"))
    counter(make_exchange(version="9"))
    counter(make_exchange(model=None))
    assert [collector.fold_times_into_tally() for collector in counter.collectors["wine"].values()] == [
        Tally(),
        Tally(),
    ]


def test_what_is_kept_of_a_window_is_bounded(counter: RequestCounter):
    exchange = make_exchange(version="4")
    for _ in range(10_000):
        counter(exchange)
    collector = counter.collectors["wine"]["4"]
    assert len(collector.times_s) < 5000
    tally = collector.fold_times_into_tally()
    assert tally.requests == sum(tally.latency.values()) == 10_000


def test_a_cold_start_is_told_apart_by_what_the_backend_accounts_for(counter: RequestCounter):
    assert _count(counter, took_s=8.0, server_timing=b"predict;dur=12.5").cold == 1
    assert counter.collectors["wine"]["4"].fold_times_into_tally().latency == {}
    # It was slow itself, or does not say: then it is slow.
    assert _count(counter, took_s=8.0, server_timing=b"predict;dur=7500").cold == 1
    assert _count(counter, took_s=8.0).cold == 1
    assert sum(counter.collectors["wine"]["4"].fold_times_into_tally().latency.values()) == 2


def test_a_cold_start_that_fails_is_an_error(counter: RequestCounter):
    tally = _count(counter, took_s=8.0, status=500, server_timing=b"predict;dur=1")
    assert (tally.errors, tally.cold) == (1, 1)


@pytest.mark.parametrize(
    "counts",
    [
        {"errors": 11},
        {"errors": 6, "refusals": 5},
        {"cold": 11},
        {"cold": 1, "latency": {"5": 6, "6": 4}},
    ],
)
def test_a_tally_whose_parts_are_more_than_its_requests_cannot_be_read(counts: dict[str, Any]):
    with pytest.raises(msgspec.ValidationError, match="of 10 requests"):
        msgspec.convert({"requests": 10, **counts}, Tally, str_keys=True)
    assert msgspec.convert({"requests": 11, **counts}, Tally, str_keys=True).requests == 11
