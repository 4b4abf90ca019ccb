"""`chips request-approval`: ask for the approval of a version, or of a new policy.

The people of an environment's sign-off policy are asked.
"""

import shlex
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import typer

from gateway.cli.signoff.sign_off_policy import read_policy_from
from gateway.cli.support import console
from gateway.cli.support.approval_signer_options import (
    AsOption,
    SignerIdentity,
    SshKeyOption,
    TokenCommandOption,
    identify_signer,
    require_sign_off_policy,
    sign_and_verify,
    split_model_and_version,
)
from gateway.cli.support.console import EX_DATAERR, EX_USAGE, Failure
from gateway.cli.support.read_published_artifact import published_card
from gateway.cli.support.store_urls_by_environment import artifact_store_or_default, resolve_registry_url
from gateway.core.model import Backend, Model
from gateway.core.model_updates import to_document
from gateway.core.version_evidence import CARD, why_evidence_does_not_apply
from gateway.registry.base import APPROVALS, EVIDENCE, Put, Registry
from gateway.registry.evidence_records import list_evidence
from gateway.settings import Settings
from gateway.signoff.approval_requests import (
    ApprovalRequest,
    StoredPolicy,
    derive_request_id,
)
from gateway.signoff.approval_subject import Subject, subject_of
from gateway.signoff.environment_policy import SignOffPolicy, policy_digest, policy_document
from gateway.signoff.in_toto_statement import identity_tokens_in
from gateway.signoff.kept_issuer_keys import keys_that_verify
from gateway.signoff.read_sign_off_records import fetch_current_issuer_keys
from gateway.signoff.required_evidence import evidence_digests, evidence_problems
from gateway.signoff.verify_identity_token_signature import IssuerKeys


def request_approval(
    version: Annotated[
        str | None, typer.Argument(metavar="MODEL@VERSION", help="The version, such as wine@4.")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="ENV", help="The environment it is for: a name, or a registry's URL."),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            "--policy", metavar="FILE", help="Instead of a version: a new sign-off policy, in TOML."
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="ENV", help="Where the version is now; otherwise the registry in use."
        ),
    ] = None,
    ssh_key: SshKeyOption = None,
    token_command: TokenCommandOption = None,
    name: AsOption = None,
    reason: console.ReasonOption = "",
    registry_url: console.RegistryOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Ask for the approval of a version, or of a new policy.

    The environment's sign-off policy says which approvals it wants. The request is signed, and binds digests, not names.

    The evidence that the policy asks for goes into the request, where approvers and auditors find it.

    Example: `chips request-approval wine@4 --from qa --to prod --ssh-key ~/.ssh/id_ed25519`
    """
    if (version is None) == (policy is None) or to is None:
        raise Failure(
            "say what is to be approved, and where",
            hint="MODEL@VERSION --to ENV, or --policy FILE --to ENV",
            code=EX_USAGE,
        )
    target = console.settings_for(resolve_registry_url(to))
    origin = console.settings_for(resolve_registry_url(source) if source is not None else registry_url)
    store = origin.artifacts if source is None else artifact_store_or_default(source, origin)

    async def work() -> dict[str, Any]:
        async with console.open_guarded_registry(target) as registry:
            stored = await require_sign_off_policy(registry)
            identity = identify_signer(stored.policy, ssh_key, token_command, name)
            keys = await fetch_current_issuer_keys(stored.policy)
            if policy is not None:
                proposal = policy_document(read_policy_from(policy))
                new = policy_digest(proposal)
                environment = (await registry.head()).registry_id
                subject = Subject(environment=environment, sign_off=stored.digest, new_sign_off=new)
                return await _write(registry, stored, keys, identity, subject, reason, proposal)
            assert version is not None  # noqa: S101  (one of the two is given)
            found = await read_version_with_evidence(
                origin, store, stored.policy, *split_model_and_version(version)
            )
            environment = (await registry.head()).registry_id
            subject = approvable_subject(found, stored, environment)
            return await _write(
                registry,
                stored,
                keys,
                identity,
                subject,
                reason,
                found.single_version_document,
                found.evidence,
            )

    facts = console.run_async(work())
    if as_json:
        console.print_json(facts)
        return
    console.say("requested", f"{facts['title']} for {to}, by {facts['by']}", style="bold green")
    for what, digest in facts["binds"].items():
        console.say("", f"{what} {digest}")
    where, option = (
        ("chips", f" --registry {shlex.quote(to)}") if ":" in to else (f"chips --env {shlex.quote(to)}", "")
    )
    console.say("approve", f"{where} approve {facts['id']}{option} --ssh-key FILE")


class VersionWithEvidence(NamedTuple):
    """A registered version, with the evidence about it.

    It is as registered in the environment it is in now. The evidence is what the sign-off policy asks for, by kind.
    """

    model: Model
    backend: Backend
    evidence: dict[str, dict[str, Any]]

    @property
    def title(self) -> str:
        return f"{self.model.name}@{self.backend.version}"

    @property
    def single_version_document(self) -> dict[str, Any]:
        """The model's document with this version alone.

        The version has 100 % of the traffic. This is the full text that an approval binds.
        """
        return to_document(
            msgspec.structs.replace(
                self.model, backends=(self.backend,), traffic={self.backend.version: 100}, sticky=None
            )
        )


async def read_version_with_evidence(
    origin: Settings, store: str, policy: SignOffPolicy | None, name: str, version: str
) -> VersionWithEvidence:
    """Read a version from the registry of `origin`, with the evidence about it that `policy` asks for. Raises Failure.

    The model card is read from the artifact itself, in `store`, and from the registry where that cannot be reached.
    """
    async with console.open_guarded_registry(origin) as registry:
        _, model = await console.find_model(registry, name)
        backend = model.backend(version)
        if backend is None:
            known = ", ".join(one.version for one in model.backends)
            raise Failure(f"{name} has no version {version}", hint=f"it has {known}", code=EX_DATAERR)
        wanted = policy.evidence if policy is not None else ()
        records = [
            record
            for record in await list_evidence(registry, name, version)
            if record.sort in wanted and not why_evidence_does_not_apply(record, backend)
        ]
        evidence = {record.sort: to_document(record) for record in records}
        if policy is not None and policy.evidence_days:
            for record in records:
                for change in await registry.history(kind=EVIDENCE, name=record.name, limit=1):
                    evidence[record.sort]["written_at"] = change.at
    card = published_card(store, name, backend) if CARD in wanted else None
    if card is not None:
        evidence[CARD] = to_document(card)
    return VersionWithEvidence(model, backend, evidence)


def approvable_subject(source: VersionWithEvidence, stored: StoredPolicy, environment: str) -> Subject:
    """The subject that an approval of `source` binds. Raises Failure where evidence is missing or something has no digest."""
    try:
        subject = subject_of(
            source.model,
            source.backend,
            environment=environment,
            sign_off=stored.digest,
            evidence=evidence_digests(source.evidence),
        )
        problems = evidence_problems(stored.policy, source.evidence, subject)
    except ValueError as error:
        raise Failure(f"{source.title} cannot be approved: {error}", code=EX_DATAERR) from None
    if problems:
        raise Failure(
            f"{source.title} cannot be approved: {'; '.join(problems)}",
            hint=f"chips evidence {source.title} shows what there is",
            code=EX_DATAERR,
        )
    return subject


async def _write(
    registry: Registry,
    stored: StoredPolicy,
    keys: IssuerKeys,
    identity: SignerIdentity,
    subject: Subject,
    reason: str,
    proposal: dict[str, Any],
    evidence: dict[str, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    statement = sign_and_verify(identity, stored.policy, keys, "request", "", subject, reason)
    request = ApprovalRequest(
        title=subject.title,
        request=statement,
        evidence=evidence or {},
        proposal=proposal,
        keys=tuple(keys_that_verify(identity_tokens_in(statement), keys)),
    )
    name = derive_request_id(statement)
    body: dict[str, Any] = msgspec.to_builtins(request)
    change = Put(kind=APPROVALS, name=name, body=body, expected=0)
    await registry.write(change, author=identity.name, reason=reason)
    binds = {
        "image": subject.image,
        "artifact": subject.artifact,
        "address": subject.address,
        "contract": f"sha256:{subject.contract}" if subject.contract else "",
        "policy": f"sha256:{subject.policy}" if subject.policy else "",
        **{f"evidence {kind}": f"sha256:{digest}" for kind, digest in subject.evidence.items()},
        "sign-off": f"sha256:{subject.sign_off}",
        "new sign-off": f"sha256:{subject.new_sign_off}" if subject.new_sign_off else "",
    }
    return {
        "id": name,
        "title": subject.title,
        "by": identity.name,
        "binds": {what: digest for what, digest in binds.items() if digest},
    }
