"""Rate limits and quotas counted in Redis.

They are exact over all gateways that share it, for one round trip per limited request.
"""

import logging
import time
from collections.abc import Sequence
from typing import Any, Final

from gateway.limits.quota_charges import Charge, ChargeResult

_log = logging.getLogger(__name__)

_PREFIX: Final = "chips:limit:"
_AWAY_S: Final = 1.0  # for which a Redis that failed is not asked again

# One script, so that a request takes from all its accounts or from none, and two gateways never read the same number.
# Redis' own clock counts, for those of the gateways differ. The arithmetic is LocalLimiter's to the last bit: numbers are written
# with all their digits, for a rate whose interval has no end (1/3 s) would otherwise drift from request to request.
_SCRIPT: Final = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local function exact(number) return string.format('%.17g', number) end
local answer, after, refused = {}, {}, false
for i, name in ipairs(KEYS) do
  local quota, interval, ends_at = tonumber(ARGV[3*i-2]), tonumber(ARGV[3*i-1]), tonumber(ARGV[3*i])
  local value = tonumber(redis.call('GET', name) or '0')
  if interval > 0 then
    local earned_at = math.max(value, now) + interval
    local spare = quota * interval - (earned_at - now)
    after[i] = earned_at
    if spare < -0.000001 then
      refused = true
      answer[i] = {0, exact(earned_at - interval - now), exact(-spare)}
    else
      answer[i] = {math.floor((spare + 0.000001) / interval), exact(earned_at - now), '0'}
    end
  else
    local left = math.max(ends_at - now, 0.001)
    after[i] = value + 1
    if value >= quota then
      refused = true
      answer[i] = {0, exact(left), exact(left)}
    else
      answer[i] = {quota - value - 1, exact(left), '0'}
    end
  end
end
for i, name in ipairs(KEYS) do
  local interval, ends_at = tonumber(ARGV[3*i-1]), tonumber(ARGV[3*i])
  if refused then
    if answer[i][3] == '0' then answer[i][1] = answer[i][1] + 1 end
  elseif interval > 0 then
    redis.call('SET', name, exact(after[i]), 'PX', math.ceil((after[i] - now) * 1000) + 1000)
  else
    redis.call('SET', name, after[i], 'PX', math.ceil(math.max(ends_at - now, 1) * 1000) + 60000)
  end
end
return answer
"""


class RedisUnavailable(Exception):
    """Redis does not answer. The setting `limits.when_redis_is_unavailable` says what the rate limit does then."""


class RedisLimiter:
    """Counts rate limits and quotas in Redis. All gateways that share it count together."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._client: Any = None
        self._script: Any = None
        self._away_until = 0.0

    async def start(self) -> None:
        """Make the Redis client, without a connection: it connects when it is first needed."""
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        # Blocking: a burst beyond the pool waits for its turn, and is not taken for a Redis that is lost.
        self._client = Redis.from_pool(
            BlockingConnectionPool.from_url(
                self._url,
                socket_timeout=self._timeout_s,
                socket_connect_timeout=self._timeout_s,
                retry=Retry(NoBackoff(), 0),
                max_connections=256,
                timeout=self._timeout_s,
            )
        )
        self._script = self._client.register_script(_SCRIPT)

    async def stop(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def charge_all_or_none(self, quota_charges: Sequence[Charge]) -> list[ChargeResult]:
        """Charge one request to all of `quota_charges`, or to none.

        Where one of them is used up, it charges none. Raises RedisUnavailable.
        """
        from redis.exceptions import RedisError

        if time.monotonic() < self._away_until:
            raise RedisUnavailable
        arguments = [
            value
            for charge in quota_charges
            for value in (charge.quota, repr(charge.interval_s), repr(charge.ends_at))
        ]
        try:
            answer = await self._script(
                keys=[_PREFIX + charge.account for charge in quota_charges], args=arguments
            )
        except (RedisError, OSError, TimeoutError) as error:
            self._away_until = time.monotonic() + _AWAY_S
            _log.error("the shared limits cannot be counted: %s", type(error).__name__)
            raise RedisUnavailable from error
        return [
            ChargeResult(charge, int(remaining), float(reset), float(wait))
            for charge, (remaining, reset, wait) in zip(quota_charges, answer, strict=True)
        ]
