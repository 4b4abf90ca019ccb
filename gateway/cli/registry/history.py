"""`chips history`: show who changed what in the registry, and when. It also shows why, and the difference."""

from typing import Annotated, Any

import msgspec
import typer

from gateway.cli.support import console
from gateway.core.api_keys import key_id
from gateway.core.model_updates import differences
from gateway.registry.base import KEYS, MODELS, REVOCATIONS, Change, Registry
from gateway.registry.mask_change import mask_change

_VERBS = {"create": "created", "update": "changed", "delete": "deleted"}
_STYLES = {"create": "bold green", "update": "bold yellow", "delete": "bold red"}


def history(
    name: Annotated[str | None, typer.Argument(help="A model; otherwise everything.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="Only this kind: models, rollouts, networks, keys or revocations.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many changes, the newest first.")] = 20,
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Show the registry's history, newest first.

    Each change shows who, what, when, why, and the difference.

    Example: `chips history wine --limit 5`
    """

    async def work(registry: Registry) -> tuple[Change, ...]:
        wanted = kind or (MODELS if name is not None else None)
        return tuple(map(mask_change, await registry.history(kind=wanted, name=name, limit=limit)))

    changes = console.with_registry(registry_url, work)
    if as_json:
        console.print_json([msgspec.to_builtins(change) for change in changes])
        return
    if not changes:
        console.out.print("no changes yet" if name is None else f'nothing is known of "{name}"')
    for change in changes:
        print_change(change)


def print_change(change: Change) -> None:
    """Print one change. There is a line with author, change and time, then a line for each difference."""
    name = key_id(change.name) if change.kind in {KEYS, REVOCATIONS} else change.name
    why = f": {change.reason}" if change.reason else ""
    console.say(
        _VERBS[change.action],
        f"{change.kind}/{name} revision {change.revision}, generation {change.generation}, "
        f"{change.at} by {change.author}{why}",
        style=_STYLES[change.action],
    )
    if change.action != "delete":
        for line in difference_lines(change.before, change.after):
            console.say("", line)


def difference_lines(before: dict[str, Any] | None, after: dict[str, Any] | None) -> list[str]:
    """The lines that show the difference between two documents. There is one for each path that differs."""
    return [
        f"{path}: {console.short_value(new)}"
        if old is None
        else f"{path}: {console.short_value(old)} → {console.short_value(new)}"
        for path, old, new in differences(before, after)
    ]
