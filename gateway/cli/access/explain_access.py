"""`chips explain-access`: explain why a caller may or may not call a model."""

from collections.abc import Iterator
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Annotated, Literal, NamedTuple

import typer

from gateway.cli.access.key_display import limit_texts
from gateway.cli.access.keys import find_key
from gateway.cli.support import console
from gateway.cli.support.console import EX_DATAERR, Failure
from gateway.core.api_key_document import Key, parse_key
from gateway.core.api_keys import key_id
from gateway.core.compiled_model_policy import principal_from_rule
from gateway.core.ip_network_set import Address, Network, NetworkSet, parse_address, parse_network
from gateway.core.model import Model, NetworksAndQuotas, Policy
from gateway.core.principal import CALLER_VERBS, OPERATE, Principal, Verb
from gateway.core.token_and_certificate_rules import ForwardedCertificateRule, IssuerRule, apply_preset
from gateway.registry.base import NETWORKS, Document, Registry
from gateway.settings import Settings
from gateway.stages.gateway_ip_allowlist import LOOPBACK

EX_NO = 1


class AccessReason(NamedTuple):
    """One reason for or against access. It says whether it allows or refuses, what it is about, and the text."""

    allowed: bool
    about: str
    text: str


def _for(about: str, text: str) -> AccessReason:
    return AccessReason(allowed=True, about=about, text=text)


def _against(about: str, text: str) -> AccessReason:
    return AccessReason(allowed=False, about=about, text=text)


def explain_access(
    identifier: Annotated[
        str,
        typer.Argument(
            metavar="KEY",
            help="The id in `chips keys list`, the key itself, `none`, or a token's or certificate's NAME:SUBJECT.",
        ),
    ],
    model_name: Annotated[
        str, typer.Argument(metavar="MODEL", help="The model; `*` for the gateway as a whole.")
    ],
    verb: Annotated[
        Literal["score", "metadata", "pin", "operate"], typer.Option(help="What it is to be used for.")
    ] = "score",
    address: Annotated[
        str | None, typer.Option("--from", help="The caller's address; otherwise addresses are not judged.")
    ] = None,
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Explain why a caller may or may not do something to a model.

    Every reason is listed. Ends with 1 where the caller may not. Callers with tokens or certificates are judged by the settings here,
    which should be the gateway's.

    Examples:

    `chips explain-access 3f0c2b1a9d8e wine --from 192.0.2.7`

    `chips explain-access people:ana@example.com wine`
    """
    at = None if address is None else parse_address(address)
    if address is not None and at is None:
        raise Failure(f"{address!r} is not an address", code=EX_DATAERR)
    settings = console.settings_for(registry_url)

    ruled = _rule(settings, identifier)

    async def work(registry: Registry) -> list[AccessReason]:
        document = None
        if ruled is None and identifier != "none":
            document = await find_key(registry, identifier)
        model = None
        if model_name != "*":
            _, model = await console.find_model(registry, model_name)
        listed = [found.body.get("network") for found in await registry.list(NETWORKS)]
        return list(access_reasons(settings, listed, document or ruled, model, verb, at))

    found = console.with_registry(registry_url, work)
    allowed = all(reason.allowed for reason in found)
    if as_json:
        console.print_json({"allowed": allowed, "reasons": [reason._asdict() for reason in found]})
    else:
        for reason in found:
            console.say(reason.about, reason.text, style="bold green" if reason.allowed else "bold red")
        console.say("so", "yes" if allowed else "no", style="bold")
    if not allowed:
        raise typer.Exit(EX_NO)


def access_reasons(
    settings: Settings,
    listed: list[object],
    shown: "Document | MatchedCredentialRule | None",
    model: Model | None,
    verb: Verb,
    address: Address | None,
) -> Iterator[AccessReason]:
    """Every reason for and against access. They come in the order in which the gateway checks.

    It goes on after a "no", so that the reader sees everything that must be fixed.
    """
    if address is not None:
        yield _admitted(settings, listed, address)
    if model is not None and not model.enabled:
        yield _against("model", f"{model.name} is disabled")
    public = model is not None and model.policy.access == "public" and verb in CALLER_VERBS
    report_only = settings.edge.report_only
    if shown is None:
        text = f"{model.name} takes callers without a key" if public and model else "a key is needed"
        yield AccessReason(public, "key", text)
    elif isinstance(shown, MatchedCredentialRule):
        yield from _of_entry(shown, model, verb, address, public=public, report_only=report_only)
    else:
        yield from _of_key(shown, model, verb, address, public=public, report_only=report_only)
    if model is not None:
        yield from _of_model(model.policy, address, report_only=report_only)


class MatchedCredentialRule(NamedTuple):
    """The rule for tokens or client certificates that a caller matches, with the subject of the caller's credential.

    The rule is an entry of `auth.issuers` or `auth.certificates` in the settings.
    """

    entry: IssuerRule | ForwardedCertificateRule
    subject: str


def _rule(settings: Settings, identifier: str) -> MatchedCredentialRule | None:
    """Raises Failure where it is a NAME:SUBJECT that no entry lets in."""
    name, colon, subject = identifier.partition(":")
    if not colon:
        return None
    entries: tuple[IssuerRule | ForwardedCertificateRule, ...] = (
        *map(apply_preset, settings.auth.issuers),
        *settings.auth.certificates,
    )
    for entry in entries:
        if entry.name == name and any(fnmatchcase(subject, pattern) for pattern in entry.subjects):
            return MatchedCredentialRule(entry, subject)
    raise Failure(
        f"no entry of auth.issuers or auth.certificates is called {name} and lets {subject} in",
        hint="`chips check` shows the settings that are in force here",
        code=EX_DATAERR,
    )


def _of_entry(
    ruled: MatchedCredentialRule,
    model: Model | None,
    verb: Verb,
    address: Address | None,
    *,
    public: bool,
    report_only: bool,
) -> Iterator[AccessReason]:
    entry = ruled.entry
    groups = entry.groups if isinstance(entry, IssuerRule) else ()
    where = f", where the token names a group {' or '.join(groups)}" if groups else ""
    yield _for("rule", f"{entry.name} lets {', '.join(entry.subjects)} in{where}")
    if entry.networks and address is not None:
        yield _from(entry.networks, address, "rule", "used", report_only=report_only)
    yield _rights(principal_from_rule(entry, ruled.subject), model, verb, public=public)
    yield from _limits("each", entry)


def _admitted(settings: Settings, listed: list[object], address: Address) -> AccessReason:
    own = [parse_network(network) for network in settings.edge.networks] or list(LOOPBACK)
    for where, networks in (("the settings", own), ("the registry", list(_readable(listed)))):
        for network in networks:
            if address in NetworkSet([network]):
                return _for("allowlist", f"{address} is in {network}, by {where}")
    report_only = "; but edge.report_only lets it pass" if settings.edge.report_only else ""
    return AccessReason(
        settings.edge.report_only,
        "allowlist",
        f"{address} is in no admitted network{report_only}: chips networks add {address}",
    )


def _of_key(
    document: Document,
    model: Model | None,
    verb: Verb,
    address: Address | None,
    *,
    public: bool,
    report_only: bool,
) -> Iterator[AccessReason]:
    name = key_id(document.name)
    try:
        key = parse_key(document.body)
    except ValueError as error:
        yield _against("key", f"{name} cannot be read: {error}")
        return
    yield _state(name, key)
    if key.networks and address is not None:
        yield _from(key.networks, address, "key", "used", report_only=report_only)
    yield _rights(Principal(id=name, models=key.models, verbs=key.verbs), model, verb, public=public)
    yield from _limits("key", key)


def _rights(principal: Principal, model: Model | None, verb: Verb, *, public: bool) -> AccessReason:
    if public and model is not None:
        return _for("rights", f"anybody may {verb} {model.name}")
    what = "the gateway as a whole" if model is None else model.name
    about = f"this caller's rights are {', '.join(principal.verbs)} on {', '.join(principal.models)}"
    needed = "; the whole gateway needs operate on *" if model is None or verb == OPERATE else ""
    allowed = principal.may(verb, None if model is None else model.name)
    return AccessReason(allowed, "rights", f"may {'' if allowed else 'not '}{verb} {what}: {about}{needed}")


def _state(name: str, key: Key) -> AccessReason:
    if key.revoked is not None:
        return _against("key", f"{name} ({key.label}) was revoked, {key.revoked}")
    if key.expires is not None and datetime.fromisoformat(key.expires) <= datetime.now(UTC):
        return _against("key", f"{name} ({key.label}) expired, {key.expires}")
    ends = f" until {key.expires}" if key.expires is not None else ""
    return _for("key", f"{name} ({key.label}) is valid{ends}")


def _of_model(policy: Policy, address: Address | None, *, report_only: bool) -> Iterator[AccessReason]:
    if policy.networks and address is not None:
        yield _from(policy.networks, address, "model", "called", report_only=report_only)
    yield from _limits("model", policy)


def _from(
    given: tuple[str, ...], address: Address, about: str, done: str, *, report_only: bool
) -> AccessReason:
    within = address in NetworkSet(map(parse_network, given))
    report_only_refusals = "; but edge.report_only lets it pass" if report_only and not within else ""
    return AccessReason(
        within or report_only, about, f"it may be {done} from {', '.join(given)}{report_only_refusals}"
    )


def _limits(whose: str, limits: NetworksAndQuotas) -> Iterator[AccessReason]:
    if told := list(limit_texts(limits)):
        yield _for("limits", f"{whose}: {', '.join(told)}")


def _readable(listed: list[object]) -> Iterator[Network]:
    for text in listed:
        try:
            yield parse_network(str(text))
        except ValueError:
            continue  # it admits nobody at the gateway either
