"""Rates and quotas: what passes in any window is what the limit says, counted here or in Redis."""

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.principal import Quota
from gateway.limits.charge import charges, told
from gateway.limits.local import LocalMeter
from gateway.limits.shared import SharedLost, SharedMeter

NOON = 1_796_731_200.0  # 2026-12-08T12:00:00Z


@given(
    st.floats(0.1, 50),
    st.integers(1, 20),
    st.lists(st.floats(0, 3), min_size=1, max_size=120),
)
def test_no_window_lets_more_pass_than_burst_and_rate(rate, burst, gaps):
    meter = LocalMeter()
    quota = Quota(requests_per_s=rate, burst=burst)
    now, passed = NOON, []
    for gap in gaps:
        now += gap / rate
        (verdict,) = meter.charge(charges("key", "k", quota, now), now)
        if verdict.wait_s:
            assert verdict.remaining == 0
            (after,) = LocalMeter.charge(
                _copy(meter), charges("key", "k", quota, now), now + verdict.wait_s + 1e-5
            )
            assert not after.wait_s, "after the time that was told, it goes on"
        else:
            passed.append(now)
    for i, start in enumerate(passed):
        within = [t for t in passed[i:] if t - start <= burst / rate]
        assert len(within) <= 2 * burst + 1e-6
        for j, end in enumerate(passed[i:]):
            assert j + 1 <= burst + (end - start) * rate + 1e-3


def _copy(meter: LocalMeter) -> LocalMeter:
    other = LocalMeter()
    other._earned_at = dict(meter._earned_at)
    return other


def test_who_has_nothing_left_of_one_is_charged_to_none():
    meter = LocalMeter()
    both = [
        *charges("key", "k", Quota(requests_per_day=100), NOON),
        *charges("model", "wine", Quota(requests_per_s=1, burst=1), NOON),
    ]
    assert [v.remaining for v in meter.charge(both, NOON)] == [99, 0]
    for _ in range(5):
        assert [v.remaining for v in meter.charge(both, NOON)] == [99, 0]
    assert [v.remaining for v in meter.charge(both, NOON + 1)] == [98, 0]


def test_days_and_months_end_in_utc():
    day, month = charges("key", "k", Quota(requests_per_day=1, requests_per_month=2), NOON)
    assert day.ends_at - NOON == 12 * 3600
    assert month.ends_at - NOON == (23 * 24 + 12) * 3600
    assert month.window_s == 31 * 86400
    meter = LocalMeter()
    quota = Quota(requests_per_day=1, requests_per_month=2)
    waits = [
        [round(v.wait_s) for v in meter.charge(charges("key", "k", quota, now), now)]
        for now in (NOON, NOON + 1, NOON + 86400, NOON + 2 * 86400, NOON + 31 * 86400)
    ]
    assert waits == [[0, 0], [43199, 0], [0, 0], [0, (21 * 24 + 12) * 3600], [0, 0]]


def test_what_callers_are_told():
    charged = charges("key", "k", Quota(requests_per_s=2, burst=10, requests_per_day=5), NOON)
    fields = dict(told(charged, LocalMeter().charge(charged, NOON)))
    assert fields[b"RateLimit-Policy"] == b'"key-rate";q=10;w=5, "key-day";q=5;w=86400'
    assert fields[b"RateLimit"] == b'"key-rate";r=9;t=1, "key-day";r=4;t=43200'


def test_accounts_that_are_full_again_are_forgotten():
    meter = LocalMeter()
    for number in range(50_100):
        meter.charge(charges("key", str(number), Quota(requests_per_s=100), NOON + number), NOON + number)
    assert len(meter._earned_at) < 50_002


async def test_redis_counts_for_all_gateways_together(redis_url: str):
    import time

    meters = [SharedMeter(redis_url, timeout_s=20) for _ in range(4)]
    for meter in meters:
        await meter.start()
    now = time.time()
    charged = [
        *charges("key", "k", Quota(requests_per_day=37), now),
        *charges("model", "wine", Quota(requests_per_s=0.001, burst=100), now),
    ]
    answers = await asyncio.gather(*(meters[n % 4].charge(charged) for n in range(200)))
    passed = [verdicts for verdicts in answers if not any(v.wait_s for v in verdicts)]
    assert len(passed) == 37
    assert sorted(verdicts[0].remaining for verdicts in passed) == list(range(37))
    refused = next(verdicts for verdicts in answers if verdicts[0].wait_s)
    assert refused[0].remaining == 0
    assert 0 < refused[0].wait_s <= 86_400
    assert {verdicts[1].remaining for verdicts in answers if verdicts[0].wait_s} == {63}, "charged to none"
    for meter in meters:
        await meter.stop()


@given(
    rate=st.sampled_from([0.5, 1.0, 7.0]),
    burst=st.integers(1, 6),
    used=st.integers(0, 9),
)
def test_redis_and_this_process_count_alike(rate, burst, used):
    """The script is the same arithmetic; held against each other where the clock does not matter."""
    meter = LocalMeter()
    charged = charges("key", "k", Quota(requests_per_s=rate, burst=burst), NOON)
    verdicts = [meter.charge(charged, NOON)[0] for _ in range(used + 1)]
    assert [v.remaining for v in verdicts] == [max(burst - 1 - n, 0) for n in range(used + 1)]
    assert bool(verdicts[-1].wait_s) is (used >= burst)


async def test_a_redis_rate_empties_and_tells_when_to_come_back(redis_url: str):
    import time

    meter = SharedMeter(redis_url, timeout_s=20)
    await meter.start()
    charged = charges("key", "k", Quota(requests_per_s=0.01, burst=3), time.time())
    verdicts = [(await meter.charge(charged))[0] for _ in range(5)]
    assert [v.remaining for v in verdicts] == [2, 1, 0, 0, 0]
    assert [bool(v.wait_s) for v in verdicts] == [False, False, False, True, True]
    assert 0 < verdicts[-1].wait_s <= 100
    await meter.stop()


async def test_a_redis_that_is_away_is_not_asked_by_every_request():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))  # bound, and nobody listens
        meter = SharedMeter(f"redis://127.0.0.1:{listening.getsockname()[1]}", timeout_s=5)
        await meter.start()
        charged = charges("key", "k", Quota(requests_per_day=1), NOON)
        with pytest.raises(SharedLost):
            await meter.charge(charged)
        assert meter._away_until > 0
        meter._client = meter._script = None  # it would fail on these
        with pytest.raises(SharedLost):
            await meter.charge(charged)
