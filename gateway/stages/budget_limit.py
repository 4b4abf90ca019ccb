"""Refuse requests whose budget is exhausted. They get 402 or 429 until the budget's period ends."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from gateway.core.errors import BudgetExhausted, GatewayError, TooManyRequests
from gateway.core.exchange import Exchange
from gateway.cost.track_budgets import BudgetKeeper, ExhaustedBudget

_WHOSE = {"model": 'The model "{}" has', "key": "You have", "team": 'Your team "{}" has'}
_NONE: Mapping[tuple[str, str], ExhaustedBudget] = {}


class BudgetLimit:
    """Refuse requests whose budget is exhausted. The pipeline calls it only while `exhausted` is not empty, which saves time otherwise."""

    __slots__ = ("_now", "exhausted")

    def __init__(self, keeper: BudgetKeeper | None, now: Callable[[], float] = time.time) -> None:
        self.exhausted: Mapping[tuple[str, str], ExhaustedBudget] = (
            _NONE if keeper is None else keeper.exhausted
        )
        self._now = now

    def __call__(self, exchange: Exchange) -> GatewayError | None:
        exhausted, principal = self.exhausted, exchange.principal
        for place in (
            ("model", exchange.model.name),
            ("team", principal.team),
            ("key", principal.id),
        ):
            found = exhausted.get(place)
            if found is not None and found.ends_at > self._now():
                return self._refusal(found)
        return None

    def _refusal(self, found: ExhaustedBudget) -> GatewayError:
        budget = found.budget
        until = datetime.fromtimestamp(found.ends_at, UTC).isoformat().replace("+00:00", "Z")
        detail = f"{_WHOSE[budget.scope].format(budget.name)} used up the budget of this {budget.period}, which ends at {until}."
        wait_s = found.ends_at - self._now()
        if budget.refuse == BudgetExhausted.status:
            return BudgetExhausted(detail, retry_after_s=wait_s)
        return TooManyRequests(detail, retry_after_s=wait_s)
