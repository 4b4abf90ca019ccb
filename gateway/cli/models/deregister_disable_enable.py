"""`chips deregister`, `disable` and `enable`: take a model out of service or into service again.

`deregister` takes a model or one version of it out of the registry.
"""

import sys
from typing import Annotated

import msgspec
import typer

from gateway.cli.support import console
from gateway.cli.support.console import EX_DATAERR, EX_USAGE, Failure
from gateway.core.model import Model
from gateway.core.model_updates import merge_document, remove_version_and_rescale
from gateway.registry.base import MODELS, Delete, Document, Put, Registry
from gateway.settings import Settings


def deregister(
    name: Annotated[str, typer.Argument(help="The model.")],
    version: Annotated[str | None, typer.Option(help="Only this version.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also a version that takes traffic; the others take it over.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    reason: console.ReasonOption = "",
    by: console.AuthorOption = None,
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Take a model, or one version of it, out of the registry. Its backends go on running; the history stays.

    Example: `chips deregister wine --version 1`
    """

    async def work(registry: Registry) -> int:
        document = await console.find_model_document(registry, name)
        what = f'the model "{name}"' if version is None else f'version {version} of "{name}"'
        change = _removal(document, version, despite_traffic=force)
        _confirm(f"Take {what} out of service?", yes=yes)
        return await registry.write(change, author=console.author_name(by), reason=reason)

    generation = console.with_registry(registry_url, work)
    _told(
        name,
        "deregistered" if version is None else f"version {version} deregistered",
        generation,
        as_json=as_json,
    )


def _removal(document: Document, version: str | None, *, despite_traffic: bool) -> Put | Delete:
    """The change that removes a version, or all of the model: also where the version is its last one."""
    if version is not None:
        model = console.read_model(document)
        _check_removable(model, version, despite_traffic=despite_traffic)
        if len(model.backends) > 1:
            body = merge_document(document.body, remove_version_and_rescale(model, version))
            return Put(kind=MODELS, name=document.name, body=body, expected=document.revision)
    return Delete(kind=MODELS, name=document.name, expected=document.revision)


async def deregister_version(
    settings: Settings, name: str, version: str, *, despite_traffic: bool, author: str, reason: str
) -> bool:
    """Deregister a version, and the model with its last one; return whether it was registered.

    This does not ask for confirmation. Raises Failure where the version takes traffic and is not the last one. With
    `despite_traffic` the others take that over; it raises Failure only where none of them takes any.
    """
    async with console.open_guarded_registry(settings) as registry:
        document = await registry.read(MODELS, name)
        if document is None or console.read_model(document).backend(version) is None:
            return False
        await registry.write(
            _removal(document, version, despite_traffic=despite_traffic), author=author, reason=reason
        )
        return True


def enable(
    name: Annotated[str, typer.Argument(help="The model.")],
    reason: console.ReasonOption = "",
    by: console.AuthorOption = None,
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Take a disabled model into service again.

    Example: `chips enable wine`
    """
    _set_enabled(name, registry_url, by, reason, enabled=True, as_json=as_json)


def disable(
    name: Annotated[str, typer.Argument(help="The model.")],
    reason: console.ReasonOption = "",
    by: console.AuthorOption = None,
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Take a model out of service.

    The registry keeps everything about it.

    Example: `chips disable wine --reason "wrong scaler in version 3"`
    """
    _set_enabled(name, registry_url, by, reason, enabled=False, as_json=as_json)


def _set_enabled(
    name: str, registry_url: str | None, by: str | None, reason: str, *, enabled: bool, as_json: bool
) -> None:
    async def work(registry: Registry) -> int:
        document, model = await console.find_model(registry, name)
        body = merge_document(document.body, msgspec.structs.replace(model, enabled=enabled))
        change = Put(kind=MODELS, name=name, body=body, expected=document.revision)
        return await registry.write(change, author=console.author_name(by), reason=reason)

    _told(
        name, "enabled" if enabled else "disabled", console.with_registry(registry_url, work), as_json=as_json
    )


def _check_removable(model: Model, version: str, *, despite_traffic: bool) -> None:
    if model.backend(version) is None:
        known = ", ".join(backend.version for backend in model.backends)
        raise Failure(f'"{model.name}" has no version {version}', hint=f"it has {known}", code=EX_DATAERR)
    share = model.traffic.get(version, 0)
    if not share or len(model.backends) == 1:
        return
    if not despite_traffic:
        raise Failure(
            f"version {version} takes {share} % of the traffic",
            hint="shift it away first (chips register … --traffic), or add --force",
            code=EX_DATAERR,
        )
    if share == 100:
        raise Failure(
            f"version {version} takes all of the traffic and no other version takes any",
            hint="give another version traffic first: chips register … --traffic 100",
            code=EX_DATAERR,
        )


def _confirm(question: str, *, yes: bool) -> None:
    if yes or console.choice.yes:
        console.choice.yes = True
        return
    if not sys.stdin.isatty():
        raise Failure("this must be confirmed", hint="add --yes", code=EX_USAGE)
    typer.confirm(question, abort=True)


def _told(name: str, what: str, generation: int, *, as_json: bool) -> None:
    if as_json:
        console.print_json({"model": name, "result": what, "generation": generation})
    else:
        console.say(name, f"{what} (generation {generation})")
