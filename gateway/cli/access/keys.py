"""`chips keys`: create, rotate, list and revoke API keys. A key is shown once and kept as a digest."""

import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
import typer

from gateway.cli.access.key_display import key_lines, key_state
from gateway.cli.support import console
from gateway.cli.support.console import EX_DATAERR, Failure
from gateway.core.api_key_document import Key, parse_key
from gateway.core.api_keys import digest_key, key_id, make_key
from gateway.core.budget import budget_id
from gateway.core.model import network_and_quota_problems
from gateway.core.model_updates import to_document
from gateway.core.name_validation import check_model_glob, check_team
from gateway.core.principal import VERBS, Verb
from gateway.core.suggestions import suggest
from gateway.registry.base import (
    BUDGETS,
    KEY_USES,
    KEYS,
    REVOCATIONS,
    Delete,
    Document,
    Put,
    Registry,
    now_rfc3339,
)

keys = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)

_PERIOD = re.compile(r"(\d+)([dh])")


@keys.command()
def create(
    label: Annotated[str, typer.Argument(help="Whose key it is, or what for; shown in lists.")],
    models: Annotated[
        list[str], typer.Option("--models", help="Name pattern of models it may call; may be repeated.")
    ] = ["*"],  # noqa: B006  (typer's way to say it)
    team: Annotated[
        str, typer.Option(help="Team that pays for its calls, in `chips cost` and in budgets.")
    ] = "",
    expires: Annotated[str | None, typer.Option(help="When it ends: 90d, 12h or 2027-01-31.")] = None,
    verbs: Annotated[
        list[str],
        typer.Option(
            "--verbs",
            help="What it may do: score, metadata, pin (choose the version by X-Chips-Version), operate (console and "
            "metrics); may be repeated.",
        ),
    ] = ["score", "metadata"],  # noqa: B006
    network: Annotated[
        list[str] | None, typer.Option(help="Network it may be used from; may be repeated.")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Requests per second.")] = None,
    burst: Annotated[
        int | None, typer.Option(help="Requests at once after a pause; otherwise what one second allows.")
    ] = None,
    max_in_flight: Annotated[int | None, typer.Option(help="Requests under way at once.")] = None,
    per_day: Annotated[int | None, typer.Option(help="Requests per day (UTC).")] = None,
    per_month: Annotated[int | None, typer.Option(help="Requests per month (UTC).")] = None,
    note: Annotated[str, typer.Option(help="Anything else worth knowing about it.")] = "",
    by: console.AuthorOption = None,
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Create a key and print it.

    It is shown this once. Nothing else is printed on standard output, so it can be captured.

    Example: `KEY=$(chips keys create "mobile app" --models wine --expires 90d)`
    """
    for pattern in models:
        try:
            check_model_glob(pattern)
        except ValueError as error:
            raise Failure(str(error), hint="repeat --models for several", code=EX_DATAERR) from None
    if team:
        try:
            check_team(team)
        except ValueError as error:
            raise Failure(str(error), code=EX_DATAERR) from None
    key = make_key()
    digest = digest_key(key)
    author = console.author_name(by)
    entry = Key(
        label=label,
        team=team,
        models=tuple(models),
        created=now_rfc3339(),
        created_by=author,
        expires=None if expires is None else _expiry(expires),
        verbs=_verbs(verbs),
        networks=tuple(network or ()),
        requests_per_s=rate,
        burst=burst,
        max_in_flight=max_in_flight,
        requests_per_day=per_day,
        requests_per_month=per_month,
        note=note,
    )
    problems = network_and_quota_problems(entry)
    if problems:
        raise Failure("; ".join(problems), code=EX_DATAERR)

    async def work(registry: Registry) -> int:
        change = Put(kind=KEYS, name=digest, body=to_document(entry), expected=0)
        return await registry.write(change, author=author)

    console.with_registry(registry_url, work)
    _hand_over(key, entry, as_json=as_json)


def _verbs(given: list[str]) -> tuple[Verb, ...]:
    unknown = [verb for verb in given if verb not in VERBS]
    if unknown:
        raise Failure(
            f"there is no verb {unknown[0]!r}",
            hint=f"known are {', '.join(VERBS)}; repeat --verbs",
            code=EX_DATAERR,
        )
    return tuple(verb for verb in VERBS if verb in given)


def _hand_over(key: str, entry: Key, *, as_json: bool) -> None:
    """Print a new key, this once."""
    identifier = key_id(digest_key(key))
    if as_json:
        shown = msgspec.to_builtins(entry)
        console.print_json({"key": key, "id": identifier, "expires": None, **shown})
        return
    sys.stdout.write(key + "\n")
    ends = f", until {entry.expires}" if entry.expires is not None else ""
    console.note(
        f"key {identifier} for {', '.join(entry.models)}{ends}; it is not shown again, only its digest is kept"
    )


@keys.command()
def rotate(
    identifier: Annotated[str, typer.Argument(metavar="ID", help="The id in `chips keys list`.")],
    overlap: Annotated[
        str, typer.Option(help="How long the old one goes on: 24h, 7d; 0 ends it at once.")
    ] = "24h",
    expires: Annotated[
        str | None,
        typer.Option(help="When the new one ends; otherwise it lasts as long as the old one was to."),
    ] = None,
    reason: console.ReasonOption = "",
    by: console.AuthorOption = None,
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Replace a key by a new one with the same rights and limits.

    The old one ends after a while. Prints the new one, once.

    Example: `KEY=$(chips keys rotate 3f0c2b1a9d8e --overlap 7d)`
    """
    new_key = make_key()
    author = console.author_name(by)
    at_once = overlap == "0"
    old_ends = now_rfc3339() if at_once else _expiry(overlap)
    new_ends = None if expires is None else _expiry(expires)

    async def work(registry: Registry) -> Key:
        document = await find_key(registry, identifier)
        try:
            old = parse_key(document.body)
        except ValueError as error:
            raise Failure(
                f"that key cannot be read: {error}", hint="make a new one", code=EX_DATAERR
            ) from None
        if key_state(old) != "valid":
            raise Failure(
                f"key {key_id(document.name)} is {key_state(old)}", hint="make a new one", code=EX_DATAERR
            )
        new = msgspec.structs.replace(
            old,
            created=now_rfc3339(),
            created_by=author,
            expires=new_ends or _renewed(old),
            replaces=key_id(document.name),
        )
        ends = old_ends if old.expires is None else min(old.expires, old_ends)
        changes: list[Put | Delete] = [
            Put(kind=KEYS, name=digest_key(new_key), body=to_document(new), expected=0),
            Put(
                kind=KEYS,
                name=document.name,
                body={**document.body, **({"revoked": old_ends} if at_once else {"expires": ends})},
                expected=document.revision,
            ),
        ]
        if at_once:
            changes.append(Put(kind=REVOCATIONS, name=document.name, body={"at": old_ends}, expected=0))
        changes += await _budget_of_successor(registry, key_id(document.name), key_id(digest_key(new_key)))
        await registry.write(*changes, author=author, reason=reason or f"replaces {key_id(document.name)}")
        return new

    _hand_over(new_key, console.with_registry(registry_url, work), as_json=as_json)


async def _budget_of_successor(registry: Registry, old: str, new: str) -> list[Put]:
    """A budget is of a key's id: the key that replaces another one gets the same, or it could spend what it likes."""
    document = await registry.read(BUDGETS, budget_id("key", old))
    if document is None or document.problem:
        return []
    name = budget_id("key", new)
    return [Put(kind=BUDGETS, name=name, body={**document.body, "name": new}, expected=0)]


def _renewed(old: Key) -> str | None:
    """The end of a key that replaces `old`: as long after now as that one was made for."""
    if old.expires is None:
        return None
    lasts = datetime.fromisoformat(old.expires) - datetime.fromisoformat(old.created)
    return _text(datetime.now(UTC) + lasts)


def _text(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


@keys.command("list")
def list_keys(registry_url: console.RegistryOption = None, as_json: console.JsonOption = False) -> None:
    """List the keys, with their rights and limits.

    The key itself is never shown.

    Example: `chips keys list`
    """

    async def work(registry: Registry) -> tuple[tuple[Document, ...], dict[str, str]]:
        uses = {use.name: str(use.body.get("at", "")) for use in await registry.list(KEY_USES)}
        return await registry.list(KEYS), uses

    documents, uses = console.with_registry(registry_url, work)
    if as_json:
        console.print_json(
            [{**_listed(document), "last_used": uses.get(document.name)} for document in documents]
        )
        return
    if not documents:
        console.out.print("no keys yet; make one: chips keys create LABEL")
        return
    for document in documents:
        for line in key_lines(document, uses.get(document.name)):
            console.out.print(line, soft_wrap=False)


@keys.command()
def revoke(
    identifier: Annotated[str, typer.Argument(metavar="ID", help="The id in `chips keys list`.")],
    reason: console.ReasonOption = "",
    by: console.AuthorOption = None,
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Revoke a key.

    It ends at once, at every gateway.

    Example: `chips keys revoke 3f0c2b1a9d8e --reason "laptop stolen"`
    """

    async def work(registry: Registry) -> str:
        document = await find_key(registry, identifier)
        # Its body is not parsed: also a key whose document is broken must be possible to end.
        revoked = document.body.get("revoked")
        if revoked is not None:
            raise Failure(f"key {key_id(document.name)} has been revoked already, {revoked}", code=EX_DATAERR)
        at = now_rfc3339()
        body = {**document.body, "revoked": at}
        # Both or neither: the key's own state for lists and later reads, the revocation for gateways that know the key.
        await registry.write(
            Put(kind=KEYS, name=document.name, body=body, expected=document.revision),
            Put(kind=REVOCATIONS, name=document.name, body={"at": at}, expected=0),
            author=console.author_name(by),
            reason=reason,
        )
        return document.name

    digest = console.with_registry(registry_url, work)
    if as_json:
        console.print_json({"id": key_id(digest), "state": "revoked"})
    else:
        console.say("revoked", key_id(digest))


async def find_key(registry: Registry, identifier: str) -> Document:
    """Find a key's document in the registry.

    `identifier` is the key's id, the first four or more characters of it, or the key itself. Raises Failure.
    """
    wanted = digest_key(identifier) if identifier.startswith("chips_") else identifier.lower()
    documents = await registry.list(KEYS)
    found = [document for document in documents if document.name.startswith(wanted)]
    if len(wanted) < 4 or not found:
        known = {key_id(document.name): document.body.get("label") for document in documents}
        labelled = [name for name, label in known.items() if label == identifier]
        near = f"; that is the label of {', '.join(labelled)}" if labelled else suggest(wanted, known)
        raise Failure(
            f"there is no key {identifier[:12]}{near}",
            hint="`chips keys list` shows their ids",
            code=EX_DATAERR,
        )
    if len(found) > 1:
        raise Failure(f"{len(found)} keys begin with {identifier}", hint="give more digits", code=EX_DATAERR)
    return found[0]


def _expiry(text: str) -> str:
    """RFC 3339 from `90d`, `12h` or a date."""
    period = _PERIOD.fullmatch(text)
    now = datetime.now(UTC)
    try:
        if period is not None:
            amount = int(period[1])
            at = now + (timedelta(days=amount) if period[2] == "d" else timedelta(hours=amount))
        else:
            at = datetime.fromisoformat(text)
            at = (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Failure(
            f"{text!r} is not a time", hint="write 90d, 12h or 2027-01-31", code=EX_DATAERR
        ) from None
    if at <= now:
        raise Failure(f"{text} is in the past", code=EX_DATAERR)
    return _text(at)


def _listed(document: Document) -> dict[str, Any]:
    name = key_id(document.name)
    try:
        key = parse_key(document.body)
    except ValueError as error:
        return {"id": name, "state": "unreadable", "problem": str(error)}
    return {"id": name, "state": key_state(key), **msgspec.to_builtins(key)}
