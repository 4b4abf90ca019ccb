"""The charges of a request against rate limits and quotas. The RateLimit header fields report them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import ceil
from typing import Final

import msgspec

from gateway.core.quota import UNLIMITED, Quota

DAY_S: Final = 86_400


class Charge(msgspec.Struct, frozen=True):
    """One charge of a request: a rate limit or quota that it counts against."""

    policy: str  # what callers are told it is called
    account: str  # what is counted, of all callers and models
    quota: int  # requests at once, or in the window
    interval_s: float  # of a rate: between two requests; 0.0 where it is a count in a window
    window_s: int  # of a rate: until a burst is there again; of a count: the length of the window
    ends_at: float  # of a count: when the window ends, in seconds since the epoch
    described: str  # as the field RateLimit-Policy has it


def _charge(
    policy: str, account: str, quota: int, interval_s: float, window_s: int, ends_at: float
) -> Charge:
    described = f'"{policy}";q={quota};w={window_s}'
    return Charge(policy, account, quota, interval_s, window_s, ends_at, described)


class ChargeResult(msgspec.Struct, frozen=True):
    """The result of one charge: what remains, and how long to wait.

    `reset_s`: seconds until the limit resets. `wait_s`: seconds to wait (0: allowed).
    """

    charge: Charge
    remaining: int
    reset_s: float  # until the whole quota is there again
    wait_s: float  # 0.0 where the request may go on


def quota_charges(whose: str, account: str, quota: Quota, now: float) -> tuple[Charge, ...]:
    """The charges of one request under `quota`.

    There is one for each of its limits. `whose` is `key` or `model`; `account` is its id.
    """
    return () if quota is UNLIMITED else _charges_of_day(whose, account, quota, int(now // DAY_S))


@lru_cache(maxsize=16384)
def _charges_of_day(whose: str, account: str, quota: Quota, day: int) -> tuple[Charge, ...]:
    found = []
    rate = quota.requests_per_s
    if rate is not None:
        burst = quota.burst if quota.burst is not None else max(1, ceil(rate))
        window_s = max(1, ceil(burst / rate))
        found.append(_charge(f"{whose}-rate", f"{whose}:{account}:rate", burst, 1 / rate, window_s, 0.0))
    if quota.requests_per_day is not None:
        ends_at = float((day + 1) * DAY_S)
        name = f"{whose}:{account}:day:{day}"
        found.append(_charge(f"{whose}-day", name, quota.requests_per_day, 0.0, DAY_S, ends_at))
    if quota.requests_per_month is not None:
        month = datetime.fromtimestamp(day * DAY_S, UTC).replace(day=1)
        following = (month + timedelta(days=32)).replace(day=1)
        window_s = int((following - month).total_seconds())
        name = f"{whose}:{account}:month:{month:%Y-%m}"
        found.append(
            _charge(f"{whose}-month", name, quota.requests_per_month, 0.0, window_s, following.timestamp())
        )
    return tuple(found)


def rate_limit_lines(verdicts: Sequence[ChargeResult]) -> bytes:
    """The RateLimit header field lines.

    They are RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-10), each with its CRLF.
    """
    policies = states = ""
    for verdict in verdicts:
        charge = verdict.charge
        between = ", " if states else ""
        policies += between + charge.described
        states += (
            f'{between}"{charge.policy}";r={verdict.remaining};t={ceil(verdict.wait_s or verdict.reset_s)}'
        )
    return f"RateLimit-Policy: {policies}\r\nRateLimit: {states}\r\n".encode("ascii")
