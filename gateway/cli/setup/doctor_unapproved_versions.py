"""The checks of `chips doctor` for versions that serve without approval.

They also find emergencies to review, and images that are named by tags.
"""

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gateway.cli.setup.doctor_checks import Finding
from gateway.core.model import Backend, Model
from gateway.registry.base import EMERGENCIES, Registry

if TYPE_CHECKING:
    from gateway.signoff.in_toto_statement import VerifiedStatement
    from gateway.signoff.read_sign_off_records import SignOffRecords


async def check_sign_off(registry: Registry, models: Sequence[Model]) -> AsyncGenerator[Finding, None]:
    """Check that each version with traffic is signed off.

    It must have the approvals that the sign-off policy asks for. Emergencies that wait for a review, and images that
    are named by a tag, are findings too, even without a policy.
    """
    for document in await registry.list(EMERGENCIES):
        said = document.body
        yield Finding(
            f"emergency {document.name}",
            "wrong",
            f"{said.get('title')} serves on the word of {said.get('by')}; a review is due by {said.get('review_due')}",
            f"chips approve {document.name} --review --ssh-key FILE",
        )
    for model in models:
        for backend in model.backends:
            if backend.image and "@sha256:" not in backend.image:
                yield Finding(
                    f"{model.name}@{backend.version} image",
                    "warning",
                    f"{backend.image} is named by a tag, which can move",
                    "register it as …@sha256:…",
                )
    async for finding in _check_approvals(registry, models):
        yield finding


async def _check_approvals(registry: Registry, models: Sequence[Model]) -> AsyncGenerator[Finding, None]:
    from gateway.signoff.read_sign_off_records import read_policy_and_records
    from gateway.signoff.ssh_keygen_signature import SshKeygenError

    try:
        records = await read_policy_and_records(registry)
    except ValueError as error:
        yield Finding("sign-off", "wrong", f"the policy cannot be read: {error}", "chips sign-off set FILE")
        return
    if records is None:
        return
    try:
        for finding in _approval_findings(records, models):
            yield finding
    except SshKeygenError as error:
        yield Finding("sign-off", "wrong", f"no signature can be checked: {error}")


def _approval_findings(records: "SignOffRecords", models: Sequence[Model]) -> Iterator[Finding]:
    for model in models:
        for backend in model.backends:
            if not model.traffic.get(backend.version, 0):
                continue
            title = f"{model.name}@{backend.version}"
            signed = records.version_sign_offs_until(
                title=title,
                artifact=backend.artifact_digest,
                image=backend.image,
                url=backend.url,
                until=datetime.now(UTC),
            )
            drifted = _drifted(records, model, backend, signed)
            if drifted:
                back = f"chips history {model.name}, then chips rollback {model.name} --to REVISION"
                yield Finding(f"{title} sign-off", "wrong", drifted, back)
                continue
            enough = _enough(signed, records.stored.policy.approvals)
            published = _enough(
                [one for one in signed if not one[1].kept_key], records.stored.policy.approvals
            )
            if enough and not published:
                kept = sorted({one.kept_key for _, one in signed if one.kept_key})
                yield Finding(
                    f"{title} sign-off",
                    "warning",
                    f"signed for by {', '.join(enough)}, by tokens whose issuer no longer publishes the key {', '.join(kept)}",
                    "compare it with the issuer's keys of that time; chips audit --verify shows that it was kept then",
                )
            elif enough:
                yield Finding(f"{title} sign-off", "ok", f"signed for by {', '.join(enough)}")
            else:
                yield Finding(
                    f"{title} sign-off",
                    "wrong",
                    "it serves without the approvals that the sign-off policy asks for",
                    f"chips request-approval {title} --from ENV --to ENV --ssh-key FILE",
                )


def _drifted(
    records: "SignOffRecords",
    model: Model,
    backend: Backend,
    signed: "Sequence[tuple[str, VerifiedStatement]]",
) -> str:
    """What serves otherwise than it was signed for, though image and artifact are the same; empty where nothing does."""
    from gateway.signoff.approval_subject import subject_of

    if not signed:
        return ""  # which is a finding of its own
    try:
        now = subject_of(model, backend, environment=records.environment, sign_off="", evidence={})
    except ValueError as error:
        return str(error)
    if now.contract not in {one.predicate.subject.contract for _, one in signed}:
        return "its contract (path, inputs, outputs, concurrency) is not the one that was signed for"
    # An approval of one version brings the model's policy along, for all of its versions.
    until = datetime.now(UTC)
    policies = {
        one.predicate.subject.policy
        for each in model.backends
        for _, one in records.version_sign_offs_until(
            title=f"{model.name}@{each.version}",
            artifact=each.artifact_digest,
            image=each.image,
            url=each.url,
            until=until,
        )
    }
    return "" if now.policy in policies else "the model's policy is not one that was signed for"


def _enough(signed: "Sequence[tuple[str, VerifiedStatement]]", required: Mapping[str, int]) -> list[str]:
    """The people who have signed one request, where they suffice; approvals of different requests do not add up."""
    from gateway.signoff.environment_policy import unfilled_role_places

    by_request: dict[str, list[VerifiedStatement]] = {}
    for request, one in signed:
        by_request.setdefault(request, []).append(one)
    for decisions in by_request.values():
        approvers = [one.person for one in decisions if one.predicate.decision == "approve"]
        alone = any(one.predicate.decision == "emergency" for one in decisions)
        if alone or not unfilled_role_places(required, approvers):
            return list(dict.fromkeys(one.person.name for one in decisions))
    return []
