"""`chips evidence`: show the evidence about a version.

It is verification, verdicts and the model card, bound to the version's artifact and image.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import typer

from gateway.artifacts.model_card_sections import read_card_sections
from gateway.cli.support import console
from gateway.cli.support.console import EX_DATAERR, EX_USAGE, Failure
from gateway.core.version_evidence import CARD, VERIFY, verdict_sample_size, why_evidence_does_not_apply
from gateway.registry.base import EVIDENCE, Change, Registry
from gateway.registry.evidence_records import list_evidence


def evidence(
    which: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="The model and the version.")],
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Show the evidence about a version.

    It is verification, the verdicts of rollout and shadow, the model card, and what they are about.

    A record that is about another artifact or address than the one that is registered now is marked: it does not count.

    Example: `chips evidence wine@4`
    """
    name, at, version = which.partition("@")
    if not at or not name or not version:
        raise Failure(f"{which!r} is not NAME@VERSION", hint="such as wine@4", code=EX_USAGE)

    async def work(registry: Registry) -> list[dict[str, Any]]:
        _, model = await console.find_model(registry, name)
        backend = model.backend(version)
        if backend is None:
            known = ", ".join(known.version for known in model.backends)
            raise Failure(f'"{name}" has no version {version}', hint=f"it has {known}", code=EX_DATAERR)
        found = []
        for record in await list_evidence(registry, name, version):
            changes = await registry.history(kind=EVIDENCE, name=record.name, limit=1)
            found.append(
                {
                    **msgspec.to_builtins(record),
                    "counts": not why_evidence_does_not_apply(record, backend),
                    "why_not": why_evidence_does_not_apply(record, backend),
                    **_written(changes),
                }
            )
        return found

    found = console.with_registry(registry_url, work)
    if as_json:
        console.print_json(found)
        return
    for one in found:
        _print_record(one)
    if not found:
        console.out.print(f"nothing is known of {which}: chips register verifies it")


def _print_record(one: Mapping[str, Any]) -> None:
    outcome = "passed" if one["passed"] else "failed"
    style = (
        "bold green" if one["passed"] and one["counts"] else "bold yellow" if one["passed"] else "bold red"
    )
    console.say(one["sort"], f"{outcome}: {one['summary']}", style=style)
    print_requests_behind(one)
    console.say(
        "", f"about {one['backend']} {one.get('artifact_digest', '')} {one.get('image', '')}".rstrip()
    )
    if one["at"]:
        console.say("", f"{one['at']} by {one['by']}")
    if one["why_not"]:
        console.say("", f"does not count: {one['why_not']}", style="bold yellow")
    for name, why in one.get("facts", {}).get("why", {}).items() if one["sort"] == VERIFY else ():
        console.say("", f"{one['facts'].get('checks', {}).get(name, '')} {name}: {why}")
    if one["sort"] == CARD:
        print_card_sections(one.get("facts", {}))


def print_requests_behind(record: Mapping[str, Any]) -> None:
    """Print how many requests a verdict rests on.

    The verdict is of a rollout or shadow. Few requests are printed as a warning.
    """
    behind = verdict_sample_size(record)
    if behind is not None:
        console.say("warning" if behind.too_few else "", str(behind), style="bold yellow")


def print_card_sections(facts: Mapping[str, Any]) -> None:
    """Print the sections of a model card. The Markdown is not rendered, and unprintable characters are escaped."""
    for section in read_card_sections(facts):
        console.say("", f"## {section.heading}")
        for line in section.text.split("\n"):
            console.say("", f"   {line}")


def _written(changes: tuple[Change, ...]) -> dict[str, str]:
    return {"at": changes[0].at, "by": changes[0].author} if changes else {"at": "", "by": ""}
