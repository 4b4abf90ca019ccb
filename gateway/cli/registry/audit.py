"""`chips audit`: verify and export the registry's history.

It also anchors the history, and shows what served at a given time.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from gateway.audit.export_history import to_csv, to_html, to_json
from gateway.audit.model_states_at import ModelState, model_states_at, parse_time_with_zone
from gateway.audit.verify_history import AnchoredHead, HistoryReport, verify_history
from gateway.cli.support import console
from gateway.cli.support.console import EX_DATAERR, EX_USAGE, Failure
from gateway.cli.support.open_audit_from_settings import (
    configured_second_place,
    open_signer,
    read_second_place,
    read_trusted_pem_keys,
)
from gateway.registry.base import Registry
from gateway.settings import Settings

_FORMATS: Final = (".json", ".csv", ".html")


def audit(
    name: Annotated[str | None, typer.Argument(help="A model, with --at; otherwise all of them.")] = None,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="TIME", help="Show what served at this time, and who made it so."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check every entry, every document and every kept head.")
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option(
            "--export", metavar="FILE", help="Write the history, checked: FILE.json, .csv or .html."
        ),
    ] = None,
    anchor: Annotated[
        bool, typer.Option("--anchor", help="Sign the head of the history and keep it in the second place.")
    ] = False,
    restored: Annotated[
        bool,
        typer.Option(
            "--restored",
            help="Note in the second place that this registry was restored from a backup; needs --reason.",
        ),
    ] = False,
    reason: console.ReasonOption = "",
    by: console.AuthorOption = None,
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Audit the registry's history.

    Check it, show what served at a time, or export it. `--verify` ends with 1 where anything is wrong. Without the setting
    `audit.second_place` it cannot see a history that was rewritten or cut off as a whole.

    Examples:

    `chips audit --verify`

    `chips audit wine --at 2026-11-20T10:00Z`

    `chips audit --export history.html`
    """
    chosen = [bool(at), verify, export is not None, anchor, restored]
    if sum(chosen) != 1:
        raise Failure(
            "say what to do", hint="--at TIME, --verify, --export FILE, --anchor or --restored", code=EX_USAGE
        )
    if name is not None and not at:
        raise Failure("a model goes with --at", hint=f"chips history {name} shows its changes", code=EX_USAGE)
    settings = console.settings_for(registry_url)
    if at:
        _show_time(settings, name, at, as_json=as_json)
    elif verify:
        _verify(settings, as_json=as_json)
    elif export is not None:
        _export(settings, export, as_json=as_json)
    elif anchor:
        _anchor(settings, as_json=as_json)
    else:
        _note_restore(settings, reason, console.author_name(by), as_json=as_json)


def _with_registry(settings: Settings, work: Callable[[Registry], Awaitable[Any]]) -> Any:
    async def opened() -> Any:
        async with console.open_guarded_registry(settings) as registry:
            return await work(registry)

    return console.run_async(opened())


# -- what served


def _show_time(settings: Settings, name: str | None, text: str, *, as_json: bool) -> None:
    try:
        at = parse_time_with_zone(text)
    except ValueError as error:
        raise Failure(str(error), code=EX_USAGE) from None

    async def work(registry: Registry) -> tuple[list[ModelState], dict[str, list[str]]]:
        found = await model_states_at(registry, at, name)
        return found, await _approvals(registry, found, at)

    states, approvals = _with_registry(settings, work)
    if as_json:
        console.print_json([{**msgspec.to_builtins(one), "approvals": _of(one, approvals)} for one in states])
        return
    if not states:
        console.out.print(f"no model was registered at {text}")
    for state in states:
        _show_state(state, text, approvals)


def _of(state: ModelState, approvals: dict[str, list[str]]) -> dict[str, list[str]]:
    titles = {one.version: f"{state.name}@{one.version}" for one in state.served}
    return {version: approvals[title] for version, title in titles.items() if title in approvals}


async def _approvals(registry: Registry, states: list[ModelState], at: datetime) -> dict[str, list[str]]:
    """By MODEL@VERSION, who had signed for what served; nothing where the environment has no sign-off policy."""
    from gateway.signoff.read_sign_off_records import read_policy_and_records

    try:
        records = await read_policy_and_records(registry)
    except ValueError as error:
        console.note(f"who approved it cannot be shown: the sign-off policy cannot be read: {error}")
        return {}
    if records is None:
        return {}
    found: dict[str, list[str]] = {}
    for state in states:
        for one in state.served:
            title = f"{state.name}@{one.version}"
            signed = records.version_sign_offs_until(
                title=title,
                artifact=one.artifact_digest,
                image=one.image,
                url=one.url,
                until=at,
            )
            for request in sorted({request for request, _ in signed}):
                names = ", ".join(
                    s.person.name
                    + (" (EMERGENCY)" if s.predicate.decision == "emergency" else "")
                    + (f" (by the key {s.kept_key}, no longer published)" if s.kept_key else "")
                    for r, s in signed
                    if r == request
                )
                found.setdefault(title, []).append(f"approved by {names} (request {request})")
    return found


def _show_state(state: ModelState, at: str, approvals: dict[str, list[str]]) -> None:
    entry = state.entry
    if entry is None:
        console.say(state.name, f"was not registered at {at}")
        return
    why = f": {entry.reason}" if entry.reason else ""
    standing = "" if state.enabled else ", disabled" if entry.after is not None else ", deregistered"
    console.say(state.name, f"at {at}, revision {entry.revision}{standing}")
    console.say("entry", f"{entry.sequence or '–'}, {entry.at} by {entry.author}{why}")
    for served in state.served:
        console.say(f"v {served.version}", f"{served.percent} %  {served.url}")
        if served.artifact or served.artifact_digest:
            console.say("", f"artifact {served.artifact} {served.artifact_digest}".rstrip())
        if served.image:
            console.say("", f"image {served.image}")
        for line in approvals.get(f"{state.name}@{served.version}", ()):
            console.say("", line)
        for one in served.evidence:
            outcome = (
                f"does not count: {one.problem}" if one.problem else "passed" if one.passed else "failed"
            )
            console.say(
                "",
                f"evidence {one.sort} {outcome}: {one.summary} (entry {one.sequence or '–'}, {one.at} by {one.author})",
            )
        since = served.since
        console.say("", f"as such since entry {since.sequence or '–'}, {since.at} by {since.author}")


# -- whether it is what was written


async def _report(settings: Settings, registry: Registry) -> tuple[HistoryReport, dict[str, Any]]:
    """The check with what the second place knows, and the facts to print."""
    place, registry_id = configured_second_place(settings), settings.audit.registry_id
    if place is None:
        report = await verify_history(registry, registry_id=registry_id)
        return report, {**msgspec.to_builtins(report), "second_place": "", "concerns": [], "restored": []}
    anchors = await read_second_place(place, settings)
    report = await verify_history(registry, anchors.heads, registry_id=registry_id)
    report = msgspec.structs.replace(report, findings=(*report.findings, *anchors.findings))
    return report, {
        **msgspec.to_builtins(report),
        "second_place": str(place),
        "concerns": [
            *await place.retention_concerns(),
            *([] if registry_id else _other_registries(report, anchors.heads)),
        ],
        "restored": msgspec.to_builtins(
            [note for note in anchors.restored if note.registry_id == report.head.registry_id]
        ),
    }


def _other_registries(report: HistoryReport, heads: Sequence[AnchoredHead]) -> list[str]:
    others = sorted({head.registry_id for head in heads} - {report.head.registry_id})
    if not others:
        return []
    text = f"heads of {', '.join(others)} are kept there too: whether one of them was in this one's place before is not known"
    return [f"{text}; audit.registry_id={report.head.registry_id} says that this is the one"]


def _verify(settings: Settings, *, as_json: bool) -> None:
    report, facts = _with_registry(settings, lambda registry: _report(settings, registry))
    if as_json:
        console.print_json(facts)
    else:
        _show_report(report, facts)
    raise typer.Exit(1 if report.findings else 0)


def _show_report(report: HistoryReport, facts: dict[str, Any]) -> None:
    head = report.head
    console.say(
        "history", f"{report.entries} entries, {report.chained} in the chain, generation {head.generation}"
    )
    console.say("head", head.digest or "–")
    console.say("registry", head.registry_id)
    for note in facts["restored"]:
        console.say(
            "restored", f"{note['at']} by {note['by']}, {len(note['lost'])} kept heads lost: {note['reason']}"
        )
    if not facts["second_place"]:
        console.say(
            "no anchor",
            "nothing shows whether all of it was rewritten or its end cut off: set audit.second_place",
            style="bold yellow",
        )
    else:
        behind = head.sequence - report.anchored
        console.say(
            "anchored",
            f"up to entry {report.anchored} by {report.anchors} heads in {facts['second_place']}"
            + (f"; {behind} entries since" if behind > 0 else ""),
        )
    for concern in facts["concerns"]:
        console.say("concern", concern, style="bold yellow")
    for finding in report.findings:
        console.say(finding.what, finding.text, style="bold red")
    if not report.findings:
        console.say("intact", "nothing was edited, removed, moved or slipped in", style="bold green")


# -- for auditors


def _export(settings: Settings, file: Path, *, as_json: bool) -> None:
    if file.suffix not in _FORMATS:
        raise Failure(f"{file} has no known format", hint="name it .json, .csv or .html", code=EX_USAGE)

    async def work(registry: Registry) -> tuple[HistoryReport, str]:
        report, _ = await _report(settings, registry)
        entries = [entry async for entry in registry.history_entries_newest_first()]
        entries = [entry for entry in entries if entry.generation <= report.head.generation]
        return report, _formatted(file.suffix, report, entries)

    report, text = _with_registry(settings, work)
    try:
        file.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise Failure(f"{file} cannot be written: {error.strerror}", code=EX_DATAERR) from None
    if as_json:
        console.print_json({"file": str(file), "entries": report.entries, "findings": len(report.findings)})
        return
    console.say("exported", f"{report.entries} entries to {file}")
    if report.findings:
        console.say("findings", f"{len(report.findings)}: chips audit --verify", style="bold red")


def _formatted(suffix: str, report: HistoryReport, entries: list[Any]) -> str:
    if suffix == ".csv":
        return to_csv(entries)
    return to_html(report, entries) if suffix == ".html" else to_json(report, entries)


# -- the second place


def _anchor(settings: Settings, *, as_json: bool) -> None:
    from gateway.audit.anchors import write_anchor

    place, signer = _place(settings), open_signer(settings)
    head = _with_registry(settings, lambda registry: write_anchor(place, registry, signer))
    if as_json:
        console.print_json({"second_place": str(place), "head": msgspec.to_builtins(head)})
    elif head is None:
        console.out.print("the history has no entry yet, so there is no head to keep")
    else:
        console.say("kept", f"the head after entry {head.sequence} in {place}", style="bold green")


def _note_restore(settings: Settings, reason: str, by: str, *, as_json: bool) -> None:
    from gateway.audit.anchors import write_restore_note

    if not reason:
        raise Failure("a restore needs a reason", hint='--reason "…"', code=EX_USAGE)
    place, signer, keys = _place(settings), open_signer(settings), read_trusted_pem_keys(settings)
    note = _with_registry(
        settings, lambda registry: write_restore_note(place, registry, signer, keys, by=by, reason=reason)
    )
    if as_json:
        console.print_json(msgspec.to_builtins(note))
        return
    console.say(
        "noted",
        f"restored to entry {note.sequence}; {len(note.lost)} kept heads are lost",
        style="bold green",
    )


def _place(settings: Settings) -> Any:
    place = configured_second_place(settings)
    if place is None:
        raise Failure("there is no second place", hint="set audit.second_place", code=EX_USAGE)
    return place
