"""`chips env`: list and show the named environments, and choose the one in use."""

from typing import Annotated

import msgspec
import typer

from gateway.cli.support import console
from gateway.cli.support.console import EX_CONFIG, Failure
from gateway.cli.support.environments_file import (
    EXAMPLE,
    Environment,
    EnvironmentsFileError,
    read_environments,
)
from gateway.cli.support.store_urls_by_environment import environment_named
from gateway.settings import environments_file, mask_url

env = typer.Typer(help="Named environments: list them, choose one, look at one.", no_args_is_help=True)


def _read() -> dict[str, Environment]:
    try:
        return read_environments(environments_file())
    except EnvironmentsFileError as error:
        raise Failure(str(error), code=EX_CONFIG) from None


@env.command("list")
def list_environments(as_json: console.JsonOption = False) -> None:
    """List the environments.

    The one in use is marked.

    Example: `chips env list`
    """
    environments = _read()
    chosen = console.chosen_environment() if environments else None
    in_use = chosen.name if chosen is not None else None
    if as_json:
        console.print_json(
            [
                {"name": name, "in_use": name == in_use, **msgspec.to_builtins(e)}
                for name, e in environments.items()
            ]
        )
        return
    if not environments:
        console.out.print(
            f"no environments yet; describe them in {environments_file()}, which may begin:\n{EXAMPLE}"
        )
        return
    from rich.table import Table

    table = Table("", "environment", "registry", "artifacts", "project", "", box=None, pad_edge=False)
    for name, found in environments.items():
        table.add_row(
            "*" if name == in_use else "",
            name,
            mask_url(found.registry) or "–",
            found.artifacts or "–",
            found.project or "–",
            "protected" if found.protected else "",
        )
    console.out.print(table)


@env.command()
def use(
    name: Annotated[str | None, typer.Argument(help="The environment; without it, none is in use.")] = None,
    as_json: console.JsonOption = False,
) -> None:
    """Choose the environment in use.

    Commands act on it from now on. Settings that name a registry themselves still win.

    Example: `chips env use dev`
    """
    if name is not None:
        environment_named(name)
    console.current_environment_file().write(name or "")
    if as_json:
        console.print_json({"in_use": name})
    elif name is None:
        console.say("env", "none in use: the settings decide")
    else:
        console.say("env", f"{name} is in use")


@env.command()
def show(
    name: Annotated[str | None, typer.Argument(help="The environment; otherwise the one in use.")] = None,
    as_json: console.JsonOption = False,
) -> None:
    """Show one environment.

    It also shows what chose it.

    Example: `chips env show prod`
    """
    by = ""
    if name is None:
        chosen = console.chosen_environment()
        if chosen is None:
            raise Failure("no environment is in use", hint="chips env use NAME", code=EX_CONFIG)
        name, by = chosen.name, chosen.by
    found = environment_named(name)
    if as_json:
        console.print_json({"name": name, "chosen_by": by or None, **msgspec.to_builtins(found)})
        return
    console.say(
        name, ("protected" if found.protected else "not protected") + (f", chosen by {by}" if by else "")
    )
    for field in Environment.__struct_fields__:
        value = getattr(found, field)
        if field != "protected" and value:
            console.say("", f"{field:<10}{mask_url(value)}")
