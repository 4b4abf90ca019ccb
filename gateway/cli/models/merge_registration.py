"""Merge a backend's registration into its model's registry entry.

The entry is made of what was asked and of what the backend says, shown, and written.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from gateway.cli.models.backend_inspection import (
    RegistrationReporter,
    RegistrationRequest,
    probe_backend,
)
from gateway.cli.support import console
from gateway.cli.support.backend_probe import ModelMetadata
from gateway.cli.support.check_evidence_before_traffic import (
    check_verified,
    newly_served_versions,
    why_unverified,
)
from gateway.cli.support.console import EX_DATAERR, Failure
from gateway.cli.support.read_published_artifact import published_card
from gateway.core.model import Backend, Model, Resources, model_problems
from gateway.core.model_updates import differences, merge_document, with_backend
from gateway.core.version_evidence import CARD, VERIFY, EvidenceRecord, backend_predict_url
from gateway.registry.base import MODELS, Document, Put, Registry
from gateway.registry.evidence_records import evidence_change, read_evidence
from gateway.settings import Settings

_OUR_PATH = "/predict"


class Verification(NamedTuple):
    """The result of a verification of the backend. It is kept with the registration."""

    passed: bool
    summary: str
    facts: dict[str, Any]
    image: str = ""


class RegisteredVersion(NamedTuple):
    """The version that was registered, with its model. The model is as written, or as it would be written."""

    model: Model
    version: str


async def register_backend(
    settings: Settings,
    requested: RegistrationRequest,
    *,
    author: str,
    reason: str,
    headers: Mapping[str, str],
    verified: Verification | None = None,
) -> dict[str, Any]:
    """Register a backend in the registry of `settings`.

    It prints nothing, and returns what was written: `generation`, `traffic`, `access`, `changes`. Raises Failure.
    """
    report = RegistrationReporter(json_at_end=True)
    metadata = await probe_backend(requested, 10.0, report, headers)
    async with console.open_guarded_registry(settings) as registry:
        outcome = await merge_registration(
            registry,
            requested,
            metadata,
            report,
            author,
            reason,
            dry_run=False,
            verified=verified,
            store=settings.artifacts,
        )
    model = outcome.model
    return {**report.facts, "traffic": dict(model.traffic), "access": model.policy.access}


async def merge_registration(
    registry: Registry,
    requested: RegistrationRequest,
    metadata: ModelMetadata | None,
    report: RegistrationReporter,
    author: str,
    reason: str,
    *,
    dry_run: bool,
    verified: Verification | None = None,
    force: bool = False,
    store: str = "",
) -> RegisteredVersion:
    """Merge the registration into the model's document in the registry.

    It reports the changes, and writes the document unless `dry_run`. What was `verified` is written with it, as evidence,
    and the model card of its artifact, where `store` or this machine has it. A version that was not verified gets traffic
    only by `force`, which the history says. Raises Failure.
    """
    document = await registry.read(MODELS, requested.name)
    model, version = _wanted(requested, metadata, document)
    body = merge_document(document.body if document is not None else None, model)
    changes = differences(document.body if document is not None else None, body)
    report.tell(
        requested.name,
        "new model"
        if document is None
        else f"revision {document.revision}" + ("" if changes else ", unchanged"),
        model=requested.name,
        version=version,
        url=requested.url,
        changes=[{"path": path, "before": before, "after": after} for path, before, after in changes],
        written=False,
        live=False,
    )
    for path, before, after in changes:
        report.tell(
            "",
            f"{path}: {console.short_value(before)} → {console.short_value(after)}"
            if before is not None
            else f"{path}: {console.short_value(after)}",
        )
    outcome = RegisteredVersion(model, version)
    before = console.read_model(document) if document is not None else None
    if verified is None and version in newly_served_versions(before, model):
        forced = await check_verified(registry, model, [version], force=force)
        reason = "; ".join(filter(None, (reason, forced)))
    if dry_run:
        report.tell("dry run", "nothing was written", style="bold yellow")
    evidence = [
        *await _evidence(registry, outcome, verified, changed=bool(changes)),
        *await model_card_evidence_changes(registry, model, version, store),
    ]
    if dry_run or not (changes or evidence):
        return outcome
    expected = document.revision if document is not None else 0
    entry = [Put(kind=MODELS, name=requested.name, body=body, expected=expected)] if changes else []
    generation = await registry.write(*entry, *evidence, author=author, reason=reason)
    report.tell(
        "written",
        f"generation {generation}",
        written=True,
        generation=generation,
        traffic=dict(model.traffic),
    )
    return outcome


async def _evidence(
    registry: Registry, outcome: RegisteredVersion, verified: Verification | None, *, changed: bool
) -> list[Put]:
    """The record of the verification; not again where the same is known and nothing else changes."""
    backend = outcome.model.backend(outcome.version)
    if verified is None or backend is None:
        return []
    name = outcome.model.name
    if not changed and verified.passed and not await why_unverified(registry, name, backend):
        return []
    record = EvidenceRecord(
        model=name,
        version=outcome.version,
        sort=VERIFY,
        passed=verified.passed,
        summary=verified.summary,
        backend=backend_predict_url(backend),
        artifact_digest=backend.artifact_digest,
        image=verified.image or backend.image,
        facts=verified.facts,
    )
    return [await evidence_change(registry, record)]


async def model_card_evidence_changes(
    registry: Registry, model: Model, version: str, store: str
) -> list[Put]:
    """The changes that write the version's model card as evidence. There are none where it has none, or the same is known."""
    backend = model.backend(version)
    record = None if backend is None else published_card(store, model.name, backend)
    if record is None or record == await read_evidence(registry, model.name, version, CARD):
        return []
    return [await evidence_change(registry, record)]


def _wanted(
    requested: RegistrationRequest, metadata: ModelMetadata | None, document: Document | None
) -> tuple[Model, str]:
    """The model as it will be, and the version that this is about. Raises Failure."""
    model = console.read_model(document) if document is not None else Model(name=requested.name)
    version = requested.version or (metadata.versions[0] if metadata is not None else "")
    known = model.backend(version)
    before = known or Backend(version=version, url=requested.url)
    fields = {
        **(_said(metadata) if metadata is not None else {}),
        "url": requested.url,
        **_given(requested.backend),
    }
    if "resources" in fields:
        fields["resources"] = msgspec.structs.replace(before.resources or Resources(), **fields["resources"])
    if metadata is not None and known is not None and known.platform not in {"", metadata.platform}:
        # Another kind of server took its place. Only one that is not of CHIPS has a path by now.
        fields.setdefault("predict_path", _OUR_PATH)
    if fields.get("artifact", before.artifact) != before.artifact:
        fields.setdefault("artifact_digest", "")  # the one that is known belongs to another artifact
    backend = msgspec.structs.replace(before, **fields)
    policy = msgspec.structs.replace(model.policy, **_given(requested.policy))
    model = msgspec.structs.replace(model, policy=policy, **_given(requested.model))
    try:
        model = with_backend(model, backend, requested.traffic)
    except ValueError as error:
        raise Failure(
            str(error), hint=f"the traffic now: {console.short_value(dict(model.traffic))}", code=EX_DATAERR
        ) from None
    problems = model_problems(model)
    if problems:
        raise Failure("; ".join(problems), code=EX_DATAERR)
    return model, version


def _said(metadata: ModelMetadata) -> dict[str, Any]:
    """What the backend says of itself; what it does not say stays as it is."""
    said = {
        "concurrency": metadata.integer_parameter("concurrency"),
        "artifact": metadata.text_parameter("artifact"),
        "artifact_digest": metadata.text_parameter("artifact_digest"),
        "platform": metadata.platform,
        "inputs": metadata.inputs,
        "outputs": metadata.outputs,
    }
    return {name: value for name, value in said.items() if value}


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
