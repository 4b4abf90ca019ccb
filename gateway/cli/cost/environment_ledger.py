"""The ledger of one environment and month, read from its registry and its store of figures."""

from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple

from gateway.cli.support.figures_store import figures_store
from gateway.core.budget import Budget
from gateway.core.prices import Prices, prices_at
from gateway.cost.billing_export import ADDRESS, BilledAmount, BillingError, read_billing
from gateway.cost.compare_plan_with_actual import PlanComparison, compare_plan, read_plan
from gateway.cost.google_api import GoogleApi
from gateway.cost.ledger import LedgerEntry, make_ledger, warm_instances
from gateway.cost.read_price_tables import read_registry_prices
from gateway.cost.usage import month_days, read_usage
from gateway.registry.base import BUDGETS, MODELS, PLANS, Registry
from gateway.registry.snapshot import read_budget
from gateway.settings import Settings, endpoint_override

_ALL_CHANGES: Final = 1_000_000


class EnvironmentLedger(NamedTuple):
    """The ledger of one environment in a month, with what else `chips cost` needs of it."""

    entries: list[LedgerEntry]
    tables: tuple[Prices, ...]
    budgets: list[Budget]
    problems: list[str]
    days: list[date]  # of the month, until today
    billed: list[BilledAmount] | None  # None: no export is configured
    plans: list[PlanComparison]


def utc_now() -> datetime:
    """The time now."""
    return datetime.now(UTC)


def this_month() -> str:
    """The running month (UTC), such as 2026-11."""
    return f"{utc_now():%Y-%m}"


async def read_ledger(
    registry: Registry, settings: Settings, month: str, *, bill: bool = True
) -> EnvironmentLedger:
    """Read and price a month such as 2026-11, with Google's bill unless `bill` is False: its query costs time and money.

    ValueError: it is no month. Raises RegistryError.
    """
    now = utc_now()
    days = [day for day in month_days(month) if day <= now.date()]
    tables, problems = await read_registry_prices(registry)
    async with figures_store(settings, registry) as store:
        usage = await read_usage(store, days)
    changes = await registry.history(kind=MODELS, limit=_ALL_CHANGES)
    warm = warm_instances(reversed(changes), days, now)
    budgets, more = await _budgets(registry)
    billed, failed = _billed(settings, month_days(month), tables[-1].currency) if bill else (None, [])
    entries = make_ledger(usage.rows, warm, tables)
    plans, unread = await _plans(registry, entries, tables, days, now)
    return EnvironmentLedger(
        entries,
        tables,
        budgets,
        [*problems, *usage.problems, *more, *failed, *unread],
        days,
        billed,
        plans,
    )


async def _plans(
    registry: Registry,
    entries: list[LedgerEntry],
    tables: tuple[Prices, ...],
    days: list[date],
    now: datetime,
) -> tuple[list[PlanComparison], list[str]]:
    """Each saved plan next to what came until now."""
    found, problems = [], []
    if days:
        begin = datetime(days[0].year, days[0].month, days[0].day, tzinfo=UTC)
        end = begin + timedelta(days=len(days))
        elapsed_s = (min(now, end) - begin).total_seconds()
        for document in await registry.list(PLANS):
            try:
                plan = read_plan(document)
                found.append(compare_plan(plan, entries, prices_at(tables, days[-1]), max(elapsed_s, 1.0)))
            except ValueError as error:
                problems.append(f"{PLANS}/{document.name}: {error}")
    return found, problems


def _billed(
    settings: Settings, days: list[date], currency: str
) -> tuple[list[BilledAmount] | None, list[str]]:
    """What Google billed, where its export is configured. A failure leaves the rest of the report as it is."""
    cost = settings.cost
    if not cost.billing_table:
        return None, []
    api = GoogleApi(endpoint_override("bigquery") or ADDRESS)
    try:
        found = read_billing(api, cost.billing_table, project=cost.billing_project, month=days)
    except BillingError as error:
        return None, [f"the bill: {error}"]
    finally:
        api.close()
    others = sorted({one.currency for one in found} - {currency})
    if others:
        return None, [f"the bill: it is in {', '.join(others)}, and the prices are in {currency}"]
    return found, []


async def _budgets(registry: Registry) -> tuple[list[Budget], list[str]]:
    budgets, problems = [], []
    for document in await registry.list(BUDGETS):
        try:
            budgets.append(read_budget(document))
        except ValueError as error:
            problems.append(f"{BUDGETS}/{document.name}: {error}")
    return budgets, problems
