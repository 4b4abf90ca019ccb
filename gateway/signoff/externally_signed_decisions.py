"""Prepares decisions to be signed outside of this process, and verifies them.

People sign with `ssh-keygen` at a terminal, or by signing in at an issuer in the browser. A statement is made here, signed
there, and handed in. What comes back is verified as every statement is, must be about the request as it is now, and must be
fresh.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec
from securesystemslib.dsse import Envelope
from securesystemslib.signer import Signature

from gateway.audit.dsse_envelope import SigningError
from gateway.registry.base import Document, Put, Registry
from gateway.signoff.approval_requests import (
    ApprovalStatus,
    evaluate_request,
    read_request,
    request_problems,
    why_last_decision_does_not_count,
    with_decision_and_keys,
)
from gateway.signoff.in_toto_statement import (
    PAYLOAD_TYPE,
    Decision,
    VerifiedStatement,
    read_statement,
    unsigned_statement,
)
from gateway.signoff.read_sign_off_records import SignOffRecords, policy_precondition
from gateway.signoff.unreviewed_emergency_records import emergency_changes
from gateway.signoff.verify_identity_token_signature import signature_audience

DECISIONS: Final = ("approve", "reject", "review")  # an emergency is declared at a terminal alone
_FRESH: Final = timedelta(minutes=30)
_WORDS: Final = {"approve": "approved", "reject": "rejected", "review": "reviewed"}


class DecisionNotAccepted(Exception):
    """A signed decision that was handed in does not count. The text says why."""


class PreparedStatement(msgspec.Struct, frozen=True, kw_only=True):
    """A statement that is prepared to be signed outside of this process."""

    payload: bytes
    signed_bytes: bytes  # what a signature is made of: the pre-authentication encoding of DSSE
    nonce: str  # what an identity token must have been made for
    issuer: str  # at which the person may sign in; empty where the policy names no client
    client: str


def prepare_statement(
    document: Document, records: SignOffRecords, decision: Decision, by: str, reason: str
) -> PreparedStatement:
    """Prepare the statement of a decision to be signed.

    The person `by` decides, and signs outside of this process. Raises DecisionNotAccepted where it cannot be made.
    """
    asked = _asked(document, records)
    person = records.stored.policy.person(by)
    if person is None:
        raise DecisionNotAccepted(f"{by[:80]} is not one of the people of the sign-off policy")
    if decision == "reject" and not reason:
        raise DecisionNotAccepted("a rejection needs a reason")
    payload = unsigned_statement(decision, document.name, by, asked.predicate.subject, reason=reason)
    signed_bytes = Envelope(payload, PAYLOAD_TYPE, {}).pae()
    token = next((one for one in person.tokens if one.client), None)
    return PreparedStatement(
        payload=payload,
        signed_bytes=signed_bytes,
        nonce=signature_audience(signed_bytes),
        issuer=token.issuer if token is not None else "",
        client=token.client if token is not None else "",
    )


class VerifiedDecision(NamedTuple):
    """A decision that is verified, and counts. `change` is the write that adds it to its request."""

    change: Put
    signed: VerifiedStatement
    title: str
    verdict: ApprovalStatus


def verify_decision(
    document: Document, records: SignOffRecords, payload: bytes, kind: str, signature: bytes
) -> VerifiedDecision:
    """Verify a decision that was signed outside of this process.

    `payload` is what was signed. Raises DecisionNotAccepted where it does not count. Starts programs.
    """
    _asked(document, records)
    content = _envelope(payload, kind, signature)
    try:
        signed = read_statement(content, records.stored.policy, records.issuer_keys)
    except SigningError as error:
        raise DecisionNotAccepted(str(error)) from None
    said = signed.predicate
    if said.decision not in DECISIONS:
        raise DecisionNotAccepted(f"{said.decision} is not decided here: use chips approve at a terminal")
    if not timedelta(minutes=-5) <= datetime.now(UTC) - signed.at <= _FRESH:
        raise DecisionNotAccepted("the statement is too old, or dated ahead: make it again")
    if said.decision == "reject" and not said.reason:
        raise DecisionNotAccepted("a rejection needs a reason")
    change = with_decision_and_keys(document, content, records.issuer_keys)
    after = read_request(msgspec.structs.replace(document, body=change.body))
    why_not = why_last_decision_does_not_count(document.name, after, records.stored, records.issuer_keys)
    if why_not:
        raise DecisionNotAccepted(why_not)
    verdict = evaluate_request(
        document.name, after, records.stored, records.issuer_keys, environment=records.environment
    )
    return VerifiedDecision(change, signed, after.title, verdict)


async def write_decision(registry: Registry, judged: VerifiedDecision, policy: Document) -> None:
    """Write a verified decision to the registry.

    Raises RegistryError, also where the request or the sign-off policy has changed since.
    """
    change, said = judged.change, judged.signed.predicate
    more = await emergency_changes(
        registry, change.name, judged.title, said.decision, judged.verdict, said.by
    )
    reason = f"{_WORDS[said.decision]}: {said.reason}".removesuffix(": ")
    await registry.write(
        change, *more, author=said.by, reason=reason, preconditions=[policy_precondition(policy)]
    )


def _asked(document: Document, records: SignOffRecords) -> VerifiedStatement:
    try:
        request = read_request(document)
        asked = read_statement(request.request, records.stored.policy, records.issuer_keys)
    except (ValueError, SigningError) as error:
        raise DecisionNotAccepted(f"the request does not count: {error}") from None
    problems = request_problems(document.name, request, asked, records.environment)
    if problems:
        raise DecisionNotAccepted("; ".join(problems))
    return asked


def _envelope(payload: bytes, kind: str, signature: bytes) -> dict[str, Any]:
    try:
        by = msgspec.json.decode(payload)["predicate"]["by"]
    except (msgspec.MsgspecError, KeyError, TypeError, RecursionError):
        raise DecisionNotAccepted("this is no statement") from None
    key_id = f"{kind}:{by}"
    envelope = Envelope(payload, PAYLOAD_TYPE, {key_id: Signature(key_id, signature.hex())})
    made: dict[str, Any] = msgspec.to_builtins(envelope.to_dict())
    return made
