"""The console of all commands: output, failures and common options. It also opens the registry."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.segment import Segment
from rich.text import Text

from gateway.cli.support.environments_file import (
    ChosenEnvironment,
    CurrentEnvironmentFile,
    EnvironmentsFileError,
    find_environment,
    read_environments,
)
from gateway.cli.support.global_options import GlobalOptions as GlobalOptions  # noqa: PLC0414  (others read both here)
from gateway.cli.support.global_options import choice as choice  # noqa: PLC0414
from gateway.core.escape_unprintable import printable, printable_json, printable_own_lines
from gateway.core.model import Model, parse_model
from gateway.core.suggestions import suggest
from gateway.registry.base import (
    APPROVALS,
    EVIDENCE,
    MODELS,
    SIGN_OFF,
    SIGN_OFF_POLICY,
    Delete,
    Document,
    Precondition,
    Put,
    Registry,
    RegistryError,
    Unavailable,
)
from gateway.registry.fallback_copy import open_fallback, refresh_fallback
from gateway.registry.open_by_url import open_registry
from gateway.settings import (
    Settings,
    environments_file,
    load_settings,
    mask_url,
    named_environment,
    state_folder,
)

# sysexits.h; docs/reference/cli.md lists them
EX_USAGE = 64
EX_DATAERR = 65
EX_UNAVAILABLE = 69
EX_CONFLICT = 75
EX_NOPERM = 77
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
    """The failure of a command. It says what went wrong, has a hint what to do, and the exit code."""

    def __init__(self, message: str, *, hint: str = "", code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


class _Screen(Console):
    """Shows text as it was written: what people put into a registry is neither markup nor orders to a terminal."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)

    def render(self, renderable: Any, options: Any = None) -> Iterator[Segment]:
        """The last sieve: whatever was put together of pieces. Line feeds are rich's own by now."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable_own_lines(segment.text), segment.style)


out = _Screen()
err = _Screen(stderr=True)


_BEFORE_COMMANDS = frozenset({"next", "approve", "key", "look", "not live", "findings"})


def say(label: str, text: str, *, style: str = "bold", to: Console = out) -> None:
    """Print a label and a text on one line. The label is in the left column of a report."""
    if label in _BEFORE_COMMANDS or text.startswith("  → "):  # elsewhere stands what people wrote
        text = choice.add_environment_to_commands(text)
    to.print(Text.assemble((printable(f"{label:<9} "), style), printable(text)))


def note(text: str) -> None:
    """Print a note on standard error. It is one line of secondary information."""
    err.print(text, style="dim")


def short_value(value: Any) -> str:
    """A value of a document, shortened to one line."""
    if value is None:
        return "–"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        text = ", ".join(f"{tensor.get('name')} {tensor.get('datatype')}" for tensor in value)
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = printable(text)
    return text if len(text) <= 80 else text[:77] + "…"


def print_json(content: Any) -> None:
    """Print one indented JSON document on standard output."""
    sys.stdout.write(printable_json(json.dumps(content, indent=2, ensure_ascii=False)) + "\n")


def print_json_line(content: Any) -> None:
    """Print one JSON document on one line (JSON Lines)."""
    sys.stdout.write(printable_json(json.dumps(content, ensure_ascii=False)) + "\n")
    sys.stdout.flush()


def report_failure(failure: Failure, *, as_json: bool) -> NoReturn:
    """Print a failure and exit with its code. It is printed with its hint, or as JSON."""
    hint = choice.add_environment_to_commands(failure.hint)
    if as_json:
        print_json({"error": {"message": failure.message, "hint": hint, "exit_code": failure.code}})
    else:
        err.print(Text.assemble(("error: ", "bold red"), _indented(failure.message)))
        if hint:
            err.print(Text.assemble(("hint:  ", "bold"), _indented(hint)))
    sys.exit(failure.code)


def _indented(text: str) -> str:
    """Lines after the first stand further right, so that none can pass for one of ours."""
    return printable_own_lines(text).replace("\n", "\n       ")


def current_environment_file() -> CurrentEnvironmentFile:
    """The file that remembers which environment is in use."""
    return CurrentEnvironmentFile(state_folder() / "environment")


def chosen_environment() -> ChosenEnvironment | None:
    """The environment in force, or None. It is chosen by --env, else CHIPS_ENV, else `chips env use`. Raises Failure."""
    by, name = "--env", choice.env or ""
    if not name:
        by, name = "CHIPS_ENV", named_environment()
    if not name:
        by, name = "chips env use", current_environment_file().read()
    if not name:
        return None
    path = environments_file()
    try:
        return ChosenEnvironment(name, find_environment(read_environments(path), name, path), by)
    except EnvironmentsFileError as error:
        raise Failure(str(error), hint="`chips env list` shows them", code=EX_CONFIG) from None


def settings_for(registry: str | None) -> Settings:
    """The settings of a command. `--registry` wins, then a named environment, the settings, the environment in use."""
    chosen = chosen_environment()
    if chosen is None:
        return load_settings(flags={"registry": registry} if registry is not None else {})
    given = {
        name: value for name in ("registry", "artifacts") if (value := getattr(chosen.environment, name))
    }
    if chosen.environment.figures:
        given["rollouts.figures"] = chosen.environment.figures
    if chosen.environment.project:
        given["cost.billing_project"] = chosen.environment.project
    named = chosen.by != "chips env use"
    settings = load_settings(
        flags={**(given if named else {}), **({"registry": registry} if registry is not None else {})},
        defaults={} if named else given,
    )
    if not choice.told:
        choice.told = True
        protected = ", protected" if chosen.environment.protected else ""
        note(f"environment {chosen.name}{protected}: {mask_url(settings.registry)}")
    return settings


def gateway_address(given: str | None, settings: Settings) -> str:
    """The address of the gateway to ask. It is as given, else the environment's, else the one on this machine."""
    chosen = chosen_environment()
    known = chosen.environment.gateway if chosen is not None else ""
    return (given or known or f"http://127.0.0.1:{settings.server.port}").rstrip("/")


def confirm_protected_write(settings: Settings, *, store: str = "") -> None:
    """Ask to confirm a write to a protected environment. `store`: one to its artifact store. Raises Failure or Abort."""
    chosen = chosen_environment()
    if chosen is None or not chosen.environment.protected or choice.yes:
        return
    theirs = chosen.environment.artifacts if store else chosen.environment.registry
    if theirs and theirs != (store or settings.registry):
        return  # --registry or --store named another one
    if not sys.stdin.isatty():
        raise Failure(
            f'the environment "{chosen.name}" is protected, so this must be confirmed',
            hint="add --yes before the verb: chips --yes …",
            code=EX_USAGE,
        )
    typer.confirm(f"Write to {chosen.name} ({mask_url(theirs or settings.registry)})?", abort=True, err=True)
    choice.yes = True


# These collect signatures, and change nothing that serves.
_SIGNED_BY_PEOPLE = frozenset({APPROVALS, EVIDENCE})


async def _check_approvals(registry: Registry, changes: Sequence[Put | Delete]) -> tuple[Precondition, ...]:
    """What must be unchanged when `changes` are written, so that the sign-off policy allows them. Raises Failure."""
    if not any(change.kind in {MODELS, SIGN_OFF} for change in changes):
        return ()
    policy = await registry.read(SIGN_OFF, SIGN_OFF_POLICY)
    if policy is None:  # before the import, which takes a while
        return (Precondition(kind=SIGN_OFF, name=SIGN_OFF_POLICY, expected=0),)
    from gateway.signoff.enforce_policy import NotApproved, check_write

    try:
        clearance = await check_write(registry, changes, policy)
    except NotApproved as error:
        raise Failure(
            str(error),
            hint="chips request-approval asks; chips approvals shows what is missing",
            code=EX_NOPERM,
        ) from None
    for approved in clearance.approved:
        emergency = approved.verdict.emergency
        if emergency is not None:
            due = approved.verdict.review_due
            err.print(
                f"EMERGENCY: {approved.subject.title} goes into service on the word of {emergency.person.name} alone"
                + (f"; a review is due by {due}" if due else ""),
                style="bold red",
            )
    return clearance.preconditions


class _Guarded:
    """A registry that asks before it is written, where the environment is protected or wants approvals."""

    def __init__(self, registry: Registry, settings: Settings) -> None:
        self._registry = registry
        self._settings = settings
        self.has_written = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registry, name)

    async def write(
        self,
        *changes: Put | Delete,
        author: str,
        reason: str = "",
        preconditions: Sequence[Precondition] = (),
    ) -> int:
        unchanged: tuple[Precondition, ...] = ()
        if any(change.kind not in _SIGNED_BY_PEOPLE for change in changes):
            try:
                unchanged = await _check_approvals(self._registry, changes)
            except Unavailable as error:
                raise Unavailable(f"{error} Nothing was written.") from error
            confirm_protected_write(self._settings)
        generation = await self._registry.write(
            *changes, author=author, reason=reason, preconditions=(*preconditions, *unchanged)
        )
        self.has_written = True
        return generation


@asynccontextmanager
async def open_guarded_registry(settings: Settings) -> AsyncIterator[Registry]:
    """Open the registry of `settings` with a guard that asks before a write to a protected environment.

    It also refuses a write without approval. After a write the fallback and the second place, if set, are brought up to date.
    """
    registry = open_registry(settings.registry)
    guarded: Any = _Guarded(registry, settings)
    try:
        yield guarded
        if guarded.has_written and settings.registry_fallback:
            await _refresh_fallback(settings, registry)
        if guarded.has_written and settings.audit.second_place and settings.audit.signing_key:
            await _keep_head(settings, registry)
    finally:
        await registry.close()


async def _refresh_fallback(settings: Settings, registry: Registry) -> None:
    """A writer also updates the fallback of all gateways; if that fails, the write is still valid."""
    fallback = open_fallback(settings.registry_fallback)
    if fallback.saved_by_gateways:
        return
    try:
        with_keys = settings.server.fallback_keys_age_s > 0
        await refresh_fallback(fallback, registry, with_keys=with_keys)
    except RegistryError as error:
        err.print(f"the fallback is not up to date: {error}", style="yellow")


async def _keep_head(settings: Settings, registry: Registry) -> None:
    """A writer also keeps the head of the history in the second place; if that fails, the write is still valid."""
    from gateway.audit.anchor_store import open_anchor_store
    from gateway.audit.anchors import write_anchor
    from gateway.audit.dsse_envelope import SigningError, read_signer

    try:
        signer = read_signer(Path(settings.audit.signing_key))
        await write_anchor(open_anchor_store(settings.audit.second_place), registry, signer)
    except (RegistryError, SigningError) as error:
        err.print(
            f"written, but its place in the history is not kept in {settings.audit.second_place} yet: {error}. "
            "Later: chips audit --anchor",
            style="yellow",
        )


def run_async(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in an event loop of its own, and return its result."""
    return asyncio.run(work)


def with_registry(registry_url: str | None, work: Callable[[Registry], Awaitable[Result]]) -> Result:
    """Open the registry, do `work` with it, close it."""

    async def opened() -> Result:
        async with open_guarded_registry(settings_for(registry_url)) as registry:
            return await work(registry)

    return run_async(opened())


async def find_model_document(registry: Registry, name: str) -> Document:
    """Find the registry document of the model `name`. It is not read as a model. Raises Failure."""
    document = await registry.read(MODELS, name)
    if document is None:
        known = [listed.name for listed in await registry.list(MODELS)]
        raise Failure(
            f'there is no model "{name}" in this registry{suggest(name, known)}',
            hint="`chips models` lists them",
            code=EX_DATAERR,
        )
    return document


async def find_model(registry: Registry, name: str) -> tuple[Document, Model]:
    """The document and the model called `name`. Raises Failure where there is none."""
    document = await find_model_document(registry, name)
    return document, read_model(document)


def read_model(document: Document) -> Model:
    """Read the model in a registry document. Raises Failure where it cannot be read."""
    try:
        return parse_model(document.body)
    except ValueError as error:
        raise Failure(
            f'what the registry holds for "{document.name}" cannot be read: {error}',
            hint=f"`chips show {document.name} --json` shows it as it is; `chips deregister {document.name}` removes it",
            code=EX_DATAERR,
        ) from None


def author_name(given: str | None) -> str:
    """The author of a change. It is as given by `--by`, else the user who is logged in."""
    if given:
        return given
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container may run under a number that has no name
        return f"uid {os.getuid()}"
