"""`chips budget`: set, list and remove the budgets of models, keys and teams."""

import re
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

import typer

from gateway.cli.access.keys import find_key
from gateway.cli.cost.environment_ledger import EnvironmentLedger, read_ledger, this_month
from gateway.cli.cost.report import budgets_with_spending, format_amount
from gateway.cli.support import console
from gateway.cli.support.console import EX_DATAERR, EX_USAGE, Failure
from gateway.core.api_keys import key_id
from gateway.core.budget import MAX_MICROS, MICRO, Budget, Scope, budget_id, parse_budget
from gateway.core.model_updates import to_document
from gateway.core.name_validation import check_team
from gateway.core.suggestions import suggest
from gateway.registry.base import BUDGETS, KEYS, Delete, Put, Registry
from gateway.settings import Settings

budget = typer.Typer(help="Set, list and remove budgets.", no_args_is_help=True)

_REFUSALS: Final = {"no": 0, "402": 402, "429": 429}
_SUBJECT: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}:.+")  # of a token or certificate: RULE:SUBJECT

ModelOption = Annotated[str | None, typer.Option("--model", help="The model whose calls it is for.")]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key", help="The caller: a key's id, or RULE:SUBJECT of a token or certificate, as logs have it."
    ),
]
TeamOption = Annotated[str | None, typer.Option("--team", help="The team whose callers it is for.")]


@budget.command("set")
def set_budget(
    amount: Annotated[str, typer.Argument(help="Such as 250 or 0.50, in the currency of `chips prices`.")],
    model: ModelOption = None,
    key: KeyOption = None,
    team: TeamOption = None,
    period: Annotated[
        Literal["day", "month"], typer.Option(help="What it is for; days and months are UTC.")
    ] = "month",
    refuse: Annotated[
        Literal["no", "402", "429"],
        typer.Option(help="Whether calls are refused once it is used up, and with which status."),
    ] = "no",
    note: Annotated[str, typer.Option(help="Anything worth knowing about it.")] = "",
    reason: console.ReasonOption = "",
    by: console.AuthorOption = None,
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Set the budget of a model, a key or a team. Gateways warn at 50, 80 and 100 %, and refuse only where you say so.

    Examples:

    `chips budget set 250 --model wine`

    `chips budget set 20 --team cellar --period day --refuse 402`
    """
    author = console.author_name(by)
    scope, name = _named(model, key, team)
    settings = console.settings_for(registry_url)

    async def work(registry: Registry) -> tuple[Budget, bool, str]:
        body = Budget(
            scope=scope,
            name=await _known(registry, scope, name),
            amount_micros=_micros(amount),
            period=period,
            refuse=_REFUSALS[refuse],  # type: ignore[arg-type]
            note=note,
        )
        warning = await _unknown_team(registry, settings, body)
        return body, await _write(registry, body, author, reason), warning

    written, changed, warning = console.with_registry(registry_url, work)
    if warning:
        console.note(warning)
    if as_json:
        console.print_json({**to_document(written), "changed": changed, "warning": warning})
        return
    then = (
        f"; then calls are refused with {written.refuse}"
        if written.refuse
        else "; it warns, and refuses nothing"
    )
    console.say(
        "budget",
        f"{scope} {written.name}: {format_amount(written.amount_micros)} a {period}{then}"
        + ("" if changed else " (unchanged)"),
    )


async def _write(registry: Registry, body: Budget, author: str, reason: str) -> bool:
    """Write the budget; return whether that changes anything. Raises Failure."""
    try:
        parse_budget(to_document(body))
    except ValueError as error:
        raise Failure(str(error), code=EX_DATAERR) from None
    known = await registry.read(BUDGETS, body.id)
    if known is not None and known.body == to_document(body):
        return False
    revision = known.revision if known is not None else 0
    change = Put(kind=BUDGETS, name=body.id, body=to_document(body), expected=revision)
    await registry.write(change, author=author, reason=reason)
    return True


async def _unknown_team(registry: Registry, settings: Settings, body: Budget) -> str:
    """What is said where the team has no caller yet; empty otherwise. It is no error: its first key may come later."""
    if body.scope != "team":
        return ""
    rules = (*settings.auth.issuers, *settings.auth.certificates)
    known = {str(document.body.get("team", "")) for document in await registry.list(KEYS)}
    known |= {rule.team for rule in rules}
    if body.name in known:
        return ""
    return (
        f"no key in the registry, and no entry of auth.issuers or auth.certificates here, names the team {body.name}"
        f"{suggest(body.name, sorted(known - {''}))}; until one does, this budget counts nothing"
    )


@budget.command("list")
def list_budgets(registry_url: console.RegistryOption = None, as_json: console.JsonOption = False) -> None:
    """List the budgets, with what is spent of each in its running period.

    Example: `chips budget list`
    """
    settings = console.settings_for(registry_url)

    async def work(registry: Registry) -> EnvironmentLedger:
        return await read_ledger(registry, settings, this_month(), bill=False)

    ledger = console.with_registry(registry_url, work)
    found = budgets_with_spending(ledger)
    if as_json:
        console.print_json(found)
        return
    for problem in ledger.problems:
        console.say("warning", problem, style="bold yellow")
    if len(ledger.currencies) > 1:
        console.say(
            "warning",
            f"the prices were in {ledger.currencies[0]} when the month began: all of it is counted at those in {ledger.tables[0].currency}",
            style="bold yellow",
        )
    if not found:
        console.out.print("no budgets; set one: chips budget set AMOUNT --model NAME")
    for one in found:
        console.say(one["scope"], _line(one))


def _line(one: dict[str, Any]) -> str:
    then = f"refuses with {one['refuse']}" if one["refuse"] else "warns"
    return (
        f"{one['name']}: {format_amount(one['spent_micros'])} of {format_amount(one['amount_micros'])} a {one['period']} "
        f"({one['percent']:g} %), {then}" + (f"; {one['note']}" if one["note"] else "")
    )


@budget.command()
def remove(
    model: ModelOption = None,
    key: KeyOption = None,
    team: TeamOption = None,
    reason: console.ReasonOption = "",
    by: console.AuthorOption = None,
    registry_url: console.RegistryOption = None,
) -> None:
    """Remove a budget. What was spent stays in `chips cost`.

    Example: `chips budget remove --model wine`
    """
    author = console.author_name(by)
    scope, name = _named(model, key, team)

    async def work(registry: Registry) -> None:
        known = await registry.read(BUDGETS, budget_id(scope, name))
        if known is None:
            raise Failure(
                f"there is no budget of the {scope} {name}",
                hint="`chips budget list` shows them",
                code=EX_DATAERR,
            )
        change = Delete(kind=BUDGETS, name=known.name, expected=known.revision)
        await registry.write(change, author=author, reason=reason)

    console.with_registry(registry_url, work)
    console.say("removed", f"the budget of the {scope} {name}")


def _named(model: str | None, key: str | None, team: str | None) -> tuple[Scope, str]:
    given: list[tuple[Scope, str]] = []
    if model is not None:
        given.append(("model", model))
    if key is not None:
        given.append(("key", key))
    if team is not None:
        given.append(("team", team))
    if len(given) != 1:
        raise Failure("name one of --model, --key and --team", code=EX_USAGE)
    return given[0]


async def _known(registry: Registry, scope: Scope, name: str) -> str:
    """The name as gateways count it. Raises Failure where there is nothing of that name to count."""
    if scope == "model":
        await console.find_model_document(registry, name)
        return name
    if scope == "team":
        try:
            return check_team(name)
        except ValueError as error:
            raise Failure(str(error), code=EX_DATAERR) from None
    if name == "anonymous" or _SUBJECT.fullmatch(name):
        return name
    return key_id((await find_key(registry, name)).name)


def _micros(text: str) -> int:
    try:
        amount = Decimal(text) * MICRO
    except ArithmeticError:
        raise Failure(f"{text!r} is not an amount", hint="such as 250 or 0.50", code=EX_USAGE) from None
    if not amount.is_finite() or amount != amount.to_integral_value():
        raise Failure(f"{text!r} is not an amount to six decimals", hint="such as 250 or 0.50", code=EX_USAGE)
    if abs(amount) > MAX_MICROS:
        raise Failure(f"{text!r} is more than {MAX_MICROS // MICRO:,}", code=EX_DATAERR)
    return int(amount)
