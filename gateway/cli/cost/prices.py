"""`chips prices`: show the price tables in force, and update them from Google's catalogue."""

from itertools import pairwise
from typing import Annotated, Any

import msgspec
import typer

from gateway.cli.support import console
from gateway.cli.support.console import EX_UNAVAILABLE, Failure
from gateway.core.model_updates import to_document
from gateway.core.prices import Prices
from gateway.cost.registry_price_tables import prices_now, read_all_price_tables
from gateway.registry.base import PRICES, Put, Registry, now_rfc3339
from gateway.settings import gcloud_endpoint_override

prices = typer.Typer(help="Show the price tables, and update them.", invoke_without_command=True)


@prices.callback()
def show(
    context: typer.Context,
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Show the price table in force.

    It also shows the dates of the others.

    Example: `chips prices`
    """
    if context.invoked_subcommand is not None:
        return
    tables, problems = console.with_registry(registry_url, read_all_price_tables)
    if as_json:
        console.print_json([to_document(table) for table in tables])
        return
    in_force = prices_now(tables)
    _show(in_force)
    for table, following in pairwise(tables):
        if table is not in_force:
            console.note(f"until {following.date}: those of {table.date} ({table.currency}, {table.region})")
    if tables[-1] is not in_force:
        console.note(
            f"from {tables[-1].date} on: those of that date ({tables[-1].currency}, {tables[-1].region})"
        )
    for problem in problems:
        console.say("warning", problem, style="bold yellow")


def _show(table: Prices) -> None:
    console.say("prices", f"of {table.date}, {table.currency}, {table.region}")
    for group in ("cloud_run", "firestore", "storage", "network", "logging"):
        values: dict[str, Any] = msgspec.to_builtins(getattr(table, group))
        source = values.pop("source")
        shown = ", ".join(f"{name} {value:.10f}".rstrip("0").rstrip(".") for name, value in values.items())
        console.say(group, shown)
        console.note(f"          {source}")


@prices.command()
def update(
    region: Annotated[
        str | None, typer.Option(help="Region of the backends. [default: that of the table in force]")
    ] = None,
    currency: Annotated[
        str | None,
        typer.Option(help="Three letters (ISO 4217). [default: that of the table in force]"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, write nothing.")
    ] = False,
    reason: console.ReasonOption = "",
    by: console.AuthorOption = None,
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Update the price table from Google's Cloud Billing catalogue.

    Today's list prices go into the registry. What fails leaves the last good table.

    Example: `chips prices update --region europe-west1`
    """
    from gateway.cost.google_api import GoogleApi
    from gateway.cost.google_price_catalogue import ADDRESS, CatalogueError, read_catalogue

    api = GoogleApi(gcloud_endpoint_override("cloudbilling") or ADDRESS)

    author = console.author_name(by)

    async def work(registry: Registry) -> tuple[Prices, list[str], bool]:
        known, _ = await read_all_price_tables(registry)
        before = prices_now(known)
        try:
            found = read_catalogue(
                api,
                before,
                region=region or before.region,
                currency=(currency or before.currency).upper(),
                day=now_rfc3339()[:10],
            )
        except CatalogueError as error:
            raise Failure(
                f"{error}; the table of {before.date} stays in force",
                hint="the account needs no role for list prices, but the project must have the Cloud Billing API on",
                code=EX_UNAVAILABLE,
            ) from None
        changes = _differences(before, found)
        written = not dry_run and found != before
        if written:
            document = await registry.read(PRICES, found.date)
            change = Put(
                kind=PRICES,
                name=found.date,
                body=to_document(found),
                expected=document.revision if document is not None else 0,
            )
            await registry.write(change, author=author, reason=reason or "chips prices update")
        return found, changes, written

    found, changes, written = console.with_registry(registry_url, work)
    if as_json:
        console.print_json({**to_document(found), "changes": changes, "written": written})
        return
    console.say("prices", f"of {found.date}, {found.currency}, {found.region}")
    for line in changes or ["no price has changed"]:
        console.say("", line)
    console.say(
        "written" if written else "dry run", "nothing was written" if not written else f"prices/{found.date}"
    )


def _differences(before: Prices, after: Prices) -> list[str]:
    lines = []
    for group in ("cloud_run", "firestore", "storage", "network", "logging"):
        old, new = msgspec.to_builtins(getattr(before, group)), msgspec.to_builtins(getattr(after, group))
        lines += [
            f"{group}.{name}: {old[name]:g} → {value:g}"
            for name, value in new.items()
            if name != "source" and old[name] != value
        ]
    return lines
