"""`chips cost`: show what the calls of a month cost.

The lines of the table are models, versions, callers, teams or environments.
"""

from collections import Counter
from collections.abc import Callable
from datetime import date
from typing import Annotated, Any, Final, Literal

import typer

from gateway.cli.cost.environment_ledger import EnvironmentLedger, read_ledger, this_month
from gateway.cli.support import console
from gateway.cli.support.console import EX_DATAERR, EX_USAGE, Failure
from gateway.cli.support.environments_file import Environment, EnvironmentsFileError, read_environments
from gateway.core.budget import MICRO
from gateway.core.prices import prices_at
from gateway.cost.compare_plan_with_actual import comparison_document
from gateway.cost.ledger import NO_TEAM, UNAUTHENTICATED, LedgerEntry, LedgerLine, group_entries, sum_lines
from gateway.cost.track_budgets import spending_by_budget
from gateway.cost.usage_documents import DailyUsage, UsageKey
from gateway.registry.base import RegistryError
from gateway.settings import Settings, environments_file, load_settings

By = Literal["model", "version", "caller", "team", "day", "environment"]

_GROUPS: Final[dict[str, Callable[[LedgerEntry], str]]] = {
    "model": lambda entry: entry.model,
    "version": lambda entry: f"{entry.model}@{entry.version}",
    "caller": lambda entry: entry.caller or UNAUTHENTICATED,
    "team": lambda entry: entry.team or NO_TEAM,
    "day": lambda entry: entry.day.isoformat(),
}


def cost(
    month: Annotated[
        str | None, typer.Option(help="Such as 2026-11; otherwise the running one (UTC).")
    ] = None,
    by: Annotated[By, typer.Option(help="What the lines are.")] = "model",
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Show what a month's calls cost.

    Costs are at the prices in force: allocated, used, kept warm, fees. The lines add up to the total.

    `allocated` is the instance time that requests were given, `used` the part of it that they occupied by the declared
    concurrency. docs/how-to/cost.md explains both, and what is not in them.

    Examples:

    `chips cost`

    `chips cost --month 2026-11 --by team --json`
    """
    month = month or this_month()
    ledgers = _every_environment(month) if by == "environment" else {"": _one(registry_url, month)}
    currencies = {currency for ledger in ledgers.values() for currency in ledger.currencies}
    if len(currencies) > 1:
        raise Failure(
            f"the prices in force in {month} are in {' and '.join(sorted(currencies))}, which do not add up",
            hint="`chips prices` lists the tables; look at one environment, or another month, at a time",
            code=EX_DATAERR,
        )
    lines = _lines(ledgers, by)
    total = sum_lines("total", lines)
    report = {
        "month": month,
        "by": by,
        "currency": currencies.pop(),
        "prices": sorted(
            {table for ledger in ledgers.values() for table in ledger.applied_price_table_dates}
        ),
        "lines": [_document(line) for line in lines],
        "total": _document(total),
        "billed": _billed(ledgers, total, by),
        "assumed_size": sorted({place for ledger in ledgers.values() for place in _assumed(ledger)}),
        "budgets": _of_each(ledgers, budgets_with_spending),
        "plans": _of_each(ledgers, lambda ledger: [comparison_document(plan) for plan in ledger.plans]),
        "problems": _named(ledgers, lambda ledger: ledger.problems),
        "warnings": _named(ledgers, lambda ledger: ledger.warnings),
    }
    if as_json:
        console.print_json(report)
        return
    _show(report, lines, total)


def _of_each(
    ledgers: dict[str, EnvironmentLedger], facts: Callable[[EnvironmentLedger], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """The facts of all ledgers; where there are several, each says whose it is."""
    return [
        {"environment": name, **one} if name else one
        for name, ledger in ledgers.items()
        for one in facts(ledger)
    ]


def _named(
    ledgers: dict[str, EnvironmentLedger], texts: Callable[[EnvironmentLedger], list[str]]
) -> list[str]:
    return [f"{name}: {text}" if name else text for name, ledger in ledgers.items() for text in texts(ledger)]


def _one(registry_url: str | None, month: str) -> EnvironmentLedger:
    settings = console.settings_for(registry_url)
    return console.run_async(_read(settings, month))


async def _read(settings: Settings, month: str) -> EnvironmentLedger:
    async with console.open_guarded_registry(settings) as registry:
        try:
            return await read_ledger(registry, settings, month)
        except ValueError as error:
            raise Failure(str(error), code=EX_USAGE) from None


def _every_environment(month: str) -> dict[str, EnvironmentLedger]:
    try:
        environments = read_environments(environments_file())
    except EnvironmentsFileError as error:
        raise Failure(str(error), code=EX_DATAERR) from None
    named = {name: one for name, one in environments.items() if one.registry}
    if not named:
        raise Failure(
            f"{environments_file()} names no environment with a registry",
            hint="`chips env list` shows them; --by model reports on the registry in use",
            code=EX_USAGE,
        )
    stores: dict[tuple[str, str], list[str]] = {}
    for name, one in named.items():
        stores.setdefault((one.registry, one.figures or one.registry), []).append(name)
    # Several names of one environment are one line: its calls count once.
    ledgers = {
        ", ".join(names): _of_environment(names[0], named[names[0]], month) for names in stores.values()
    }
    counted: dict[str, str] = {}
    for (_, figures), names in stores.items():
        line = ", ".join(names)
        other = counted.setdefault(figures, line)
        if other != line:
            ledgers[line].warnings.append(
                f"its calls are counted for {other} as well: both have one store of figures"
            )
    return ledgers


def _of_environment(name: str, environment: Environment, month: str) -> EnvironmentLedger:
    flags = {"registry": environment.registry, "rollouts.figures": environment.figures}
    if environment.project:
        flags["cost.billing_project"] = environment.project
    try:
        return console.run_async(_read(load_settings(flags=flags), month))
    except RegistryError as error:
        raise RegistryError(f"{name}: {error}") from error


def _lines(ledgers: dict[str, EnvironmentLedger], by: By) -> list[LedgerLine]:
    if by != "environment":
        lines = group_entries(ledgers[""].entries, _GROUPS[by])
        return sorted(lines, key=lambda line: line.name) if by == "day" else lines
    lines = []
    for name, ledger in ledgers.items():
        found = group_entries(ledger.entries, lambda _, name=name: name)  # type: ignore[misc]
        lines += found or [sum_lines(name, [])]
    return lines


def _document(line: LedgerLine) -> dict[str, Any]:
    usage, cost = line.usage, line.cost
    return {
        "name": line.name,
        "requests": usage.requests,
        "refused": usage.refused,
        "failed": usage.failed,
        "bytes_in": usage.bytes_in,
        "bytes_out": usage.bytes_out,
        "allocated_s": round(line.allocated_s, 6),
        "used_s": round(line.used_s, 6),
        "kept_warm_s": round(line.idle_s, 3),
        "micros": {
            "allocated": cost.allocated,
            "used": cost.used_of_allocated,
            "kept_warm": cost.idle,
            "requests": cost.requests,
            "egress": cost.egress,
            "total": cost.total,
        },
    }


def _billed(ledgers: dict[str, EnvironmentLedger], total: LedgerLine, by: By) -> dict[str, Any] | None:
    """What was billed, and what of it the lines do not explain; None where no bill is known.

    Environments in one project have one bill: it counts once, for all of them.
    """
    if any(ledger.billed is None for ledger in ledgers.values()):
        return None
    sharing: dict[str, list[str]] = {}
    for name, ledger in ledgers.items():
        sharing.setdefault(ledger.billed_project, []).append(name)
    found: dict[str, int] = {}
    for names in sharing.values():
        for one in ledgers[names[0]].billed or ():
            line = {"model": one.model, "version": f"{one.model}@{one.version}" if one.model else ""}
            key = ", ".join(names) if by == "environment" else line.get(by, "") or f"({one.service})"
            found[key] = found.get(key, 0) + one.net
    billed = sum(found.values())
    return {
        "total_micros": billed,
        "rest_micros": billed - total.cost.total,
        "shared_at_most_micros": total.cost.allocated - total.cost.used_of_allocated,
        "by": dict(sorted(found.items())),
    }


def _assumed(ledger: EnvironmentLedger) -> set[str]:
    """The versions whose size nobody has declared."""
    return {
        f"{one.model}@{one.version}"
        for one in ledger.entries
        if one.usage.backend_us and not one.size.declared
    }


def budgets_with_spending(ledger: EnvironmentLedger) -> list[dict[str, Any]]:
    """Each budget with what was spent of it, as JSON values. It was spent in the month, or on the month's last day."""
    of_month: Counter[str] = Counter()
    of_day: Counter[str] = Counter()
    rows: dict[date, list[DailyUsage]] = {}
    for entry in ledger.entries:
        key = UsageKey(entry.model, entry.version, entry.caller, entry.team)
        rows.setdefault(entry.day, []).append(DailyUsage(entry.day, key, entry.size, entry.usage))
    for day, found in rows.items():
        spent = spending_by_budget(ledger.budgets, found, prices_at(ledger.tables, day))
        of_month.update(spent)
        if day == ledger.days[-1]:
            of_day.update(spent)
    return [
        {
            "scope": budget.scope,
            "name": budget.name,
            "period": budget.period,
            "amount_micros": budget.amount_micros,
            "spent_micros": micros,
            "percent": round(micros * 100 / budget.amount_micros, 1),
            "refuse": budget.refuse,
            "note": budget.note,
        }
        for budget in ledger.budgets
        for micros in [(of_day if budget.period == "day" else of_month)[budget.id]]
    ]


def _show(report: dict[str, Any], lines: list[LedgerLine], total: LedgerLine) -> None:
    from rich.table import Table

    table = Table(
        report["by"], "requests", "allocated", "of it used", "kept warm", "fees", "egress", "total",
        box=None, pad_edge=False,
    )  # fmt: skip
    table.columns[0].overflow = "fold"  # a name that is cut off names nobody
    for column in table.columns[1:]:
        column.justify = "right"
    for line in (*lines, total):
        cost = line.cost
        amounts = (cost.allocated, cost.used_of_allocated, cost.idle, cost.requests, cost.egress, cost.total)
        table.add_row(
            line.name,
            f"{line.usage.requests:,}",
            *map(format_amount, amounts),
            style="bold" if line is total else None,
        )
    console.out.print(table)
    if report["billed"] is not None:
        _show_bill(report["billed"], total)
    for plan in report["plans"]:
        _show_plan(plan)
    for budget in report["budgets"]:
        console.say(
            "budget",
            f"{_whose(budget)}{budget['scope']} {budget['name']}: {budget['percent']:g} % of {format_amount(budget['amount_micros'])} "
            f"{report['currency']} a {budget['period']} is spent",
            style="bold yellow" if budget["percent"] >= 80 else "bold",
        )
    for place in report["assumed_size"]:
        console.say(
            "warning",
            f"{place} declares no size: 1 processor and 1 GiB are assumed; chips register … --cpu --memory says it",
            style="bold yellow",
        )
    for text in (*report["warnings"], *(f"not counted: {problem}" for problem in report["problems"])):
        console.say("warning", text, style="bold yellow")
    console.note(
        f"{report['month']} in {report['currency']}, list prices of {', '.join(report['prices'])} for Cloud Run; "
        "`chips prices` shows them"
    )


def _whose(facts: dict[str, Any]) -> str:
    return f"{facts['environment']}: " if "environment" in facts else ""


def _show_plan(plan: dict[str, Any]) -> None:
    planned, actual = plan["planned_micros"], plan["actual_micros"]
    console.say(
        "plan",
        f"{_whose(plan)}{plan['model']}: {format_amount(planned)} were planned until now, {format_amount(actual)} came",
    )
    for step in plan["difference"]:
        if step["micros"]:
            console.say("", f"{format_amount(step['micros']):>12}  {step['why']}")


def _show_bill(billed: dict[str, Any], total: LedgerLine) -> None:
    for name, micros in billed["by"].items():
        console.say("billed", f"{format_amount(micros):>12}  {name}")
    console.say("explained", f"{format_amount(total.cost.total):>12}  by the lines above")
    rest = billed["rest_micros"]
    why = (
        f"requests that shared instances explain up to {format_amount(billed['shared_at_most_micros'])} of it; so do free tiers and discounts"
        if rest < 0
        else "starts of instances, the gateway itself, and whatever else runs in the project"
    )
    console.say("rest", f"{format_amount(rest):>12}  unexplained: {why}")


def format_amount(micros: int) -> str:
    """Format an amount of money for people. It is exact to the cent, or further where it is less."""
    amount = micros / MICRO
    return f"{amount:,.2f}" if not micros or abs(amount) >= 1 else f"{amount:.6f}".rstrip("0")
