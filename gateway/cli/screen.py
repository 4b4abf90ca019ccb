"""What every verb does alike: talk to people and to machines, fail clearly, open the registry."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.text import Text

from gateway.core.model import Model, parse_model
from gateway.registry.base import MODELS, Document, Registry
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


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class _Screen(Console):
    """Shows text as it was written: what people put into a registry is neither markup nor orders to a terminal."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(as_visible(text), **options)


def as_visible(text: str) -> str:
    """`text` with control characters, which could move a terminal's cursor or paint it, written out."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", text)


out = _Screen()
err = _Screen(stderr=True)


def say(label: str, text: str, *, style: str = "bold", to: Console = out) -> None:
    """One line of a report: what it is about, in the left column, and the text."""
    to.print(Text.assemble((as_visible(f"{label:<10}"), style), as_visible(text)))


def note(text: str) -> None:
    """One line on standard error that a reader may skip."""
    err.print(text, style="dim")


def print_json(content: Any) -> None:
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def report(failure: Failure, *, as_json: bool) -> NoReturn:
    if as_json:
        print_json({"error": {"message": failure.message, "hint": failure.hint, "exit_code": failure.code}})
    else:
        err.print(Text.assemble(("error: ", "bold red"), as_visible(failure.message)))
        if failure.hint:
            err.print(Text.assemble(("hint:  ", "bold"), as_visible(failure.hint)))
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


async def find_document(registry: Registry, name: str) -> Document:
    """The document of the model `name`, readable or not."""
    document = await registry.read(MODELS, name)
    if document is None:
        raise Failure(
            f'there is no model "{name}" in this registry', hint="`chips models` lists them", code=EX_DATAERR
        )
    return document


async def find_model(registry: Registry, name: str) -> tuple[Document, Model]:
    document = await find_document(registry, name)
    return document, read_model(document)


def read_model(document: Document) -> Model:
    """The one way in which every verb reads a model's document. Raises Failure."""
    try:
        return parse_model(document.body)
    except ValueError as error:
        raise Failure(
            f'what the registry holds for "{document.name}" cannot be read: {error}',
            hint=f"`chips show {document.name} --json` shows it as it is; `chips deregister {document.name}` removes it",
            code=EX_DATAERR,
        ) from None


def author(given: str | None) -> str:
    if given:
        return given
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container may run under a number that has no name
        return f"uid {os.getuid()}"
