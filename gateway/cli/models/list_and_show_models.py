"""`chips models` and `chips show`: list the registered models, and show one."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import typer

from gateway.artifacts.model_cards_from_registry import RegisteredCard, read_registered_cards
from gateway.cli.support import console
from gateway.core.model import Model, parse_model
from gateway.registry.base import MODELS, Document, Registry


def models(registry_url: console.RegistryOption = None, as_json: console.JsonOption = False) -> None:
    """List the models in the registry.

    Example: `chips models --json`
    """

    async def work(registry: Registry) -> tuple[Document, ...]:
        return await registry.list(MODELS)

    documents = console.with_registry(registry_url, work)
    if as_json:
        console.print_json([{"revision": document.revision, **document.body} for document in documents])
        return
    if not documents:
        console.out.print("no models yet; register one: chips register NAME URL")
        return
    from rich.table import Table

    table = Table("model", "versions (traffic)", "access", "owner", "description", box=None, pad_edge=False)
    for document in documents:
        table.add_row(*_row(document))
    console.out.print(table)


def _row(document: Document) -> tuple[str, ...]:
    try:
        model = parse_model(document.body)
    except ValueError as error:
        return (document.name, f"cannot be read: {error}", "", "", "")
    shares = ", ".join(f"{b.version} ({model.traffic.get(b.version, 0)} %)" for b in model.backends)
    state = model.policy.access if model.enabled else "disabled"
    return (model.name, shares, state, model.owner, model.description)


def show(
    name: Annotated[str, typer.Argument(help="The model.")],
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Show everything about one model.

    That includes who changed it last.

    Example: `chips show wine`
    """

    async def work(registry: Registry) -> tuple[Document, Any, list[RegisteredCard]]:
        document = await console.find_model_document(registry, name)
        changes = await registry.history(kind=MODELS, name=name, limit=1)
        model = _readable(document)
        cards = await read_registered_cards(registry, model) if model is not None else []
        return document, changes, cards

    document, changes, cards = console.with_registry(registry_url, work)
    last = changes[0] if changes else None
    if as_json:
        changed = {"at": last.at, "by": last.author, "reason": last.reason} if last is not None else None
        more = {"cards": msgspec.to_builtins(cards)} if cards else {}
        console.print_json({**document.body, **more, "revision": document.revision, "changed": changed})
        return
    _show(console.read_model(document), cards)
    if last is not None:
        why = f": {last.reason}" if last.reason else ""
        console.say("changed", f"revision {document.revision}, {last.at} by {last.author}{why}")


def _show(model: Model, cards: Sequence[RegisteredCard]) -> None:
    console.say(
        model.name, (model.description or "no description") + ("" if model.enabled else "  (disabled)")
    )
    console.say("owner", model.owner or "–")
    policy = model.policy
    limits = [f"{policy.timeout_s:g} s per request"]
    if policy.max_in_flight is not None:
        limits.append(f"{policy.max_in_flight} at once")
    if policy.body_limit_bytes is not None:
        limits.append(f"bodies up to {policy.body_limit_bytes} bytes")
    console.say(
        "access", f"{'no key needed' if policy.access == 'public' else 'with a key'}; {', '.join(limits)}"
    )
    for backend in model.backends:
        share = model.traffic.get(backend.version, 0)
        console.say(f"v {backend.version}", f"{share} % of the traffic, {backend.url}{backend.predict_path}")
        for label, text in (
            ("platform", backend.platform),
            ("runs", f"{backend.concurrency} at once" if backend.concurrency is not None else ""),
            ("artifact", backend.artifact),
            ("digest", backend.artifact_digest),
            ("inputs", ", ".join(f"{t.name} {t.datatype}" for t in backend.inputs)),
            ("outputs", ", ".join(f"{t.name} {t.datatype}" for t in backend.outputs)),
            ("card", _about_card([card for card in cards if card.version == backend.version])),
        ):
            if text:
                console.say("", f"{label:<9} {text}")


def _readable(document: Document) -> Model | None:
    try:
        return parse_model(document.body)
    except ValueError:
        return None


def _about_card(cards: Sequence[RegisteredCard]) -> str:
    return "".join(
        f"does not count: {card.why_not_applicable}" if card.why_not_applicable else card.summary
        for card in cards
    )
