"""Keep track of budgets: how much of each is spent, and which are exhausted.

Each gateway process does so. Requests that an exhausted budget covers are refused; before that, warnings are written.
Spending is not a counter of its own: it is the fleet's usage documents, priced as `chips cost` prices them, with this
process' own rows as they are now. So a restart loses nothing, and no failed write counts twice. Gateways learn of each
other's spending by an interval's write and an interval's read: a budget that refuses is exceeded by what the fleet spends in
two intervals, and by the requests that were under way.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any, Final, NamedTuple

from gateway.core.budget import (
    MICRO,
    Budget,
    budget_id,
    period_days,
    period_end,
    reached_threshold,
)
from gateway.core.prices import Prices, prices_at, tables_in_currency_at
from gateway.core.principal import Principal
from gateway.cost.ledger import cost_of_reached_requests
from gateway.cost.registry_price_tables import with_older_default_table
from gateway.cost.usage_documents import DailyUsage, sum_documents, usage_kind, utc_day
from gateway.cost.usage_reporter import UsageReporter
from gateway.registry.base import Conflict, Document, Registry, RegistryError
from gateway.registry.snapshot import Snapshot

_log = logging.getLogger(__name__)

WARNINGS: Final = "budget-warnings"
_OTHER: Final = "other"  # as the metrics call everything beyond their bound
_FIRST_LOOK_S: Final = 5.0
_LATE_S: Final = (
    3600.0  # a day's documents may still change for so long after its end, or after the store was away
)
_DAY_S: Final = 86_400.0


class ExhaustedBudget(NamedTuple):
    """A budget that is used up, and the end of its period. It refuses requests until then."""

    budget: Budget
    ends_at: float  # of the period, in seconds since the epoch


def spending_by_budget(
    budgets: Iterable[Budget], rows: Iterable[DailyUsage], prices: Prices
) -> dict[str, int]:
    """What is spent of each budget, by its id. Amounts are in millionths. `rows` is the usage that counts."""
    spent = {budget.id: 0 for budget in budgets}
    for row in rows:
        key = row.key
        named = budget_id("model", key.model), budget_id("key", key.caller), budget_id("team", key.team)
        found = [one for one in named if one in spent]
        if found:
            cost = cost_of_reached_requests(row.size, row.usage, prices)
            for one in found:
                spent[one] += cost
    return spent


class _Past(NamedTuple):
    """What a past day has cost, by the id of the budget, and for which budgets and prices that holds."""

    budgets: tuple[Budget, ...]
    tables: tuple[Prices, ...]
    spent: Mapping[str, int]


class BudgetKeeper:
    """Keeps track of what is spent of each budget, and which are used up.

    `exhausted` has those that are, by scope and name. Call `follow` with each snapshot, and `refresh` once an interval.
    """

    def __init__(
        self,
        store: Registry,
        usage: UsageReporter,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._usage = usage
        self._now = now
        self._budgets: tuple[Budget, ...] = ()
        self._tables: tuple[Prices, ...] = ()
        self._ids: frozenset[str] = frozenset()
        self._documents: dict[date, tuple[Document, ...]] = {}  # as last read
        self._past: dict[date, _Past] = {}
        self._failed_at = 0.0
        self._warned: dict[str, Mapping[str, Any]] = {}
        self.spent: dict[str, int] = {}  # by the id of the budget, in this period
        # Always the same dictionary, because requests look at it.
        self.exhausted: dict[tuple[str, str], ExhaustedBudget] = {}

    def follow(self, snapshot: Snapshot) -> None:
        self._budgets = snapshot.budgets
        if self._budgets:
            self._tables = with_older_default_table(snapshot.price_tables)
        else:
            self.spent = {}
        self._ids = frozenset(budget.id for budget in snapshot.budgets)
        self._release(snapshot.budgets)

    def _release(self, budgets: Iterable[Budget]) -> None:
        """Let calls in again at once where a budget was raised, removed or refuses no more; all else waits for `refresh`."""
        known = {budget.id: budget for budget in budgets}
        for place, found in list(self.exhausted.items()):
            budget = known.get(found.budget.id)
            if (
                budget is None
                or not budget.refuse
                or budget.period != found.budget.period
                or self.spent[budget.id] < budget.amount_micros
            ):
                del self.exhausted[place]
            else:
                self.exhausted[place] = ExhaustedBudget(budget, found.ends_at)

    def overflow_caller_labels(self, principal: Principal) -> tuple[str, str]:
        """The metric labels (caller, team) of a caller beyond the limit of series.

        Its budgets still count it with them. The callers of a team are counted together: a token's issuer may name any
        number of them.
        """
        caller, team = principal.id, principal.team
        if budget_id("key", caller) in self._ids:
            return caller, team
        if budget_id("team", team) in self._ids:
            return f"{_OTHER} ({team})", team
        return _OTHER, ""

    async def start(self) -> None:
        """Read what is spent of each budget, before the first request.

        A store that does not answer in time is not waited for. No task is started: `refresh` is called once an interval.
        """
        try:
            async with asyncio.timeout(_FIRST_LOOK_S):
                await self.refresh()
        except (TimeoutError, RegistryError) as error:
            _log.error(
                "budgets are not known yet, and nothing is refused for them: %s",
                str(error) or "no answer in time",
            )

    async def stop(self) -> None:
        """Do nothing: the keeper has no task, and the usage reporter writes what is left."""

    async def refresh(self) -> None:
        """Refresh what is spent of each budget.

        It also finds those that are exhausted. Raises RegistryError, after it has counted what is known here.
        """
        budgets = self._budgets
        if not budgets:
            return
        failure: RegistryError | None = None
        day = utc_day(self._now())
        tables = tables_in_currency_at(self._tables, day)
        days = {one for budget in budgets for one in period_days(budget.period, day)}
        unread = sorted(days - self._past.keys() if self._same(budgets, tables) else days)
        fresh: set[date] = set()
        lists = (self._store.list_ephemeral(usage_kind(one)) for one in unread)
        for one, found in zip(unread, await asyncio.gather(*lists, return_exceptions=True), strict=True):
            if isinstance(found, RegistryError):
                failure, self._failed_at = found, self._now()
            elif isinstance(found, BaseException):
                raise found
            else:
                self._documents[one] = found
                fresh.add(one)
        self._usage.collect_new_usage()
        own = {one: self._usage.own_documents(one) for one in days}
        spent = await asyncio.to_thread(self._count, budgets, tables, days, own, fresh)
        if budgets == self._budgets:
            self._judge(budgets, spent, day)
            await self._warn(day)
        if failure is not None:
            raise failure

    def _same(self, budgets: tuple[Budget, ...], tables: tuple[Prices, ...]) -> bool:
        return all(past.budgets == budgets and past.tables == tables for past in self._past.values())

    def _count(
        self,
        budgets: tuple[Budget, ...],
        tables: tuple[Prices, ...],
        days: Iterable[date],
        own: Mapping[date, Mapping[str, Mapping[str, Any]]],
        fresh: Collection[date],
    ) -> dict[str, int]:
        """What is spent of each budget in its running period. `fresh`: the days that have just been read."""
        now = self._now()
        current = utc_day(now)
        by_day: dict[date, Mapping[str, int]] = {}
        for day in days:
            past = self._past.get(day)
            if past is not None and past.budgets == budgets and past.tables == tables:
                by_day[day] = past.spent
                continue
            by_day[day] = self._count_day(day, budgets, tables, own[day])
            if day in fresh and now - self._last_change(day) > _LATE_S:
                self._past[day] = _Past(budgets, tables, by_day[day])
                del self._documents[day]
        for day in [day for day in self._past if day not in by_day]:
            del self._past[day]
        for day in [day for day in self._documents if day not in by_day]:
            del self._documents[day]
        return {
            budget.id: sum(by_day[day][budget.id] for day in period_days(budget.period, current))
            for budget in budgets
        }

    def _last_change(self, day: date) -> float:
        """When the last gateway may have begun to write what it counted on `day`, in seconds since the epoch."""
        ended = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() + _DAY_S
        return max(ended, self._failed_at) if self._failed_at < ended + _DAY_S else ended

    def _count_day(
        self,
        day: date,
        budgets: tuple[Budget, ...],
        tables: tuple[Prices, ...],
        own: Mapping[str, Mapping[str, Any]],
    ) -> dict[str, int]:
        documents = {document.name: document for document in self._documents.get(day, ())}
        for name, body in own.items():
            documents[name] = Document(kind=usage_kind(day), name=name, revision=0, body=dict(body))
        problems: list[str] = []
        rows = sum_documents(day, documents.values(), problems)
        for problem in problems:
            _log.error("usage that cannot be read counts for no budget: %s", problem)
        prices = prices_at(tables, day)
        return spending_by_budget(budgets, rows, prices)

    def _judge(self, budgets: tuple[Budget, ...], spent: dict[str, int], day: date) -> None:
        self.spent = spent
        found: dict[tuple[str, str], ExhaustedBudget] = {
            (budget.scope, budget.name): ExhaustedBudget(budget, period_end(budget.period, day))
            for budget in budgets
            if budget.refuse and spent[budget.id] >= budget.amount_micros
        }
        self.exhausted.clear()
        self.exhausted.update(found)

    # -- warnings

    async def _warn(self, day: date) -> None:
        """Log each threshold once in the fleet: the gateway that notes it in the store says it."""
        for budget in self._budgets:
            spent = self.spent.get(budget.id, 0)
            level = reached_threshold(spent, budget.amount_micros)
            # A budget that is changed warns again.
            occasion = {
                "since": period_days(budget.period, day)[0].isoformat(),
                "period": budget.period,
                "amount_micros": budget.amount_micros,
            }
            if level > _level_said(self._warned.get(budget.id, {}), occasion):
                try:
                    news = await self._note(budget, occasion, level)
                except RegistryError:
                    news = True  # better twice than never
                self._warned[budget.id] = {**occasion, "level": level}
                if news:
                    self._tell(budget, spent, level)

    async def _note(self, budget: Budget, occasion: Mapping[str, Any], level: int) -> bool:
        """Whether nobody has said it yet in this period. Raises RegistryError."""
        documents = await self._store.list_ephemeral(WARNINGS)
        known = next((document for document in documents if document.name == budget.id), None)
        if known is not None and _level_said(known.body, occasion) >= level:
            return False
        with contextlib.suppress(Conflict):
            await self._store.write_ephemeral(
                WARNINGS,
                budget.id,
                {**occasion, "level": level},
                expected=known.revision if known is not None else 0,
            )
            return True
        return False  # another gateway was quicker

    def _tell(self, budget: Budget, spent: int, level: int) -> None:
        then = f"calls are refused with {budget.refuse}" if budget.refuse else "calls go on"
        _log.log(
            logging.ERROR if level >= 100 else logging.WARNING,
            "the budget of %s %s has reached %d %%: %.2f of %.2f are spent this %s%s",
            budget.scope,
            budget.name,
            level,
            spent / MICRO,
            budget.amount_micros / MICRO,
            budget.period,
            f"; {then}" if level >= 100 else "",
        )

    def gauges(self) -> dict[str, dict[str, float]]:
        """Gauges for the metrics: the share of each budget that is spent."""
        shares = {
            budget.id: self.spent[budget.id] / budget.amount_micros
            for budget in self._budgets
            if budget.id in self.spent
        }
        return {"chips_budget_spent_ratio": shares} if shares else {}


def _level_said(note: Mapping[str, Any], occasion: Mapping[str, Any]) -> int:
    """The threshold that a note has of the same period and amount; 0: none. Another gateway may have written anything."""
    level = note.get("level")
    same = all(note.get(name) == value for name, value in occasion.items())
    return level if same and isinstance(level, int) else 0
