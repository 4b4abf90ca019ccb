"""Read the cost ledger of one environment for a month.

Usage comes from the environment's store of figures; prices and budgets come from its registry.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple

from gateway.cli.support.open_figures_store import open_figures_store
from gateway.core.budget import Budget
from gateway.core.prices import Prices, prices_at, tables_in_currency_at
from gateway.cost.billing_export import ADDRESS, BilledAmount, BillingError, read_billing
from gateway.cost.compare_plan_with_actual import PlanComparison, compare_plan, read_plan
from gateway.cost.google_api import GoogleApi
from gateway.cost.ledger import LedgerEntry, make_ledger, warm_instances
from gateway.cost.registry_price_tables import read_all_price_tables
from gateway.cost.usage_documents import month_days, read_usage
from gateway.registry.base import BUDGETS, MODELS, PLANS, Registry
from gateway.registry.snapshot import read_budget
from gateway.settings import Settings, gcloud_endpoint_override

_ALL_CHANGES: Final = 1_000_000


class EnvironmentLedger(NamedTuple):
    """The cost ledger of an environment for a month.

    It has entries, and the prices, budgets, plans and Google's bill for that month.
    """

    entries: list[LedgerEntry]
    tables: tuple[Prices, ...]  # that it is priced by, all in one currency
    currencies: tuple[str, ...]  # in force in the month: of several, the last one is that of the entries
    budgets: list[Budget]
    problems: list[str]  # what is not counted
    warnings: list[str]  # about what is
    days: list[date]  # of the month, until today
    billed: list[BilledAmount] | None  # None: no export is configured
    billed_project: str
    plans: list[PlanComparison]

    @property
    def applied_price_table_dates(self) -> set[str]:
        """The dates of the price tables that price the ledger's days."""
        return {prices_at(self.tables, day).date for day in self.days} or {self.tables[-1].date}


def utc_now() -> datetime:
    """The time now, in UTC."""
    return datetime.now(UTC)


def this_month() -> str:
    """The running month (UTC), such as 2026-11."""
    return f"{utc_now():%Y-%m}"


async def read_ledger(
    registry: Registry, settings: Settings, month: str, *, bill: bool = True
) -> EnvironmentLedger:
    """Read and price the ledger of a month. A month is such as 2026-11.

    Google's bill is read unless `bill` is False: its query costs time and money. Raises ValueError where `month` is no month,
    and RegistryError.
    """
    now = utc_now()
    days = [day for day in month_days(month) if day <= now.date()]
    all_tables, problems = await read_all_price_tables(registry)
    last = days[-1] if days else now.date()
    in_force = (prices_at(all_tables, day).currency for day in (*days, last))
    tables = tables_in_currency_at(all_tables, last)
    currency = tables[0].currency
    async with open_figures_store(settings, registry) as store:
        usage = await read_usage(store, days)
    changes = await registry.history(kind=MODELS, limit=_ALL_CHANGES)
    warm = warm_instances(reversed(changes), days, now)
    budgets, more = await _budgets(registry)
    now_in = prices_at(all_tables, now.date()).currency
    if budgets and now_in != currency:
        budgets = []
        more.append(f"the budgets: they are in {now_in}, and the prices of {month} in {currency}")
    billed, failed = _billed(settings, month_days(month), currency) if bill else (None, [])
    entries = make_ledger(usage.rows, warm, tables)
    plans, unread = await _plans(registry, entries, tables, days, now)
    return EnvironmentLedger(
        entries=entries,
        tables=tables,
        currencies=tuple(dict.fromkeys(in_force)),
        budgets=budgets,
        problems=[*problems, *usage.problems, *more, *failed, *unread],
        warnings=_why_nothing(settings) if not usage.rows else [],
        days=days,
        billed=billed,
        billed_project=settings.cost.billing_project or settings.cost.billing_table.partition(".")[0],
        plans=plans,
    )


def _why_nothing(settings: Settings) -> list[str]:
    """What may be the reason that no usage was found; nothing is not the same as nothing counted."""
    if settings.registry.startswith("firestore:") and not settings.rollouts.figures:
        return [
            "no usage was found: on Firestore gateways write it to the store in rollouts.figures, which is not set here"
        ]
    return []


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
    api = GoogleApi(gcloud_endpoint_override("bigquery") or ADDRESS)
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
