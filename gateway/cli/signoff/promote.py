"""`chips promote`: promote a version from one environment to another.

It goes by digests, and with the approvals that this needs.
"""

import sys
from collections.abc import Callable
from contextlib import closing
from typing import Annotated, Any, Final, NamedTuple, TypeVar

import msgspec
import typer

from gateway.artifacts.artifact_store_interface import ArtifactStore, StoreError
from gateway.artifacts.copy_artifact import copy_artifact, require_manifest_digest
from gateway.artifacts.open_store_by_url import open_store
from gateway.cli.artifacts.publish import store_failure
from gateway.cli.models.merge_registration import model_card_evidence_changes
from gateway.cli.registry.history import difference_lines
from gateway.cli.signoff.carry_over_verification import carry_over_verification
from gateway.cli.signoff.copy_promoted_image import copy_promoted_image, promoted_image_address
from gateway.cli.signoff.request_approval import (
    VersionWithEvidence,
    approvable_subject,
    read_version_with_evidence,
)
from gateway.cli.support import console
from gateway.cli.support.approval_signer_options import split_model_and_version
from gateway.cli.support.backend_credentials import HeaderOption, headers_or_id_token, parse_header
from gateway.cli.support.backend_probe import NotAChipsBackend, probe
from gateway.cli.support.check_evidence_before_traffic import ForceOption, check_verified
from gateway.cli.support.console import EX_DATAERR, EX_NOPERM, EX_USAGE, Failure
from gateway.cli.support.store_urls_by_environment import (
    artifact_store_or_default,
    image_repository_of_environment,
    resolve_registry_url,
)
from gateway.cli.support.transfer_progress import transfer_progress
from gateway.core.model import Backend, Model, check_backend_url, model_problems
from gateway.core.model_updates import merge_document, with_backend
from gateway.registry.base import MODELS, Document, Put, Registry
from gateway.settings import Settings, state_folder
from gateway.signoff.approval_requests import StoredPolicy
from gateway.signoff.approval_subject import subject_of
from gateway.signoff.enforce_policy import NotApproved, find_approval
from gateway.signoff.read_sign_off_records import read_policy, read_requests_and_keys

_WAIT_S: Final = 10.0

Result = TypeVar("Result")


class PromotionPlan(NamedTuple):
    """The plan of a promotion: what it will do."""

    source: VersionWithEvidence
    document: Document | None  # the model in the target's registry now
    model: Model  # as it will be there
    image: str  # its address there; empty where it has none
    approval: str  # by whose approvals, in words
    facts: dict[str, Any]


def promote(
    version: Annotated[str, typer.Argument(metavar="MODEL@VERSION", help="The version, such as wine@4.")],
    source: Annotated[
        str, typer.Option("--from", metavar="ENV", help="Where it is: a name, or a registry's URL.")
    ],
    to: Annotated[
        str, typer.Option("--to", metavar="ENV", help="Where it will be: a name, or a registry's URL.")
    ],
    url: Annotated[
        str | None, typer.Option("--url", help="Where its backend runs in the environment it goes to.")
    ] = None,
    copy_only: Annotated[
        bool,
        typer.Option(
            "--copy-only", help="Copy image and artifact and stop, so that its backend can be deployed there."
        ),
    ] = False,
    header: HeaderOption = None,
    no_probe: Annotated[
        bool, typer.Option("--no-probe", help="Do not ask that backend what it serves.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan; copy and write nothing.")
    ] = False,
    force: ForceOption = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    reason: console.ReasonOption = "",
    by: console.AuthorOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Promote a version from one environment to another.

    It checks the approvals and every digest, shows the plan, copies image and artifact, then registers the version.

    It carries digests, never tags: the image by its digest, the artifact by its manifest's, with contract and policy. The image is
    copied where the environment has a repository of its own (`images`). A backend that says that it serves another
    artifact is refused. Traffic stays as it is: `chips traffic` or `chips canary` shifts it.

    Example: `chips promote wine@4 --from qa --to prod --url https://wine-4-abc.a.run.app`
    """
    if url is None and not dry_run and not copy_only:
        raise Failure(
            "say where its backend runs there",
            hint="--url URL; or --copy-only before it is deployed, or --dry-run to see the plan",
            code=EX_USAGE,
        )
    name, number = split_model_and_version(version)
    origin, target = (console.settings_for(resolve_registry_url(env)) for env in (source, to))
    given = [parse_header(text) for text in header or []]
    stores, images = (
        (artifact_store_or_default(source, origin), artifact_store_or_default(to, target)),
        image_repository_of_environment(to),
    )

    async def work() -> PromotionPlan:
        async with console.open_guarded_registry(target) as registry:
            plan = await _plan(registry, origin, name, number, url or "", stores, images)
            _check_stores(plan, *stores)
            if not no_probe and url is not None and not copy_only:
                await _check_backend(plan.source, url.rstrip("/"), given)
            if not as_json:
                _show(plan, source, to)
            if dry_run:
                return plan
            verified: list[Put] = []
            if not (no_probe or copy_only):
                verified = await carry_over_verification(registry, origin, plan.source, plan.model, source)
            new = [] if verified or copy_only else _with_traffic(plan.model, number)
            note = await check_verified(registry, plan.model, new, force=force)
            _confirm(to, yes=yes)
            await _copy_image(plan, as_json=as_json)
            _copy(plan, *stores, as_json=as_json)
            if copy_only:
                return plan
            why = "; ".join(filter(None, (reason, f"promoted from {source}, {plan.approval}", note)))
            plan.facts["generation"] = await registry.write(
                _change(plan),
                *verified,
                *await model_card_evidence_changes(registry, plan.model, number, stores[1]),
                author=console.author_name(by),
                reason=why,
            )
            plan.facts["written"] = True
            return plan

    plan = console.run_async(work())
    if as_json:
        console.print_json(plan.facts)
    else:
        _show_outcome(plan, to, dry_run=dry_run)


async def _plan(
    registry: Registry,
    origin: Settings,
    name: str,
    version: str,
    url: str,
    stores: tuple[str, str],
    images: str,
) -> PromotionPlan:
    stored = await _policy(registry)
    policy = stored.policy if stored is not None else None
    source = await read_version_with_evidence(origin, stores[0], policy, name, version)
    approval = await _approval(registry, stored, source)
    document = await registry.read(MODELS, name)
    image = promoted_image_address(source.backend.image, images)
    model = _after(document, source, url, stores[1], image)
    before = document.body if document is not None else None
    facts: dict[str, Any] = {
        "model": name,
        "version": version,
        "image": image,
        "artifact_digest": source.backend.artifact_digest,
        "approval": approval,
        "changes": difference_lines(before, merge_document(before, model)),
        "written": False,
    }
    return PromotionPlan(source, document, model, image, approval, facts)


async def _policy(registry: Registry) -> StoredPolicy | None:
    try:
        return await read_policy(registry)
    except ValueError as error:
        raise Failure(f"the sign-off policy cannot be read: {error}", code=EX_NOPERM) from None


async def _approval(registry: Registry, stored: StoredPolicy | None, source: VersionWithEvidence) -> str:
    """By whose approvals the source, as it is now, may be promoted. Raises Failure."""
    environment = (await registry.head()).registry_id
    if stored is None:
        try:
            subject_of(source.model, source.backend, environment=environment, sign_off="", evidence={})
        except ValueError as error:
            raise Failure(f"{source.title} cannot be promoted: {error}", code=EX_DATAERR) from None
        return "no approvals asked for"
    subject = approvable_subject(source, stored, environment)
    try:
        found = find_approval(subject, await read_requests_and_keys(registry, stored), with_evidence=True)
    except NotApproved as error:
        raise Failure(
            str(error), hint="chips request-approval asks for what is missing", code=EX_NOPERM
        ) from None
    emergency = found.verdict.emergency
    if emergency is not None:
        return f"in an emergency by {emergency.person.name} (request {found.request.name})"
    names = ", ".join(signed.person.name for signed in found.verdict.approvals)
    return f"approved by {names} (request {found.request.name})"


def _after(document: Document | None, source: VersionWithEvidence, url: str, store: str, image: str) -> Model:
    """The model in the target's registry with the promoted version: its policy and contract are those of the source."""
    known = console.read_model(document) if document is not None else Model(name=source.model.name)
    try:
        address = check_backend_url(url) if url else source.backend.url
    except ValueError as error:
        raise Failure(str(error), code=EX_USAGE) from None
    before = known.backend(source.backend.version)
    backend = msgspec.structs.replace(
        source.backend,
        url=address,
        image=image,
        audience=before.audience if before is not None else "",
        artifact=_address(store, source)
        if source.backend.artifact_digest and store
        else source.backend.artifact,
    )
    model = msgspec.structs.replace(
        known,
        policy=source.model.policy,
        description=known.description or source.model.description,
        owner=known.owner or source.model.owner,
    )
    model = with_backend(model, backend, None)
    problems = model_problems(model)
    if problems:
        raise Failure("; ".join(problems), code=EX_DATAERR)
    return model


def _address(store: str, source: VersionWithEvidence) -> str:
    with closing(_open(store)) as opened:
        return opened.address(source.model.name, source.backend.version)


def _with_traffic(model: Model, version: str) -> list[str]:
    return [version] if model.traffic.get(version, 0) else []


def _change(plan: PromotionPlan) -> Put:
    known = plan.document
    body = merge_document(known.body if known is not None else None, plan.model)
    return Put(
        kind=MODELS, name=plan.model.name, body=body, expected=known.revision if known is not None else 0
    )


# -- the image and the artifact


async def _copy_image(plan: PromotionPlan, *, as_json: bool) -> None:
    """By digest, which the registry of the target and this command both check."""
    image = plan.source.backend.image
    if plan.image == image:
        return
    plan.facts["image_copied"] = await copy_promoted_image(image, plan.image, as_json=as_json)
    if not as_json:
        console.say("image", "copied, and checked" if plan.facts["image_copied"] else "was there already")


def _check_stores(plan: PromotionPlan, source: str, target: str) -> None:
    """Before anything is written: the artifact must be what was approved, and there must be a place for it."""
    digest = plan.source.backend.artifact_digest
    if not digest:
        return
    if not source or not target:
        missing = "it comes from" if not source else "it goes to"
        raise Failure(
            f"the environment that {missing} names no artifact store, and {plan.source.title} has an artifact",
            hint='artifacts = "…" in the file of environments',
            code=EX_USAGE,
        )
    plan.facts["artifact_copied"] = False
    with closing(_open(source)) as store:
        _asked(lambda: require_manifest_digest(store, plan.model.name, plan.source.backend.version, digest))


def _copy(plan: PromotionPlan, source: str, target: str, *, as_json: bool) -> None:
    digest, model, version = plan.source.backend.artifact_digest, plan.model.name, plan.source.backend.version
    if not digest:
        return
    with closing(_open(source)) as old, closing(_open(target)) as new:
        size = _asked(lambda: require_manifest_digest(old, model, version, digest)).total_bytes
        with transfer_progress("copied", size, shown=not as_json) as told:
            plan.facts["artifact_copied"] = _asked(
                lambda: copy_artifact(old, new, model, version, digest, told)
            )
    if not as_json:
        console.say(
            "artifact", "copied, and checked" if plan.facts["artifact_copied"] else "was there already"
        )


def _open(url: str) -> ArtifactStore:
    return _asked(lambda: open_store(url, upload_state_folder=state_folder()))


def _asked(work: Callable[[], Result]) -> Result:
    try:
        return work()
    except StoreError as error:
        raise store_failure(error) from None


# -- the backend


async def _check_backend(source: VersionWithEvidence, url: str, given: list[tuple[str, str]]) -> None:
    """The backend there must say that it serves this version and this very artifact."""
    backend: Backend = source.backend
    try:
        said = await probe(
            url,
            source.model.name,
            wait_s=_WAIT_S,
            progress=lambda text: console.note(f"waiting: {text}"),
            headers=dict(await headers_or_id_token(url, given)),
        )
    except NotAChipsBackend as error:
        hint = "is it the address of this version's backend? --no-probe promotes a server of another kind without asking it"
        raise Failure(error.message, hint=hint, code=error.code) from None
    if said.versions and backend.version not in said.versions:
        raise Failure(
            f"{url} serves version {', '.join(said.versions)}, not {backend.version}", code=EX_DATAERR
        )
    digest = said.text_parameter("artifact_digest")
    if digest != backend.artifact_digest:
        raise Failure(
            f"{url} serves another artifact: {digest or 'it names none'}, not {backend.artifact_digest or 'none'}",
            hint="deploy the version that was approved, then promote it",
            code=EX_DATAERR,
        )


def _show(plan: PromotionPlan, source: str, to: str) -> None:
    console.say("plan", f"{plan.source.title} from {source} to {to}, {plan.approval}")
    if plan.image:
        where = (
            "" if plan.image == plan.source.backend.image else f", copied from {plan.source.backend.image}"
        )
        console.say("image", f"{plan.image}{where}")
    if plan.source.backend.artifact_digest:
        console.say("artifact", plan.source.backend.artifact_digest)
    for line in plan.facts["changes"]:
        console.say("", line)


def _show_outcome(plan: PromotionPlan, to: str, *, dry_run: bool) -> None:
    if plan.facts["written"]:
        text = f"{plan.source.title} to {to}, generation {plan.facts['generation']}"
        console.say("promoted", text, style="bold green")
    elif dry_run:
        console.say("dry run", "nothing was written", style="bold yellow")
    else:
        console.say("copied", f"deploy {plan.image or plan.source.title} in {to}, then promote it with --url")


def _confirm(to: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise Failure(
            "this must be confirmed", hint="add --yes, or --dry-run to see the plan only", code=EX_USAGE
        )
    typer.confirm(f"Promote it to {to}?", abort=True, err=True)
