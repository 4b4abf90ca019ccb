"""Rates and quotas: what passes in any window is what the limit says, counted here or in Redis."""

import asyncio
import math
import socket
from collections import Counter
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.quota import Quota
from gateway.limits import redis_limiter
from gateway.limits.local_limiter import LocalLimiter
from gateway.limits.quota_charges import quota_charges, rate_limit_lines
from gateway.limits.redis_limiter import RedisLimiter, RedisUnavailable

NOON = 1_796_731_200.0  # 2026-12-08T12:00:00Z


@given(
    st.floats(0.1, 50),
    st.integers(1, 20),
    st.lists(st.floats(0, 3), min_size=1, max_size=120),
)
def test_no_window_lets_more_pass_than_burst_and_rate(rate, burst, gaps):
    meter = LocalLimiter()
    quota = Quota(requests_per_s=rate, burst=burst)
    now, passed = NOON, []
    for gap in gaps:
        now += gap / rate
        (verdict,) = meter.charge_all_or_none(quota_charges("key", "k", quota, now), now)
        if verdict.wait_s:
            assert verdict.remaining == 0
            (after,) = LocalLimiter.charge_all_or_none(
                _copy(meter), quota_charges("key", "k", quota, now), now + verdict.wait_s + 1e-5
            )
            assert not after.wait_s, "after the time that was told, it goes on"
        else:
            passed.append(now)
    for i, start in enumerate(passed):
        within = [t for t in passed[i:] if t - start <= burst / rate]
        assert len(within) <= 2 * burst + 1e-6
        for j, end in enumerate(passed[i:]):
            assert j + 1 <= burst + (end - start) * rate + 1e-3


def _copy(meter: LocalLimiter) -> LocalLimiter:
    other = LocalLimiter()
    other._earned_at = dict(meter._earned_at)
    return other


def test_who_has_nothing_left_of_one_is_charged_to_none():
    meter = LocalLimiter()
    both = [
        *quota_charges("key", "k", Quota(requests_per_day=100), NOON),
        *quota_charges("model", "wine", Quota(requests_per_s=1, burst=1), NOON),
    ]
    assert [v.remaining for v in meter.charge_all_or_none(both, NOON)] == [99, 0]
    for _ in range(5):
        assert [v.remaining for v in meter.charge_all_or_none(both, NOON)] == [99, 0]
    assert [v.remaining for v in meter.charge_all_or_none(both, NOON + 1)] == [98, 0]


def test_days_and_months_end_in_utc():
    day, month = quota_charges("key", "k", Quota(requests_per_day=1, requests_per_month=2), NOON)
    assert day.ends_at - NOON == 12 * 3600
    assert month.ends_at - NOON == (23 * 24 + 12) * 3600
    assert month.window_s == 31 * 86400
    meter = LocalLimiter()
    quota = Quota(requests_per_day=1, requests_per_month=2)
    waits = [
        [round(v.wait_s) for v in meter.charge_all_or_none(quota_charges("key", "k", quota, now), now)]
        for now in (NOON, NOON + 1, NOON + 86400, NOON + 2 * 86400, NOON + 31 * 86400)
    ]
    assert waits == [[0, 0], [43199, 0], [0, 0], [0, (21 * 24 + 12) * 3600], [0, 0]]


def test_what_callers_are_told():
    charged = quota_charges("key", "k", Quota(requests_per_s=2, burst=10, requests_per_day=5), NOON)
    assert rate_limit_lines(LocalLimiter().charge_all_or_none(charged, NOON)).split(b"\r\n") == [
        b'RateLimit-Policy: "key-rate";q=10;w=5, "key-day";q=5;w=86400',
        b'RateLimit: "key-rate";r=9;t=1, "key-day";r=4;t=43200',
        b"",
    ]


def test_accounts_that_are_full_again_are_forgotten():
    meter = LocalLimiter()
    for number in range(50_100):
        meter.charge_all_or_none(
            quota_charges("key", str(number), Quota(requests_per_s=100), NOON + number), NOON + number
        )
    assert len(meter._earned_at) < 50_002


async def test_redis_counts_for_all_gateways_together(redis_url: str):
    import time

    meters = [RedisLimiter(redis_url, timeout_s=20) for _ in range(4)]
    for meter in meters:
        await meter.start()
    now = time.time()
    charged = [
        *quota_charges("key", "k", Quota(requests_per_day=37), now),
        *quota_charges("model", "wine", Quota(requests_per_s=0.001, burst=100), now),
    ]
    answers = await asyncio.gather(*(meters[n % 4].charge_all_or_none(charged) for n in range(200)))
    passed = [verdicts for verdicts in answers if not any(v.wait_s for v in verdicts)]
    assert len(passed) == 37
    assert sorted(verdicts[0].remaining for verdicts in passed) == list(range(37))
    refused = next(verdicts for verdicts in answers if verdicts[0].wait_s)
    assert refused[0].remaining == 0
    assert 0 < refused[0].wait_s <= 86_400
    assert {verdicts[1].remaining for verdicts in answers if verdicts[0].wait_s} == {63}, "charged to none"
    for meter in meters:
        await meter.stop()


rates = st.sampled_from([0.1, 1 / 3, 0.5, 1.0, 3.0, 7.3, 50.0, 10_000.0]) | st.floats(0.05, 10_000)
quotas = st.builds(
    lambda rate, burst, day, month: Quota(
        requests_per_s=rate,
        burst=burst if rate is not None else None,
        requests_per_day=day,
        requests_per_month=month,
    ),
    st.none() | rates,
    st.none() | st.integers(1, 12),
    st.none() | st.integers(1, 6),
    st.none() | st.integers(1, 9),
)
# Seconds, or as many times the interval of the first key's rate: exactly there verdicts are most easily different.
gaps = st.tuples(st.sampled_from([0.0, 1.0]) | st.floats(0, 20), st.booleans()) | st.just((86_400.0, False))
_CLOCK = """local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
"""


def test_redis_and_this_process_judge_alike(redis_url: str):
    """The same requests at the same times get the same verdicts, to the last bit, no matter which limiter counts.

    The script is the one that serves, but for its clock, which is the test's, and for how long it remembers, since that is
    told by the real clock.
    """
    assert redis_limiter._SCRIPT.count(_CLOCK) == 1
    assert redis_limiter._SCRIPT.count("+ 1000)") == 1
    script = redis_limiter._SCRIPT.replace(_CLOCK, "local now = tonumber(redis.call('GET', 'clock'))\n")
    script = script.replace("+ 1000)", "+ 600000)")
    examples = count()
    judged = Counter[bool]()

    async def play(keys: list[Quota], model: Quota, steps: list[tuple[int, tuple[float, bool]]]) -> None:
        local, now, example = LocalLimiter(), NOON + 0.123456, next(examples)
        for key, (gap, in_intervals) in steps:
            now += gap / (keys[0].requests_per_s or 1.0) if in_intervals else gap
            charged = [
                *quota_charges("key", f"{example}-{key}", keys[key], now),
                *quota_charges("model", str(example), model, now),
            ]
            if not charged:
                continue
            await meter._client.set("clock", repr(now))
            there, here = await meter.charge_all_or_none(charged), local.charge_all_or_none(charged, now)
            assert there == here
            judged[any(verdict.wait_s for verdict in here)] += 1

    with asyncio.Runner() as runner:
        meter = RedisLimiter(redis_url, timeout_s=20)
        runner.run(meter.start())
        meter._script = meter._client.register_script(script)

        @settings(max_examples=250, deadline=None)
        @given(
            st.lists(quotas, min_size=2, max_size=2),
            quotas,
            st.lists(st.tuples(st.integers(0, 1), gaps), min_size=1, max_size=40),
        )
        def alike(keys, model, steps):
            runner.run(play(keys, model, steps))

        alike()
        runner.run(meter.stop())
    assert min(judged[True], judged[False]) > 20, "both verdicts were met"


async def test_a_redis_rate_empties_and_tells_when_to_come_back(redis_url: str):
    import time

    meter = RedisLimiter(redis_url, timeout_s=20)
    await meter.start()
    charged = quota_charges("key", "k", Quota(requests_per_s=0.01, burst=3), time.time())
    verdicts = [(await meter.charge_all_or_none(charged))[0] for _ in range(5)]
    assert [v.remaining for v in verdicts] == [2, 1, 0, 0, 0]
    assert [bool(v.wait_s) for v in verdicts] == [False, False, False, True, True]
    assert 0 < verdicts[-1].wait_s <= 100
    await meter.stop()


async def test_a_redis_that_is_away_is_not_asked_by_every_request():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))  # bound, and nobody listens
        meter = RedisLimiter(f"redis://127.0.0.1:{listening.getsockname()[1]}", timeout_s=5)
        await meter.start()
        charged = quota_charges("key", "k", Quota(requests_per_day=1), NOON)
        with pytest.raises(RedisUnavailable):
            await meter.charge_all_or_none(charged)
        assert meter._away_until > 0
        meter._away_until = math.inf  # whatever the time is
        meter._client = meter._script = None  # it would fail on these
        with pytest.raises(RedisUnavailable):
            await meter.charge_all_or_none(charged)
