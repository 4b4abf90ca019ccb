"""`chips diff`: show what differs between two environments."""

from typing import Annotated, Any

import typer

from gateway.cli.support import console
from gateway.cli.support.console import EX_CONFIG, Failure
from gateway.cli.support.store_urls_by_environment import registry_url_of_environment
from gateway.core.model_updates import differences
from gateway.registry.base import MODELS, Document
from gateway.registry.open_by_url import open_registry

# Where a backend runs differs between environments by nature; that is no news.
_EXPECTED = (": url", ": artifact")


def diff(
    before: Annotated[str, typer.Argument(help="One environment.")],
    after: Annotated[str, typer.Argument(help="The other one.")],
    addresses: Annotated[
        bool,
        typer.Option("--addresses", help="Also addresses of backends and artifacts, which differ by nature."),
    ] = False,
    as_json: console.JsonOption = False,
) -> None:
    """Show what differs between two environments: models, versions, artifact digests, traffic, policy.

    It ends with 0 where nothing differs, else with 1, so that a pipeline can ask.

    Example: `chips diff dev prod`
    """

    async def work() -> tuple[dict[str, Document], dict[str, Document]]:
        return await _models(before), await _models(after)

    theirs, ours = console.run_async(work())
    found: dict[str, list[tuple[str, Any, Any]]] = {}
    for name in sorted({*theirs, *ours}):
        one, other = theirs.get(name), ours.get(name)
        if one is None or other is None:
            found[name] = [("", "there" if one else None, "there" if other else None)]
            continue
        changes = [
            change
            for change in differences(one.body, other.body)
            if addresses or not change[0].endswith(_EXPECTED)
        ]
        if changes:
            found[name] = changes
    if as_json:
        console.print_json(
            {
                name: [{"path": path, before: one, after: other} for path, one, other in changes]
                for name, changes in found.items()
            }
        )
    else:
        _show(found, before, after, len({*theirs, *ours}))
    raise typer.Exit(1 if found else 0)


def _show(found: dict[str, list[tuple[str, Any, Any]]], before: str, after: str, count: int) -> None:
    if not found:
        console.out.print(f"{before} and {after} are alike: {count} models")
        return
    from rich.table import Table

    table = Table("model", "what", before, after, box=None, pad_edge=False)
    for name, changes in found.items():
        for index, (path, one, other) in enumerate(changes):
            table.add_row(
                name if not index else "",
                path or "the model",
                console.short_value(one),
                console.short_value(other),
            )
    console.out.print(table)


async def _models(name: str) -> dict[str, Document]:
    url = registry_url_of_environment(name)
    try:
        registry = open_registry(url)
    except ValueError as error:
        raise Failure(f'the registry of "{name}": {error}', code=EX_CONFIG) from None
    try:
        return {document.name: document for document in await registry.list(MODELS)}
    finally:
        await registry.close()
