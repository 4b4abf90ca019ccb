"""The document that people read before they decide on an approval request.

It shows what the request binds, what differs, evidence, decisions.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from gateway.artifacts.model_card_sections import read_card_sections
from gateway.audit.dsse_envelope import SigningError
from gateway.core.model import Model, parse_model
from gateway.core.model_updates import differences, merge_document, with_backend
from gateway.core.version_evidence import CARD, verdict_sample_size
from gateway.registry.base import Document
from gateway.signoff.approval_requests import (
    ApprovalRequest,
    ApprovalStatus,
    StoredPolicy,
    evaluate_decisions,
    evaluate_request,
    read_request,
)
from gateway.signoff.approval_subject import Subject, subject_of
from gateway.signoff.environment_policy import policy_digest
from gateway.signoff.in_toto_statement import VerifiedStatement, read_statement
from gateway.signoff.read_sign_off_records import SignOffRecords
from gateway.signoff.required_evidence import evidence_problems
from gateway.signoff.verify_identity_token_signature import IssuerKeys

_ADDRESSES: Final = (": url", ": artifact", ": audience")  # differ between environments, and are not bound
_BINDS: Final = {
    "environment": "Environment (id of its registry)",
    "model": "Model",
    "version": "Version",
    "image": "Image",
    "artifact": "Artifact (digest of its manifest)",
    "address": "Address",
    "contract": "Contract (path, inputs, outputs, concurrency), SHA-256",
    "policy": "Policy of the model, SHA-256",
    "sign_off": "Sign-off policy in force, SHA-256",
    "new_sign_off": "New sign-off policy, SHA-256",
}


def request_summary(document: Document, records: SignOffRecords) -> dict[str, Any]:
    """The summary of an approval request. The list of requests shows it."""
    try:
        request = read_request(document)
    except ValueError as error:
        return {"id": document.name, "title": "?", "state": "unreadable", "problems": [str(error)]}
    verdict = evaluate_request(
        document.name, request, records.stored, records.issuer_keys, environment=records.environment
    )
    found = {"id": document.name, "title": request.title, **_verdict(verdict)}
    try:
        asked = read_statement(request.request, records.stored.policy, records.issuer_keys)
    except SigningError:  # the verdict says it
        return {**found, "requested_at": ""}
    predicate = asked.predicate
    return {
        **found,
        "requested_by": predicate.by,
        "requested_at": predicate.at,
        "reason": predicate.reason,
    }


def review_document(
    document: Document, records: SignOffRecords, model: Document | None, policy: Document
) -> dict[str, Any]:
    """The review of one approval request. It holds everything that people who decide need to see.

    `model` and `policy` are the documents that it would change. Starts programs.
    """
    found = request_summary(document, records)
    if found["state"] == "unreadable":
        return found
    request = read_request(document)
    stored, keys = records.stored, records.issuer_keys
    try:
        asked = read_statement(request.request, stored.policy, keys)
    except SigningError:
        return found
    subject = asked.predicate.subject
    problem, changes = _compared(request, subject, model, policy)
    return {
        **found,
        "revision": document.revision,
        "subject": msgspec.to_builtins(subject),
        "binds": _binds(subject),
        "evidence": _evidence(request, subject, stored),
        "differences": changes,
        "differences_problem": problem,
        "decisions": _decisions(document.name, request, asked, stored, keys),
        "signers": _signers(stored, asked),
    }


def _verdict(verdict: ApprovalStatus) -> dict[str, Any]:
    rejected = any(" rejected it" in problem for problem in verdict.problems)
    emergency = verdict.emergency
    return {
        "state": "approved" if verdict.approved else "rejected" if rejected else "open",
        "problems": list(verdict.problems),
        "ignored": list(verdict.ignored),
        "approved_by": [one.person.name for one in verdict.approvals],
        "expires": verdict.expires,
        "emergency_by": emergency.person.name if emergency is not None else "",
        "review_due": verdict.review_due,
    }


def _binds(subject: Subject) -> list[tuple[str, str]]:
    rows = [(label, str(getattr(subject, name))) for name, label in _BINDS.items() if getattr(subject, name)]
    rows += [(f"Evidence {sort}, SHA-256", digest) for sort, digest in subject.evidence.items()]
    return [*rows, ("All of this together, SHA-256", subject.digest())]


def _evidence(request: ApprovalRequest, subject: Subject, stored: StoredPolicy) -> list[dict[str, Any]]:
    found = []
    for sort in dict.fromkeys([*stored.policy.evidence, *request.evidence]):
        record = request.evidence.get(sort, {})
        wanted = msgspec.structs.replace(stored.policy, evidence=(sort,))
        facts = record.get("facts", {})
        behind = verdict_sample_size(record)
        sections = read_card_sections(facts) if sort == CARD and isinstance(facts, Mapping) else ()
        found.append(
            {
                "sort": sort,
                "passed": record.get("passed") is True,
                "summary": str(record.get("summary", "")),
                "requests": "" if behind is None else str(behind),
                "too_few_requests": behind is not None and behind.too_few,
                "at": str(record.get("written_at", "")),
                "required": sort in stored.policy.evidence,
                "problems": evidence_problems(wanted, request.evidence, subject),
                "sections": msgspec.to_builtins(sections),
            }
        )
    return found


def _compared(
    request: ApprovalRequest, subject: Subject, model: Document | None, policy: Document
) -> tuple[str, list[dict[str, Any]]]:
    """Why the proposal cannot be compared, and what it would change. It is shown only where its digests were signed."""
    if not request.proposal:
        return "The request does not carry what it proposes: an older release of CHIPS made it.", []
    try:
        if subject.model:
            before, after = _model_documents(request, subject, model)
        else:
            before, after = policy.body, request.proposal
            if policy_digest(after) != subject.new_sign_off:
                raise ValueError("its digest is another one")
    except ValueError as error:
        return f"What the request proposes is not what was signed: {error}. Reject it.", []
    return "", [
        {"path": path, "before": old, "after": new}
        for path, old, new in differences(before, after)
        if not (path.startswith("traffic.") or (path.endswith(_ADDRESSES) and not subject.address))
    ]


def _model_documents(
    request: ApprovalRequest, subject: Subject, document: Document | None
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The model's document now and as it would be. ValueError where the proposal is not what was signed."""
    proposed = parse_model(request.proposal)
    backend = proposed.backend(subject.version)
    if backend is None:
        raise ValueError("the version is not in it")
    bound = subject_of(
        proposed,
        backend,
        environment=subject.environment,
        sign_off=subject.sign_off,
        evidence=subject.evidence,
    )
    if bound != subject:
        raise ValueError("its digests are others")
    known = parse_model(document.body) if document is not None else Model(name=proposed.name)
    before = known.backend(subject.version)
    moved = (
        {}
        if before is None
        else {"url": before.url, "artifact": before.artifact, "audience": before.audience}
    )
    after = with_backend(
        msgspec.structs.replace(known, policy=proposed.policy),
        msgspec.structs.replace(backend, **({} if subject.address else moved)),
        None,
    )
    body = document.body if document is not None else None
    return body, merge_document(body, after)


def _decisions(
    identity: str, request: ApprovalRequest, asked: VerifiedStatement, stored: StoredPolicy, keys: IssuerKeys
) -> list[dict[str, Any]]:
    """Each decision, in the order in which they were made, and why it does not count where it does not."""
    found: list[dict[str, Any]] = []
    for signed, why_not in evaluate_decisions(identity, request, asked, stored, keys, datetime.now(UTC)):
        if signed is None:
            found.append({"decision": "?", "by": "?", "at": "", "reason": "", "why_not": why_not})
            continue
        said = signed.predicate
        found.append(
            {
                "decision": said.decision,
                "by": said.by,
                "at": said.at,
                "reason": said.reason,
                "why_not": why_not,
            }
        )
    return found


def _signers(stored: StoredPolicy, asked: VerifiedStatement) -> list[dict[str, Any]]:
    """Who may decide, and how: those whose role approves."""
    return [
        {
            "name": person.name,
            "roles": list(person.roles),
            "asked": person.name == asked.person.name,
            "ssh": bool(person.ssh_keys),
            "sign_in": [token.issuer for token in person.tokens if token.client],
        }
        for person in stored.policy.people
        if set(person.roles) & stored.policy.approvals.keys()
    ]
