"""`chips import`: write what a YAML file declares to the registry. All of it is one atomic write."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from gateway.cli.registry.history import difference_lines
from gateway.cli.support import console
from gateway.cli.support.check_evidence_before_traffic import (
    ForceOption,
    check_verified,
    newly_served_versions,
)
from gateway.cli.support.console import EX_DATAERR, EX_USAGE, Failure
from gateway.cli.support.registry_yaml import Declared, read_declaration
from gateway.core.model import Model, parse_model
from gateway.deploy.read_foreign_models import READERS
from gateway.registry.base import MODELS, NETWORKS, Delete, Document, Put, Registry, now_rfc3339

_NOTES = 20  # in the reason, which Firestore ends at 10 000 characters
_NOTE_LENGTH = 300
_WORDS = {"create": "add", "update": "change", "delete": "remove"}
_STYLES = {"create": "bold green", "update": "bold yellow", "delete": "bold red"}


class _Step(NamedTuple):
    action: str
    change: Put | Delete
    lines: list[str]

    def facts(self) -> dict[str, Any]:
        return {
            "action": self.action,
            "kind": self.change.kind,
            "name": self.change.name,
            "differences": self.lines,
        }


def import_models(
    file: Annotated[str, typer.Argument(help="The YAML file; - is standard input.")],
    prune: Annotated[
        bool, typer.Option("--prune", help="Also remove what the file's sections do not name.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan, write nothing.")] = False,
    force: ForceOption = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    reason: console.ReasonOption = "",
    by: console.AuthorOption = None,
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Make the registry what a file declares.

    It shows the differences, asks, then writes all of them or none.

    A section that the file lacks is left alone. What somebody else changes between plan and write is not overwritten: that
    ends with exit code 75 and nothing written.

    Example: `chips import registry.yaml --prune --dry-run`
    """
    if file.partition(":")[0] in READERS and not Path(file).exists():
        raise Failure(
            f"{file} is a model, and this imports a registry",
            hint=f"chips import-model {shlex.quote(file)}",
            code=EX_USAGE,
        )
    declared = read_declaration(_text(file), file)
    author = console.author_name(by)

    async def work(registry: Registry) -> dict[str, Any]:
        steps = await _plan(registry, declared, author, prune=prune)
        facts: dict[str, Any] = {"plan": [step.facts() for step in steps], "written": False}
        if not as_json:
            _tell(steps)
        if steps and not dry_run:
            unverified = await _unverified(registry, steps, force=force)
            _confirm(len(steps), yes=yes)
            facts["generation"] = await registry.write(
                *(step.change for step in steps),
                author=author,
                reason="; ".join((reason or f"import of {file}", *unverified)),
            )
            facts["written"] = True
        return facts

    facts = console.with_registry(registry_url, work)
    if as_json:
        console.print_json(facts)
    elif facts["written"]:
        console.say("written", f"generation {facts['generation']}, all at once")
    elif facts["plan"]:
        console.say("dry run", "nothing was written", style="bold yellow")


def _text(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}", code=EX_DATAERR) from None
    except UnicodeDecodeError:
        raise Failure(f"{file} is not text in UTF-8", code=EX_DATAERR) from None


async def _plan(registry: Registry, declared: Declared, author: str, *, prune: bool) -> list[_Step]:
    steps = []
    for kind, wanted in declared.items():
        known = {document.name: document for document in await registry.list(kind)}
        for name, body in wanted.items():
            step = _step(kind, name, body, known.get(name), author)
            if step is not None:
                steps.append(step)
        if prune:
            steps += [
                _Step("delete", Delete(kind=kind, name=name, expected=document.revision), [])
                for name, document in known.items()
                if name not in wanted
            ]
    return steps


def _step(kind: str, name: str, body: dict[str, Any], known: Document | None, author: str) -> _Step | None:
    before = known.body if known is not None else None
    if kind == NETWORKS:
        made = {"created": now_rfc3339(), "created_by": author}
        body = {**made, **(before or {}), **body}
    if known is None:
        return _Step("create", Put(kind=kind, name=name, body=body, expected=0), difference_lines(None, body))
    if not known.problem and before == body:
        return None
    change = Put(kind=kind, name=name, body=body, expected=known.revision)
    return _Step("update", change, difference_lines(before, body))


async def _unverified(registry: Registry, steps: list[_Step], *, force: bool) -> list[str]:
    """What the history says of versions that get traffic and are not verified. Raises Failure for those of models that are there.

    A model that is not there is restored, say: what served it is known to the file alone.
    """
    notes = []
    for step in steps:
        if step.change.kind != MODELS or not isinstance(step.change, Put):
            continue
        document = await registry.read(MODELS, step.change.name)
        before = _model(document.body) if document is not None else None
        after = _model(step.change.body)
        if after is not None:
            new = newly_served_versions(before, after)
            note = await check_verified(registry, after, new, force=force or document is None)
            if note:
                notes.append(f"{note} ({after.name})" if len(steps) > 1 else note)
    more = [f"forced: {len(notes) - _NOTES} more models"] if len(notes) > _NOTES else []
    return [*(note[:_NOTE_LENGTH] for note in notes[:_NOTES]), *more]


def _model(body: Mapping[str, Any]) -> Model | None:
    try:
        return parse_model(body)
    except ValueError:
        return None  # what is wrong with it is said elsewhere


def _tell(steps: list[_Step]) -> None:
    if not steps:
        console.say("unchanged", "the registry is as the file says")
    for step in steps:
        console.say(_WORDS[step.action], f"{step.change.kind}/{step.change.name}", style=_STYLES[step.action])
        for line in step.lines:
            console.say("", line)


def _confirm(count: int, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise Failure(
            "this must be confirmed", hint="add --yes, or --dry-run to see the plan only", code=EX_USAGE
        )
    typer.confirm(f"Write these {count} changes, all at once?", abort=True, err=True)
