"""`chips rollback`: restore a model's whole registry entry as of an earlier revision.

It restores versions, traffic and policy, and brings back a model that was deregistered.
"""

import sys
from typing import Annotated, Any

import typer

from gateway.cli.registry.history import difference_lines
from gateway.cli.support import console
from gateway.cli.support.console import EX_DATAERR, EX_USAGE, Failure
from gateway.core.model import parse_model
from gateway.registry.base import MODELS, Change, Delete, Document, Put, Registry

_HISTORY = 1000


def rollback(
    name: Annotated[str, typer.Argument(help="The model.")],
    to: Annotated[
        int | None,
        typer.Option(
            "--to", min=1, metavar="REV", help="The revision to go back to; otherwise the one before."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, write nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    reason: console.ReasonOption = "",
    by: console.AuthorOption = None,
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Restore an earlier revision of a model. It becomes a new revision: nothing of the history is lost.

    It also brings back a model that was deregistered. `chips history NAME` shows the revisions.

    Example: `chips rollback wine --to 4 --reason "version 3 scores wrongly"`
    """

    async def work(registry: Registry) -> dict[str, Any]:
        document = await registry.read(MODELS, name)
        changes = await registry.history(kind=MODELS, name=name, limit=_HISTORY)
        wanted, revision = _state(name, changes, to)
        now = document.body if document is not None else None
        facts: dict[str, Any] = {
            "model": name,
            "to_revision": revision,
            "changes": difference_lines(now, wanted),
            "written": False,
        }
        change = _change(name, document, wanted)
        if not as_json:
            _tell(name, facts, wanted)
        if change is None or dry_run:
            return facts
        _confirm(f'Roll "{name}" back to revision {revision}?', yes=yes)
        facts["generation"] = await registry.write(
            change, author=console.author_name(by), reason=reason or f"rollback to revision {revision}"
        )
        facts["written"] = True
        return facts

    facts = console.with_registry(registry_url, work)
    if as_json:
        console.print_json(facts)
    elif facts["written"]:
        console.say("written", f"generation {facts['generation']}")
    elif dry_run:
        console.say("dry run", "nothing was written", style="bold yellow")


def _state(name: str, changes: tuple[Change, ...], to: int | None) -> tuple[dict[str, Any] | None, int]:
    """The model's document at the revision that is wanted (None: it was deleted then), and that revision."""
    if not changes:
        raise Failure(
            f'nothing is known of "{name}"', hint="`chips models` lists the models", code=EX_DATAERR
        )
    if to is None:
        before = changes[0]
        if before.revision == 1:
            raise Failure(
                f'"{name}" has only one revision', hint=f"chips deregister {name} removes it", code=EX_DATAERR
            )
        return before.before, before.revision - 1
    for change in changes:
        if change.revision == to:
            return change.after, to
    raise Failure(
        f'"{name}" has no revision {to}',
        hint=f"it has {changes[-1].revision} to {changes[0].revision}: chips history {name}",
        code=EX_DATAERR,
    )


def _change(name: str, document: Document | None, wanted: dict[str, Any] | None) -> Put | Delete | None:
    expected = document.revision if document is not None else 0
    if wanted is None:
        return None if document is None else Delete(kind=MODELS, name=name, expected=expected)
    if document is not None and not document.problem and document.body == wanted:
        return None
    try:
        parse_model(wanted)
    except ValueError as error:
        raise Failure(f"that revision cannot be used: {error}", code=EX_DATAERR) from None
    return Put(kind=MODELS, name=name, body=wanted, expected=expected)


def _tell(name: str, facts: dict[str, Any], wanted: dict[str, Any] | None) -> None:
    revision = facts["to_revision"]
    if not facts["changes"]:
        console.say(name, f"is as it was at revision {revision}; there is nothing to change")
    elif wanted is None:
        console.say(name, f"had been deregistered at revision {revision}")
    else:
        console.say(name, f"back to revision {revision}:")
        for line in facts["changes"]:
            console.say("", line)


def _confirm(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise Failure("this must be confirmed", hint="add --yes", code=EX_USAGE)
    typer.confirm(question, abort=True, err=True)
