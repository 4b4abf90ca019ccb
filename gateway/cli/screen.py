"""What every verb does alike: talk to people and to machines, fail clearly, open the registry."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

from gateway.registry.base import Document, Registry
from gateway.registry.schemes import open_registry
from gateway.settings import Settings, load_settings

# sysexits.h; docs/reference/cli.md lists them
EX_USAGE = 64
EX_DATAERR = 65
EX_UNAVAILABLE = 69
EX_CONFLICT = 75
EX_PROTOCOL = 76
EX_CONFIG = 78

Result = TypeVar("Result")

RegistryOption = Annotated[
    str | None,
    typer.Option("--registry", help="Registry URL; otherwise the setting (CHIPS_REGISTRY, chips.toml)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document, for machines.")]
AuthorOption = Annotated[
    str | None, typer.Option("--by", help="Who changes this, for the history; otherwise your user name.")
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, for the history.")]


class Failure(Exception):
    """What went wrong, what to do about it, and the exit code."""

    def __init__(self, message: str, *, hint: str = "", code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def say(label: str, text: str, *, style: str = "bold") -> None:
    """One line of a report: what it is about, in the left column, and the text."""
    out.print(f"[{style}]{label:<10}[/]{escape(text)}")


def print_json(content: Any) -> None:
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def report(failure: Failure, *, as_json: bool) -> NoReturn:
    if as_json:
        print_json({"error": {"message": failure.message, "hint": failure.hint, "exit_code": failure.code}})
    else:
        err.print(f"[bold red]error:[/] {escape(failure.message)}")
        if failure.hint:
            err.print(f"[bold]hint:[/]  {escape(failure.hint)}")
    sys.exit(failure.code)


def settings_for(registry: str | None) -> Settings:
    return load_settings(flags={"registry": registry} if registry is not None else {})


@asynccontextmanager
async def registry_at(settings: Settings) -> AsyncIterator[Registry]:
    registry = open_registry(settings.registry)
    try:
        yield registry
    finally:
        await registry.close()


def run(work: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run(work)


def with_registry(registry_url: str | None, work: Callable[[Registry], Awaitable[Result]]) -> Result:
    """Open the registry, do `work` with it, close it."""

    async def opened() -> Result:
        async with registry_at(settings_for(registry_url)) as registry:
            return await work(registry)

    return run(opened())


async def find(registry: Registry, kind: str, name: str) -> Document:
    document = await registry.read(kind, name)
    if document is None:
        raise Failure(
            f'there is no model "{name}" in this registry', hint="`chips models` lists them", code=EX_DATAERR
        )
    return document


def author(given: str | None) -> str:
    if given:
        return given
    import getpass

    return getpass.getuser()
