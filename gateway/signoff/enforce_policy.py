"""Refuses registry writes that the sign-off policy does not allow.

A write that puts a version, or another policy, into force needs the approvals that the policy asks for. The check stands in
front of every write of the command line. What a version is made of (image, artifact, contract, address) and how it may be
called (the model's policy) needs an approval; shifting traffic between approved versions, disabling and removing do not, so
that nobody waits for a signature in order to take a bad version out of service.

The check only reads. What it returns names the revisions that it has read as preconditions of the write, so that a
rejection or another policy that comes in between is never passed over.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from gateway.core.model import Backend, Model, parse_model
from gateway.registry.base import (
    APPROVALS,
    MODELS,
    SIGN_OFF,
    Delete,
    Document,
    Precondition,
    Put,
    Registry,
)
from gateway.signoff.approval_requests import (
    ApprovalStatus,
    StoredPolicy,
    evaluate_request,
    read_request,
)
from gateway.signoff.approval_subject import Subject, subject_of
from gateway.signoff.environment_policy import policy_digest
from gateway.signoff.read_sign_off_records import (
    SignOffRecords,
    parse_stored_policy,
    policy_precondition,
    read_requests_and_keys,
)

_FREE: Final = ("enabled", "description", "owner", "traffic", "sticky")  # slots follow the traffic


class ApprovedSubject(NamedTuple):
    """An approved subject, and the request that approves it."""

    subject: Subject
    request: Document
    verdict: ApprovalStatus


class WriteClearance(NamedTuple):
    """The clearance of a registry write. It says why the write is allowed, and what must be unchanged when it is made."""

    approved: tuple[ApprovedSubject, ...]
    preconditions: tuple[Precondition, ...]


class NotApproved(Exception):
    """Approvals that the sign-off policy asks for are missing.

    It does not allow the write. `problems` says what, a sentence each.
    """

    def __init__(self, title: str, problems: Sequence[str]) -> None:
        super().__init__(f"{title} may not serve here: {'; '.join(problems)}")
        self.title = title
        self.problems = tuple(problems)


async def check_write(
    registry: Registry, changes: Sequence[Put | Delete], policy: Document
) -> WriteClearance:
    """Check registry changes against the sign-off policy.

    Returns their clearance. Raises NotApproved where they are not allowed. Nothing is written. A policy that cannot be read
    allows nothing.
    """
    try:
        stored = parse_stored_policy(policy)
    except ValueError as error:
        raise NotApproved("nothing", [f"the sign-off policy cannot be read: {error}"]) from None
    environment = (await registry.head()).registry_id
    subjects = [
        subject for change in changes for subject in await _subjects(registry, change, stored, environment)
    ]
    unchanged = (policy_precondition(policy),)
    if not subjects:
        return WriteClearance(
            (), unchanged
        )  # without a request to any issuer: a bad version must go also while it is away
    records = await read_requests_and_keys(registry, stored)
    found = tuple(find_approval(subject, records) for subject in subjects)
    requests = {
        one.request.name: Precondition(kind=APPROVALS, name=one.request.name, expected=one.request.revision)
        for one in found
    }
    return WriteClearance(found, (*unchanged, *requests.values()))


def find_approval(
    subject: Subject, records: SignOffRecords, *, with_evidence: bool = False
) -> ApprovedSubject:
    """Find the request that approves `subject`. Raises NotApproved where none does."""
    nearest: ApprovalStatus | None = None
    stored, keys = records.stored, records.issuer_keys
    for document in records.requests:
        try:
            request = read_request(document)
        except ValueError:
            continue
        if request.title != subject.title:
            continue
        verdict = evaluate_request(
            document.name,
            request,
            stored,
            keys,
            environment=subject.environment,
            subject=subject,
            with_evidence=with_evidence,
        )
        if verdict.approved:
            return ApprovedSubject(subject, document, verdict)
        if nearest is None or len(verdict.problems) < len(nearest.problems):
            nearest = verdict
    problems = (
        ["nobody has asked for an approval"] if nearest is None else [*nearest.problems, *nearest.ignored]
    )
    raise NotApproved(subject.title, problems)


async def _subjects(
    registry: Registry, change: Put | Delete, stored: StoredPolicy, environment: str
) -> list[Subject]:
    """What `change` needs approvals for."""
    if change.kind not in {MODELS, SIGN_OFF}:
        return []
    if change.kind == SIGN_OFF:
        if isinstance(change, Delete):
            raise NotApproved(
                "no policy at all", ["a sign-off policy is replaced by another one, never removed"]
            )
        new = policy_digest(change.body)
        return (
            []
            if new == stored.digest
            else [Subject(environment=environment, sign_off=stored.digest, new_sign_off=new)]
        )
    if isinstance(change, Delete):
        return []
    document = await registry.read(MODELS, change.name)
    after = parse_model(change.body)
    before = _readable(document)
    subjects = []
    for backend in _affected(before, after):
        try:
            subject = subject_of(after, backend, environment=environment, sign_off=stored.digest, evidence={})
        except ValueError as error:
            raise NotApproved(f"{after.name}@{backend.version}", [str(error)]) from None
        subjects.append(subject)
    return subjects


def _readable(document: Document | None) -> Model | None:
    try:
        return None if document is None else parse_model(document.body)
    except ValueError:
        return None


def _affected(before: Model | None, after: Model) -> list[Backend]:
    """The backends that are new or differ. Where only the way to call the model differs: those that take its traffic.

    An approval of one version binds the model's policy, so a version may bring its policy along.
    """
    changed = [
        backend for backend in after.backends if before is None or before.backend(backend.version) != backend
    ]
    if changed or before is None or _rest(before) == _rest(after):
        return changed
    return [backend for backend in after.backends if after.traffic.get(backend.version, 0)]


def _rest(model: Model) -> dict[str, Any]:
    content: dict[str, Any] = msgspec.to_builtins(model)
    return {name: value for name, value in content.items() if name not in {*_FREE, "backends"}}
