"""Budgets: limits on what a model, a key or a team may cost.

A budget limits the cost of calls in a day or a month, and says what happens then.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Literal

import msgspec

Scope = Literal["model", "key", "team"]
Period = Literal["day", "month"]

THRESHOLDS: Final = (50, 80, 100)  # percent of the amount, at which a warning is given
MICRO: Final = 1_000_000
MAX_MICROS: Final = 10**15


class Budget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A limit on what a model, a key or a team may cost.

    It limits the cost of calls in a day or a month. Amounts are whole millionths of the currency of the prices; days and
    months are UTC.
    """

    scope: Scope
    name: str  # of the model or team, or the id of the caller as logs have it
    amount_micros: int
    period: Period = "month"
    refuse: Literal[0, 402, 429] = 0  # the status that callers get once it is used up; 0: it only warns
    note: str = ""

    @property
    def id(self) -> str:
        """The name of the budget's document in the registry."""
        return budget_id(self.scope, self.name)


def budget_id(scope: Scope, name: str) -> str:
    """The name of a budget's document in the registry. Each model, key and team has one."""
    return f"{scope}:{name}"


def parse_budget(content: Mapping[str, Any]) -> Budget:
    """Parse a budget's registry document. ValueError says what is wrong."""
    try:
        budget = msgspec.convert(content, Budget)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    if not 0 < budget.amount_micros <= MAX_MICROS:
        raise ValueError("the amount must be more than nothing, and below a thousand million")
    if not budget.name or len(budget.name) > 300:
        raise ValueError("a budget names a model, a key or a team")
    return budget


def period_days(period: Period, today: date) -> list[date]:
    """The days of the current period up to and including `today`."""
    if period == "day":
        return [today]
    return [today.replace(day=number) for number in range(1, today.day + 1)]


def period_end(period: Period, today: date) -> float:
    """When the current period ends, in seconds since the epoch."""
    following = today + timedelta(days=1)
    if period == "month":
        following = (today.replace(day=1) + timedelta(days=32)).replace(day=1)
    return datetime(following.year, following.month, following.day, tzinfo=UTC).timestamp()


def reached_threshold(spent_micros: int, amount_micros: int) -> int:
    """The highest threshold that the spending has reached. It is one of THRESHOLDS, in percent of the amount; 0: none."""
    return max((level for level in THRESHOLDS if spent_micros * 100 >= level * amount_micros), default=0)
