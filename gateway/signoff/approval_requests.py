"""Approval requests, and whether their signed decisions approve them.

They are documents of the environment's registry that collect the decisions. Nothing in such a document is believed:
each time, every signature is verified, and the subject is compared with what would serve now. Somebody who can write
the registry can remove a decision, which the audit shows, but cannot make one.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from gateway.audit.dsse_envelope import SigningError
from gateway.registry.base import APPROVALS, Document, Put, Registry
from gateway.registry.hash_chain import text_digest
from gateway.signoff.approval_subject import Subject
from gateway.signoff.environment_policy import SignOffPolicy, unfilled_role_places
from gateway.signoff.in_toto_statement import VerifiedStatement, identity_tokens_in, read_statement
from gateway.signoff.kept_issuer_keys import KeptIssuerKey, keys_that_verify, with_kept_keys
from gateway.signoff.required_evidence import evidence_digests, evidence_problems
from gateway.signoff.verify_identity_token_signature import IssuerKeys, token_key_name

_REPLACED: Final = "a later word of the same person has replaced it"
_MAX_SKEW: Final = timedelta(minutes=5)


class ApprovalRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An approval request, as its document in the registry holds it."""

    title: str
    request: dict[str, Any]  # the signed statement of the person who asks
    evidence: dict[str, dict[str, Any]] = {}  # by sort: what the statement binds by digest
    decisions: tuple[dict[str, Any], ...] = ()
    # The model, or the sign-off policy, as it would be: for people to compare. It counts where it fits the digests.
    proposal: dict[str, Any] = {}
    keys: tuple[KeptIssuerKey, ...] = ()  # that have verified the identity tokens above


class StoredPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The sign-off policy that a registry holds, with its digest and revision."""

    policy: SignOffPolicy
    digest: str
    revision: int


class ApprovalStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The status of an approval request: whether it is approved, and why not."""

    approved: bool
    problems: tuple[str, ...] = ()  # why not, a sentence each
    approvals: tuple[VerifiedStatement, ...] = ()  # those that count
    ignored: tuple[str, ...] = ()  # decisions that do not count, and why
    emergency: VerifiedStatement | None = None  # who put it into service alone, also when that has expired
    review_due: str = ""  # until when that must be reviewed; empty where it was, or none is due
    expires: str = ""  # when the first of the approvals that count ends


async def find_request(registry: Registry, request_id: str) -> tuple[Document, ApprovalRequest] | None:
    """Find an approval request by its id. None where there is none."""
    document = await registry.read(APPROVALS, request_id)
    return None if document is None else (document, read_request(document))


def read_request(document: Document) -> ApprovalRequest:
    """Read an approval request from its document. ValueError says why it is none."""
    if document.problem:
        raise ValueError(document.problem)
    try:
        return msgspec.convert(document.body, ApprovalRequest)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


def derive_request_id(statement: Mapping[str, Any]) -> str:
    """Derive the id of an approval request from its statement.

    The id is 128 bits of the statement's digest. A requester can try many statements: with fewer bits they find two with
    one id, show one and have the other approved.
    """
    return (text_digest(msgspec.json.encode(statement, order="sorted").decode()) or "")[:32]


def with_decision_and_keys(document: Document, decision: Mapping[str, Any], issuer_keys: IssuerKeys) -> Put:
    """The write that adds a decision, and the issuers' keys that verify it, to an approval request. Nothing is verified."""
    request = read_request(document)
    body = msgspec.to_builtins(
        msgspec.structs.replace(
            request,
            decisions=(*request.decisions, dict(decision)),
            keys=(*request.keys, *keys_that_verify(identity_tokens_in(decision), issuer_keys)),
        )
    )
    return Put(kind=APPROVALS, name=document.name, body=body, expected=document.revision)


def evaluate_request(
    request_id: str,
    request: ApprovalRequest,
    stored: StoredPolicy,
    keys: IssuerKeys,
    *,
    environment: str,
    now: datetime | None = None,
    subject: Subject | None = None,
    with_evidence: bool = False,
) -> ApprovalStatus:
    """Evaluate the status of an approval request.

    Returns whether `request` approves `subject` now (None: what it asks for). `environment` is the id of the
    environment's registry. The evidence is compared with that of `subject` only `with_evidence`: an environment has the
    request's, not the source's.
    """
    now = now or datetime.now(UTC)
    policy = stored.policy
    try:
        asked = read_statement(request.request, policy, keys)
    except SigningError as error:
        return ApprovalStatus(approved=False, problems=(f"the request does not count: {error}",))
    problems = request_problems(request_id, request, asked, environment)
    bound = asked.predicate.subject
    wanted = subject if subject is not None else bound
    if not with_evidence:
        wanted = msgspec.structs.replace(wanted, evidence=bound.evidence)
    if evidence_digests(request.evidence) != bound.evidence:
        problems.append("the evidence of the request is not what was signed")
    problems += evidence_problems(policy, request.evidence, bound, now)
    problems += _changes(bound, wanted)
    if not bound.sign_off == wanted.sign_off == stored.digest:
        problems.append("the sign-off policy has changed since it was asked for")
    decisions, ignored = _decisions(request_id, request, asked, stored, keys, now)
    emergencies = [one for one in decisions if one.predicate.decision == "emergency"]
    emergency = max(emergencies, key=lambda one: one.at, default=None)
    valid = timedelta(days=policy.valid_days)
    holds = emergency is not None and now <= emergency.at + valid
    approvals = [one for one in decisions if one.predicate.decision == "approve"]
    problems += [
        f"{one.person.name} rejected it: {one.predicate.reason}"
        for one in decisions
        if one.predicate.decision == "reject"
    ]
    if not holds:
        unfilled = unfilled_role_places(policy.approvals, [one.person for one in approvals])
        problems += [f"an approval by a person of the role {role} is missing" for role in unfilled]
    if emergency is not None and not holds:
        ignored.append(
            f"{emergency.person.name}: emergency does not count: it has expired after {policy.valid_days:g} days"
        )
    counted = [*approvals, *([emergency] if emergency is not None and holds else [])]
    return ApprovalStatus(
        approved=not problems,
        problems=tuple(problems),
        approvals=tuple(approvals),
        ignored=tuple(ignored),
        emergency=emergency,
        review_due=_review_due(emergencies, decisions, policy),
        expires=min((one.at + valid for one in counted), default=now).isoformat() if counted else "",
    )


def request_problems(
    request_id: str, request: ApprovalRequest, asked: VerifiedStatement, environment: str
) -> list[str]:
    """What is wrong with the request itself, a sentence each.

    A decision on such a request would be about something else than what is shown, or count in another environment.
    """
    subject, problems = asked.predicate.subject, []
    if asked.predicate.decision != "request" or request_id != derive_request_id(request.request):
        problems.append("the request is not the one that was asked for: another one was put in its place")
    if subject.environment != environment:
        problems.append("it was asked for another environment")
    if subject.title != request.title:
        problems.append(f"it is called {request.title[:80]!r}, and was asked for {subject.title}")
    return problems


def version_sign_offs_until(
    documents: Sequence[Document],
    stored: StoredPolicy,
    keys: IssuerKeys,
    *,
    environment: str,
    title: str,
    artifact: str,
    image: str,
    url: str,
    until: datetime,
) -> list[tuple[str, VerifiedStatement]]:
    """The sign-offs of a version until a time.

    A sign-off is an approval or an emergency, and comes with the id of its request. Whether they have expired since is left
    out, and so are people that the present policy does not know: their signatures cannot be verified.
    """
    found = []
    for document in documents:
        try:
            request = read_request(document)
            if request.title != title:  # before its signature is checked, which starts a program
                continue
            asked = _read_for_audit(request.request, request, stored, keys)
        except (ValueError, SigningError):
            continue
        subject = asked.predicate.subject
        if asked.predicate.decision != "request" or document.name != derive_request_id(request.request):
            continue
        if (subject.environment, subject.title) != (environment, title):
            continue
        if (subject.artifact, subject.image) != (artifact, image.rpartition("@")[2]):
            continue
        if subject.address not in {"", url}:
            continue
        latest: dict[tuple[str, str], VerifiedStatement] = {}
        for content in request.decisions:
            try:
                signed = _read_for_audit(content, request, stored, keys)
            except SigningError:
                continue
            counts = not _why_not(document.name, signed, asked, stored.policy, signed.at)
            if counts and signed.at <= until:
                _keep_latest(latest, signed)
        found += [
            (document.name, signed)
            for signed in latest.values()
            if signed.predicate.decision in {"approve", "emergency"}
        ]
    return found


def _read_for_audit(
    content: Mapping[str, Any], request: ApprovalRequest, stored: StoredPolicy, keys: IssuerKeys
) -> VerifiedStatement:
    """The statement by the keys that issuers publish, else by those that were kept. Raises SigningError."""
    try:
        return read_statement(content, stored.policy, keys)
    except SigningError:
        if not request.keys:
            raise
        signed = read_statement(content, stored.policy, with_kept_keys(keys, request.keys))
    names = {token_key_name(token) for token in identity_tokens_in(content)}
    kept = next((one.thumbprint for one in request.keys if (one.issuer, one.kid) in names), "")
    return msgspec.structs.replace(signed, kept_key=kept)


def _changes(asked: Subject, wanted: Subject) -> list[str]:
    """What differs between what was asked for and what would serve, in words."""
    names = {
        "model": "it was asked for another model",
        "version": "it was asked for another version",
        "image": "the image has changed",
        "artifact": "the artifact has changed",
        "address": "the address (it has neither image nor artifact) has changed",
        "contract": "the contract (path, inputs, outputs, concurrency) has changed",
        "policy": "the model's policy has changed",
        "evidence": "the evidence has changed",
        "new_sign_off": "the new sign-off policy has changed",
    }
    return [
        f"{text} since it was asked for"
        for name, text in names.items()
        if getattr(asked, name) != getattr(wanted, name)
    ]


def evaluate_decisions(
    request_id: str,
    request: ApprovalRequest,
    asked: VerifiedStatement,
    stored: StoredPolicy,
    keys: IssuerKeys,
    now: datetime,
) -> list[tuple[VerifiedStatement | None, str]]:
    """Evaluate the decisions of a request, in order.

    Returns each decision and why it does not count (empty: it counts). The decision is None where its signature is not good.
    """
    judged: list[tuple[VerifiedStatement | None, str]] = []
    latest: dict[tuple[str, str], VerifiedStatement] = {}
    for content in request.decisions:
        try:
            signed = read_statement(content, stored.policy, keys)
        except SigningError as error:
            why = _why_no_longer(content, request, stored, keys) or str(error)
            judged.append((None, why))
            continue
        why = _why_not(request_id, signed, asked, stored.policy, now)
        if not why:
            _keep_latest(latest, signed)
        judged.append((signed, why))
    counting = {id(one) for one in latest.values()}
    return [
        (signed, why or ("" if signed is None or id(signed) in counting else _REPLACED))
        for signed, why in judged
    ]


def why_last_decision_does_not_count(
    request_id: str, request: ApprovalRequest, stored: StoredPolicy, keys: IssuerKeys
) -> str:
    """Why the last decision of a request does not count.

    It is the one that was added last; empty where it counts. Raises SigningError where the request does not count.
    """
    *earlier, last = request.decisions
    if last in earlier:  # a rejection that is added again would replace the approval that followed it
        return "it is there already"
    asked = read_statement(request.request, stored.policy, keys)
    return evaluate_decisions(request_id, request, asked, stored, keys, datetime.now(UTC))[-1][1]


def _decisions(
    request_id: str,
    request: ApprovalRequest,
    asked: VerifiedStatement,
    stored: StoredPolicy,
    keys: IssuerKeys,
    now: datetime,
) -> tuple[list[VerifiedStatement], list[str]]:
    """The last decision of each person that counts, and why others do not."""
    counting, ignored = [], []
    for signed, why in evaluate_decisions(request_id, request, asked, stored, keys, now):
        if signed is None:
            ignored.append(f"a decision does not count: {why}")
        elif not why:
            counting.append(signed)
        elif why != _REPLACED:
            ignored.append(f"{signed.person.name}: {signed.predicate.decision} does not count: {why}")
    return counting, ignored


def _why_no_longer(
    content: Mapping[str, Any], request: ApprovalRequest, stored: StoredPolicy, keys: IssuerKeys
) -> str:
    """Why a decision that counted when it was made does not count now; empty where it never did."""
    try:
        signed = _read_for_audit(content, request, stored, keys)
    except SigningError:
        return ""
    return f"the issuer of the token of {signed.person.name} does not publish its key any more: sign it again"


def _keep_latest(latest: dict[tuple[str, str], VerifiedStatement], signed: VerifiedStatement) -> None:
    """Somebody who acted alone stays to be reviewed, whatever they say afterwards: only votes replace each other.

    The clocks of two machines differ: a rejection that was added later counts, also where its clock was a little behind.
    """
    decision = signed.predicate.decision
    of_whom = signed.person.name, decision if decision in {"emergency", "review"} else "vote"
    known = latest.get(of_whom)
    tolerance = _MAX_SKEW if decision == "reject" else timedelta()
    if known is None or signed.at >= known.at - tolerance:
        latest[of_whom] = signed


def _why_not(
    request_id: str, signed: VerifiedStatement, asked: VerifiedStatement, policy: SignOffPolicy, now: datetime
) -> str:
    predicate = signed.predicate
    if predicate.request != request_id:
        return "it belongs to another request"
    if predicate.subject != asked.predicate.subject:
        return "it is about something else"
    if signed.at > now + _MAX_SKEW:
        return f"it is dated {predicate.at}, which is to come"
    if predicate.decision == "approve" and now > signed.at + timedelta(days=policy.valid_days):
        return f"it has expired after {policy.valid_days:g} days"
    if predicate.decision == "request":
        return "a request is no decision"
    if predicate.decision == "emergency":
        return _why_not_alone(signed, policy)
    if signed.person.name == asked.person.name and predicate.decision in {"approve", "review"}:
        return f"nobody {predicate.decision}s what they have asked for themselves"
    if not set(signed.person.roles) & policy.approvals.keys():
        return "this person has no role that approves"
    return ""


def _why_not_alone(signed: VerifiedStatement, policy: SignOffPolicy) -> str:
    if not signed.predicate.subject.model:
        return "an emergency puts a version into service; another sign-off policy needs its approvals"
    allowed = signed.person.name in policy.emergency.people
    return "" if allowed else "the policy does not let this person alone"


def _review_due(
    emergencies: Sequence[VerifiedStatement], decisions: Sequence[VerifiedStatement], policy: SignOffPolicy
) -> str:
    """Until when somebody who has not acted alone must look at the last of `emergencies`; empty where that was done."""
    if not emergencies:
        return ""
    alone = {one.person.name for one in emergencies}
    last = max(one.at for one in emergencies)
    reviewed = any(
        one.predicate.decision in {"review", "approve"} and one.person.name not in alone and one.at >= last
        for one in decisions
    )
    return "" if reviewed else (last + timedelta(days=policy.emergency.review_days)).isoformat()
