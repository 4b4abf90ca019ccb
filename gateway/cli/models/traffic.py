"""`chips traffic`: show or set how a model's traffic is split between its versions."""

from typing import Annotated, Any

import msgspec
import typer

from gateway.cli.models.sticky_option import StickyOption, with_sticky_option
from gateway.cli.support import console
from gateway.cli.support.check_evidence_before_traffic import (
    ForceOption,
    check_verified,
    warn_of_active_rollout,
)
from gateway.cli.support.console import EX_DATAERR, EX_USAGE, Failure
from gateway.cli.support.wait_until_gateway_serves import WatchedGatewayOption, wait_until_served
from gateway.core.model import Model, model_problems
from gateway.core.model_updates import merge_document
from gateway.registry.base import MODELS, Put, Registry
from gateway.settings import Settings


def traffic(
    name: Annotated[str, typer.Argument(help="The model.")],
    shares: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="VERSION=PERCENT...",
            help="The new split; what is not named takes nothing. Without: show it.",
        ),
    ] = None,
    sticky: StickyOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, write nothing.")
    ] = False,
    force: ForceOption = False,
    gateway: WatchedGatewayOption = None,
    reason: console.ReasonOption = "",
    by: console.AuthorOption = None,
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Show or set how a model's traffic is split between its versions.

    Shares are whole percentages that add up to 100.

    Examples:

    `chips traffic wine`

    `chips traffic wine 3=90 4=10 --reason "canary of version 4"`

    `chips traffic wine 3=50 4=50 --sticky header:X-User`
    """
    wanted = _parsed(shares or [])
    settings = console.settings_for(registry_url)
    if not shares and sticky is None:
        _show(console.run_async(_current(settings, name)), as_json=as_json)
        return

    async def work() -> dict[str, Any]:
        async with console.open_guarded_registry(settings) as registry:
            document, model = await console.find_model(registry, name)
            after = _split(model, wanted, sticky)
            facts: dict[str, Any] = {
                "model": name,
                "before": dict(model.traffic),
                "after": dict(after.traffic),
                "sticky": after.sticky.by if after.sticky is not None else None,
                "written": False,
                "live": False,
            }
            if dry_run or (after.traffic == model.traffic and after.sticky == model.sticky):
                return facts
            new = [
                version
                for version, share in after.traffic.items()
                if share and not model.traffic.get(version)
            ]
            forced = await check_verified(registry, model, new, force=force)
            await warn_of_active_rollout(registry, name)
            because = "; ".join(filter(None, (reason, forced)))
            body = merge_document(document.body, after)
            change = Put(kind=MODELS, name=name, body=body, expected=document.revision)
            facts["generation"] = await registry.write(change, author=console.author_name(by), reason=because)
            facts["written"] = True
            facts["obstacle"] = await _watch(registry, console.gateway_address(gateway, settings))
            facts["live"] = not facts["obstacle"]
            return facts

    facts = console.run_async(work())
    if as_json:
        console.print_json(facts)
    else:
        _show_change(facts, dry_run=dry_run)


def _show_change(facts: dict[str, Any], *, dry_run: bool) -> None:
    for version in {**facts["before"], **facts["after"]}:
        before, after = facts["before"].get(version, 0), facts["after"].get(version, 0)
        console.say(f"v {version}", f"{before} %" + (f" → {after} %" if before != after else ", unchanged"))
    if facts["sticky"] is not None:
        console.say("sticky", facts["sticky"])
    if dry_run:
        console.say("dry run", "nothing was written", style="bold yellow")
    elif not facts["written"]:
        console.say(facts["model"], "unchanged")
    elif facts["live"]:
        console.say("live", f"generation {facts['generation']}", style="bold green")
    else:
        console.say("not live", facts["obstacle"], style="bold yellow")


async def _current(settings: Settings, name: str) -> Model:
    async with console.open_guarded_registry(settings) as registry:
        _, model = await console.find_model(registry, name)
        return model


def _show(model: Model, *, as_json: bool) -> None:
    by = model.sticky.by if model.sticky is not None else None
    if as_json:
        console.print_json({"model": model.name, "traffic": dict(model.traffic), "sticky": by})
        return
    for backend in model.backends:
        share = model.traffic.get(backend.version, 0)
        console.say(f"v {backend.version}", f"{share} %  {backend.url}")
    if by is not None:
        console.say("sticky", by)


async def _watch(registry: Registry, address: str) -> str:
    return await wait_until_served(address, await registry.load_mirrored())


def _parsed(shares: list[str]) -> dict[str, int]:
    wanted: dict[str, int] = {}
    for share in shares:
        version, equals, percent = share.rpartition("=")
        if (
            not equals
            or not version
            or not percent.isascii()
            or not percent.isdigit()
            or int(percent[:4]) > 100
        ):
            raise Failure(f"{share!r} is not VERSION=PERCENT", hint="such as 3=90 4=10", code=EX_USAGE)
        if version in wanted:
            raise Failure(f"version {version} is named twice", code=EX_USAGE)
        wanted[version] = int(percent)
    return wanted


def _split(model: Model, wanted: dict[str, int], sticky: str | None) -> Model:
    unnamed = {backend.version: 0 for backend in model.backends if backend.version not in wanted}
    after = msgspec.structs.replace(
        model,
        traffic={**unnamed, **wanted} if wanted else model.traffic,
        sticky=with_sticky_option(model.sticky, sticky),
    )
    problems = model_problems(after)
    if problems:
        raise Failure(
            "; ".join(problems),
            hint=f"{model.name} has {', '.join(backend.version for backend in model.backends)}",
            code=EX_DATAERR,
        )
    return after
