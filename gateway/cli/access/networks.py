"""`chips networks`: list, add and remove the networks from which callers are admitted.

Changes take effect while gateways run.
"""

from typing import Annotated

import typer

from gateway.cli.support import console
from gateway.cli.support.console import EX_DATAERR, Failure
from gateway.core.ip_network_set import parse_network
from gateway.registry.base import (
    NETWORKS,
    Delete,
    Document,
    Put,
    Registry,
    network_document_name,
    now_rfc3339,
)

networks = typer.Typer(help="Whose callers are admitted, besides edge.networks.", no_args_is_help=True)

NetworksArgument = Annotated[
    list[str],
    typer.Argument(metavar="NETWORK...", help="Such as 192.0.2.0/24, 2001:db8::/32 or one address."),
]


@networks.command()
def add(
    given: NetworksArgument,
    note: Annotated[str, typer.Option(help="Whose network it is; shown in lists.")] = "",
    reason: console.ReasonOption = "",
    by: console.AuthorOption = None,
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Admit callers from these networks.

    Every gateway admits them at once. All of the networks are added, or none.

    Example: `chips networks add 198.51.100.0/24 2001:db8:7::/48 --note "office Berlin"`
    """
    wanted = _parsed(given)
    author = console.author_name(by)

    async def work(registry: Registry) -> list[str]:
        known = {document.name for document in await registry.list(NETWORKS)}
        new = [network for network in wanted if network_document_name(network) not in known]
        changes = [
            Put(
                kind=NETWORKS,
                name=network_document_name(network),
                body={"network": network, "note": note, "created": now_rfc3339(), "created_by": author},
                expected=0,
            )
            for network in new
        ]
        if changes:
            await registry.write(*changes, author=author, reason=reason or note)
        return new

    new = console.with_registry(registry_url, work)
    if as_json:
        console.print_json({"added": new, "unchanged": [network for network in wanted if network not in new]})
        return
    for network in wanted:
        console.say("added" if network in new else "unchanged", network)


@networks.command("list")
def list_networks(registry_url: console.RegistryOption = None, as_json: console.JsonOption = False) -> None:
    """List the networks in the registry.

    `chips check` shows those of the settings.

    Example: `chips networks list`
    """

    async def work(registry: Registry) -> tuple[Document, ...]:
        return await registry.list(NETWORKS)

    found = [document.body for document in console.with_registry(registry_url, work)]
    if as_json:
        console.print_json(found)
        return
    if not found:
        console.out.print("no networks yet; add one: chips networks add 192.0.2.0/24 --note WHOSE")
        return
    from rich.table import Table

    table = Table("network", "note", "added", "by", box=None, pad_edge=False)
    for body in found:
        table.add_row(*(str(body.get(name, "")) for name in ("network", "note", "created", "created_by")))
    console.out.print(table)


@networks.command()
def remove(
    given: NetworksArgument,
    reason: console.ReasonOption = "",
    by: console.AuthorOption = None,
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Admit callers from these networks no longer. All of them or none.

    Example: `chips networks remove 198.51.100.0/24 --reason "moved out"`
    """
    wanted = _parsed(given)

    async def work(registry: Registry) -> None:
        known = {document.name: document for document in await registry.list(NETWORKS)}
        missing = [network for network in wanted if network_document_name(network) not in known]
        if missing:
            raise Failure(
                f"{', '.join(missing)} is not in the registry",
                hint="`chips networks list` shows what is; networks of the settings are changed there",
                code=EX_DATAERR,
            )
        documents = [known[network_document_name(network)] for network in wanted]
        changes = [Delete(kind=NETWORKS, name=found.name, expected=found.revision) for found in documents]
        await registry.write(*changes, author=console.author_name(by), reason=reason)

    console.with_registry(registry_url, work)
    if as_json:
        console.print_json({"removed": wanted})
        return
    for network in wanted:
        console.say("removed", network)


def _parsed(given: list[str]) -> list[str]:
    """The networks as they are written, once each. Reports every mistake."""
    parsed, problems = [], []
    for text in given:
        try:
            parsed.append(str(parse_network(text)))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise Failure("; ".join(problems), code=EX_DATAERR)
    return list(dict.fromkeys(parsed))
