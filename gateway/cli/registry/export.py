"""`chips export`: the registry's models and networks as YAML."""

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.support import console
from gateway.cli.support.registry_declaration import write_declaration
from gateway.registry.base import MODELS, NETWORKS, Document, Registry


def export(
    file: Annotated[str, typer.Argument(help="Where to write it; - is standard output.")] = "-",
    registry_url: console.RegistryOption = None,
) -> None:
    """Write the registry's models and networks as YAML, for a repository and for `chips import`.

    Keys are not in it: they are nobody's business but the registry's.

    Example: `chips export registry.yaml`
    """

    async def work(registry: Registry) -> tuple[Document, ...]:
        return (await registry.load()).documents  # one moment, not one for each kind

    documents = console.with_registry(registry_url, work)
    by_kind = {
        kind: tuple(
            sorted((one for one in documents if one.kind == kind), key=lambda document: document.name)
        )
        for kind in (MODELS, NETWORKS)
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
    console.say("exported", f"{len(by_kind[MODELS])} models, {len(by_kind[NETWORKS])} networks to {file}")
