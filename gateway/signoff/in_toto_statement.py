"""Signed in-toto statements of sign-off requests and decisions.

They are in DSSE envelopes, so that other programs can read them. https://github.com/in-toto/attestation (Statement v1),
https://github.com/secure-systems-lab/dsse. The predicate is ours: somebody requests, approves, rejects, reviews, or puts a
subject into service in an emergency. The signature is an SSH signature, or an identity token that was made for this very
statement.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from securesystemslib.dsse import Envelope
from securesystemslib.signer import Signature

from gateway.audit.dsse_envelope import SigningError, parse_unverified_envelope
from gateway.registry.base import now_rfc3339
from gateway.signoff import ssh_keygen_signature, verify_identity_token_signature
from gateway.signoff.approval_subject import Subject
from gateway.signoff.environment_policy import Person, SignOffPolicy
from gateway.signoff.verify_identity_token_signature import IssuerKeys

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "urn:chips:predicate:sign-off:v1"

Decision = Literal["request", "approve", "reject", "emergency", "review"]
_SSH: Final = "ssh"
_TOKEN: Final = "token"  # noqa: S105  (a kind of signature)


class Predicate(msgspec.Struct, frozen=True, kw_only=True):
    """The predicate of an in-toto statement. It says who decides what about a subject, when and why."""

    decision: Decision
    request: str  # the id of the request that it belongs to
    by: str  # a person of the sign-off policy
    at: str  # RFC 3339, UTC
    subject: Subject
    reason: str = ""


class _ResourceDescriptor(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    digest: dict[str, str]


class _Statement(msgspec.Struct, frozen=True, kw_only=True):
    type: str = msgspec.field(name="_type")
    subject: tuple[_ResourceDescriptor, ...]
    predicate_type: str = msgspec.field(name="predicateType")
    predicate: Predicate


class VerifiedStatement(msgspec.Struct, frozen=True, kw_only=True):
    """A statement whose signature was verified, and the person who signed it."""

    predicate: Predicate
    person: Person
    kept_key: str = (
        ""  # the thumbprint of the key that verified it, where its issuer does not publish that any more
    )

    @property
    def at(self) -> datetime:
        return datetime.fromisoformat(self.predicate.at)


Sign = Callable[[bytes], tuple[str, bytes]]  # the message -> kind and bytes of a signature


def ssh_signer(key: Path) -> Sign:
    """A function that signs with an SSH key. Raises SshKeygenError when it is used."""
    return lambda message: (_SSH, ssh_keygen_signature.sign(message, key))


def token_signer(fetch: Callable[[str], str]) -> Sign:
    """A function that signs with an identity token. `fetch` returns one for the audience that it is given."""
    return lambda message: (
        _TOKEN,
        fetch(verify_identity_token_signature.signature_audience(message)).encode(),
    )


def make_statement(
    decision: Decision, request: str, by: str, subject: Subject, sign: Sign, *, reason: str = ""
) -> dict[str, Any]:
    """Make a signed statement of a decision. It is a DSSE envelope as JSON values."""
    envelope = Envelope(unsigned_statement(decision, request, by, subject, reason=reason), PAYLOAD_TYPE, {})
    kind, signature = sign(envelope.pae())
    key_id = f"{kind}:{by}"
    envelope.signatures[key_id] = Signature(key_id, signature.hex())
    made: dict[str, Any] = msgspec.to_builtins(envelope.to_dict())
    return made


def unsigned_statement(
    decision: Decision, request: str, by: str, subject: Subject, *, reason: str = ""
) -> bytes:
    """Make the unsigned statement of a decision. It is the JSON payload to sign, dated now."""
    predicate = Predicate(
        decision=decision, request=request, by=by, at=now_rfc3339(), subject=subject, reason=reason
    )
    statement = _Statement(
        type=STATEMENT_TYPE,
        subject=tuple(
            _ResourceDescriptor(name=name, digest={"sha256": digest.removeprefix("sha256:")})
            for name, digest in (
                (subject.title, subject.digest()),
                ("image", subject.image),
                ("artifact", subject.artifact),
            )
            if digest
        ),
        predicate_type=PREDICATE_TYPE,
        predicate=predicate,
    )
    return msgspec.json.encode(statement)


def read_statement(
    signed_statement: Mapping[str, Any], policy: SignOffPolicy, keys: IssuerKeys
) -> VerifiedStatement:
    """Read a signed statement, and verify its signature.

    A person of `policy` must have signed it. Raises SigningError that says why it does not count.
    """
    envelope = parse_unverified_envelope(msgspec.json.encode(signed_statement))
    if envelope.payload_type != PAYLOAD_TYPE:
        raise SigningError(f"its payload is of the type {envelope.payload_type[:80]!r}")
    try:
        statement = msgspec.json.decode(envelope.payload, type=_Statement)
    except msgspec.MsgspecError as error:
        raise SigningError(f"its statement cannot be read: {error}") from None
    if (statement.type, statement.predicate_type) != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise SigningError("it is a statement of another kind")
    predicate = statement.predicate
    named = {one.name: one.digest for one in statement.subject}
    if named.get(predicate.subject.title) != {"sha256": predicate.subject.digest()}:
        raise SigningError("its subject is not the one that it describes")
    person = policy.person(predicate.by)
    if person is None:
        raise SigningError(f"{predicate.by[:80]} is not one of the people of the sign-off policy")
    try:
        at = datetime.fromisoformat(predicate.at)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise SigningError(f"its time {predicate.at[:40]!r} is none")
    if not any(
        _is_good(key_id, bytes.fromhex(signature.signature), envelope, person, keys, at)
        for key_id, signature in envelope.signatures.items()
    ):
        raise SigningError(f"it bears no good signature of {person.name}")
    return VerifiedStatement(predicate=predicate, person=person)


def identity_tokens_in(signed_statement: Mapping[str, Any]) -> list[bytes]:
    """The identity tokens among the signatures of a statement. Raises SigningError."""
    envelope = parse_unverified_envelope(msgspec.json.encode(signed_statement))
    return [
        bytes.fromhex(signature.signature)
        for key_id, signature in envelope.signatures.items()
        if key_id.partition(":")[0] == _TOKEN
    ]


def _is_good(
    key_id: str, signature: bytes, envelope: Envelope, person: Person, keys: IssuerKeys, at: datetime
) -> bool:
    kind = key_id.partition(":")[0]
    if kind == _SSH:
        return ssh_keygen_signature.has_signed(envelope.pae(), signature, person.name, person.ssh_keys)
    if kind == _TOKEN:
        return verify_identity_token_signature.has_signed(envelope.pae(), signature, person.tokens, keys, at)
    return False
