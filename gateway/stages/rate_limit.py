"""Enforce the rate limits and quotas of the caller and the model (429)."""

import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import ceil
from typing import Literal

from gateway.core.errors import GatewayError, Overloaded, TooManyRequests
from gateway.core.exchange import Exchange
from gateway.core.needs_wait_sentinel import NEEDS_WAIT, NeedsWait
from gateway.core.quota import UNLIMITED
from gateway.limits.local_limiter import LocalLimiter
from gateway.limits.quota_charges import Charge, ChargeResult, quota_charges, rate_limit_lines
from gateway.limits.redis_limiter import RedisLimiter, RedisUnavailable

WhenRedisIsUnavailable = Literal["local", "refuse", "admit"]


class RateLimit:
    """Enforces the rate limits and quotas of requests.

    A request counts against all of them, or is refused (429) and counts against none. Counts are this process's own,
    or, with `shared`, those of all gateways that use the same Redis. `lost` says what to do while Redis is unavailable:
    count here, refuse, or allow. With `report_only`, nothing is refused.
    """

    def __init__(
        self,
        shared: RedisLimiter | None = None,
        *,
        lost: WhenRedisIsUnavailable = "local",
        report_only: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._local = LocalLimiter()
        self._shared = shared
        self._lost = lost
        self._report_only = report_only
        self._now = now
        self.refused = 0  # since the start, including those that report-only mode let pass

    def try_nowait(self, exchange: Exchange) -> GatewayError | NeedsWait | None:
        """Enforce the rate limits without waiting, where that is possible.

        NEEDS_WAIT: `await` the stage itself, because the counts are in Redis.
        """
        if exchange.principal.quota is UNLIMITED and exchange.compiled_policy.quota is UNLIMITED:
            return None
        if self._shared is not None:
            return NEEDS_WAIT
        now = self._now()
        charged = _charges(exchange, now)
        return self._judge(exchange, self._local.charge_all_or_none(charged, now)) if charged else None

    async def __call__(self, exchange: Exchange) -> GatewayError | None:
        now = self._now()
        charged = _charges(exchange, now)
        if not charged or self._shared is None:
            return None
        began = time.monotonic()
        try:
            verdicts = await self._shared.charge_all_or_none(charged)
        except RedisUnavailable:
            if self._lost == "refuse":
                return Overloaded("Your limits cannot be checked now. Try again in a moment.")
            if self._lost == "admit":
                return None
            verdicts = self._local.charge_all_or_none(charged, now)
        finally:
            exchange.rate_limit_s = time.monotonic() - began
        return self._judge(exchange, verdicts)

    def _judge(self, exchange: Exchange, verdicts: Sequence[ChargeResult]) -> TooManyRequests | None:
        exchange.added_lines += rate_limit_lines(verdicts)
        wait_s, policy = 0.0, ""
        for verdict in verdicts:
            if verdict.wait_s > wait_s:
                wait_s, policy = verdict.wait_s, verdict.charge.policy
        if not wait_s:
            return None
        self.refused += 1
        if self._report_only:
            exchange.report_only_refusals += (TooManyRequests.code,)
            return None
        return _refusal(policy, exchange.model.name, ceil(wait_s))


@lru_cache(maxsize=1024)
def _refusal(policy: str, model: str, retry_after_s: int) -> TooManyRequests:
    """The same refusal for all requests that meet it, so it must not be raised: an error collects its tracebacks."""
    whose, _, window = policy.partition("-")
    subject = "You have" if whose == "key" else f'The model "{model}" has'
    used_up = {"rate": "sent too many requests in a short time", "day": "used up the requests of today"}
    what = used_up.get(window, "used up the requests of this month")
    detail = f"{subject} {what if whose == 'key' else what.replace('sent', 'got')}."
    return TooManyRequests(detail, retry_after_s=retry_after_s)


def _charges(exchange: Exchange, now: float) -> tuple[Charge, ...]:
    principal, of_model = exchange.principal, exchange.compiled_policy.quota
    charges = quota_charges("key", principal.id, principal.quota, now)
    if of_model is UNLIMITED:
        return charges
    return charges + quota_charges("model", exchange.model.name, of_model, now)
