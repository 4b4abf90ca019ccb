"""`chips export`: write the registry as YAML. The file has models, networks, budgets, prices and saved plans."""

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.support import console
from gateway.cli.support.registry_yaml import SECTIONS, write_declaration
from gateway.registry.base import MODELS, NETWORKS, PLANS, Document, Registry


def export(
    file: Annotated[str, typer.Argument(help="Where to write it; - is standard output.")] = "-",
    registry_url: console.RegistryOption = None,
) -> None:
    """Write the registry as YAML. The file is for a repository and for `chips import`.

    The file has models, networks, budgets, prices and saved plans. Keys are not in it, nor what runs, such as rollouts, or
    what was found out, such as evidence.

    Example: `chips export registry.yaml`
    """

    async def work(registry: Registry) -> tuple[Document, ...]:
        # What gateways read is of one moment, not of one for each kind.
        return (*(await registry.load_mirrored()).documents, *await registry.list(PLANS))

    documents = console.with_registry(registry_url, work)
    by_kind = {
        kind: tuple(
            sorted((one for one in documents if one.kind == kind), key=lambda document: document.name)
        )
        for kind in SECTIONS
    }
    text = write_declaration(by_kind)
    if file == "-":
        typer.echo(text, nl=False)
        return
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise console.Failure(
            f"{file} cannot be written: {error.strerror}", code=console.EX_DATAERR
        ) from None
    counted = [
        f"{len(found)} {kind}" for kind, found in by_kind.items() if found or kind in {MODELS, NETWORKS}
    ]
    console.say("exported", f"{', '.join(counted)} to {file}")
