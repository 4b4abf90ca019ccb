"""Rate limits and quotas counted in this process's memory.

They are exact for the process, and lost when it ends. A fleet of N processes allows N times as much.
"""

from collections.abc import Sequence
from typing import Final

from gateway.limits.quota_charges import Charge, ChargeResult

_SWEEP_AT: Final = 50_000
_ROUNDING_S: Final = 1e-6  # seconds since the epoch are that coarse as a float


class LocalLimiter:
    """Counts rate limits and quotas in this process's memory.

    A rate uses the generic cell rate algorithm (GCRA): one time per account says when all that was taken is refilled.
    """

    def __init__(self) -> None:
        self._earned_at: dict[str, float] = {}
        self._counts: dict[str, tuple[int, float]] = {}  # used, and when the window ends

    def charge_all_or_none(self, quota_charges: Sequence[Charge], now: float) -> list[ChargeResult]:
        """Charge one request to all of `quota_charges`, or to none.

        Where one of them is used up, it charges none. `now` is in seconds since the epoch.
        """
        verdicts, waits = [], False
        for charge in quota_charges:
            verdict = self._look(charge, now)
            verdicts.append(verdict)
            if verdict.wait_s:
                waits = True
        if waits:
            return [
                v if v.wait_s else ChargeResult(v.charge, v.remaining + 1, v.reset_s, 0.0) for v in verdicts
            ]
        for charge in quota_charges:
            if charge.interval_s:
                earned_at = self._earned_at.get(charge.account, 0.0)
                self._earned_at[charge.account] = (earned_at if earned_at > now else now) + charge.interval_s
            else:
                used, _ = self._counts.get(charge.account, (0, 0.0))
                self._counts[charge.account] = (used + 1, charge.ends_at)
        self._sweep(now)
        return verdicts

    def _look(self, charge: Charge, now: float) -> ChargeResult:
        """What `charge` says after one request more."""
        if charge.interval_s:
            interval_s = charge.interval_s
            earned_at = self._earned_at.get(charge.account, 0.0)
            earned_at = (earned_at if earned_at > now else now) + interval_s  # max() takes ten times as long
            spare_s = charge.quota * interval_s - (earned_at - now)
            if spare_s < -_ROUNDING_S:
                return ChargeResult(charge, 0, earned_at - interval_s - now, -spare_s)
            return ChargeResult(charge, int((spare_s + _ROUNDING_S) / interval_s), earned_at - now, 0.0)
        used, _ = self._counts.get(charge.account, (0, 0.0))
        left_s = charge.ends_at - now
        if used >= charge.quota:
            return ChargeResult(charge, 0, left_s, left_s)
        return ChargeResult(charge, charge.quota - used - 1, left_s, 0.0)

    def _sweep(self, now: float) -> None:
        """Forget accounts that are full again: they say what a new one would say."""
        if len(self._earned_at) > _SWEEP_AT:
            self._earned_at = {name: at for name, at in self._earned_at.items() if at > now}
        if len(self._counts) > _SWEEP_AT:
            self._counts = {name: count for name, count in self._counts.items() if count[1] > now}
