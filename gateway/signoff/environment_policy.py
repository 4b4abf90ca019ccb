"""The sign-off policy of one environment: whose approvals and what evidence a version needs there, and how long they hold.

It is a document of the environment's registry, written from a file in TOML. Its digest is part of what every approval
binds: when the policy changes, all approvals end.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from gateway.core.model_updates import to_document
from gateway.registry.base import SIGN_OFF_POLICY
from gateway.registry.hash_chain import text_digest

POLICY: Final = SIGN_OFF_POLICY

_PERSON: Final = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._+@-]{0,199}"
)  # no comma, blank or wildcard: ssh-keygen(1)
_ROLE: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")
_SSH_KEY: Final = re.compile(
    r"(?:ssh-ed25519|sk-ssh-ed25519@openssh\.com|ecdsa-sha2-nistp(?:256|384|521)|"
    r"sk-ecdsa-sha2-nistp256@openssh\.com|ssh-rsa) [A-Za-z0-9+/]{40,8000}={0,3}"
)


class AcceptedIdentity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An identity whose tokens prove who a person is.

    It has an issuer, and a verified e-mail address or a subject (OpenID Connect Core 2).
    """

    issuer: str = "https://accounts.google.com"
    email: str = ""
    subject: str = ""
    client: str = ""  # whose tokens may have the statement's digest as their nonce; empty: no client's


class Person(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A person who may request or approve. The keys and tokens say how they prove who they are."""

    name: str
    roles: tuple[str, ...] = ()
    ssh_keys: tuple[str, ...] = ()  # public keys, as in the file that ssh-keygen writes
    tokens: tuple[AcceptedIdentity, ...] = ()


class EmergencyRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The policy's rule for who may act alone in an emergency.

    It says who may put a version into service alone, and how soon somebody else must review it.
    """

    people: tuple[str, ...] = ()
    review_days: float = 3.0


class SignOffPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A sign-off policy: what a version needs before it may serve."""

    people: tuple[Person, ...]
    approvals: dict[str, int]  # how many people of each role
    evidence: tuple[str, ...] = ()  # sorts of records, as `chips evidence` lists them
    valid_days: float = 14.0  # how long an approval holds
    evidence_days: float = 0.0  # how old evidence may be, apart from the model card; 0: of any age
    emergency: EmergencyRule = EmergencyRule()

    def person(self, name: str) -> Person | None:
        return next((person for person in self.people if person.name == name), None)


def parse_policy_toml(text: str) -> SignOffPolicy:
    """Parse a sign-off policy from the text of a TOML file. ValueError lists everything that is wrong."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"it is not valid TOML: {error}") from None
    return parse_policy(content)


def parse_policy(content: Mapping[str, Any]) -> SignOffPolicy:
    """Parse a policy from its registry document. ValueError lists everything that is wrong."""
    try:
        policy = msgspec.convert(content, SignOffPolicy)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    problems = policy_problems(policy)
    if problems:
        raise ValueError("; ".join(problems))
    return policy


def policy_document(policy: SignOffPolicy) -> dict[str, Any]:
    """The registry document of a policy.

    Without a limit on the age of evidence it is the document of releases that knew none.
    """
    document = to_document(policy)
    if not policy.evidence_days:
        del document["evidence_days"]
    return document


def policy_digest(body: Mapping[str, Any]) -> str:
    """The digest of a policy's document, in hexadecimal."""
    digest = text_digest(msgspec.json.encode(body, order="sorted").decode())
    assert digest is not None  # noqa: S101  (of a text there is one)
    return digest


def policy_problems(policy: SignOffPolicy) -> list[str]:
    """Everything that is wrong with a policy. Each problem is a sentence."""
    names = [person.name for person in policy.people]
    folded = [name.casefold() for name in names]
    problems = [f"{name} is listed twice" for name in sorted({n for n in folded if folded.count(n) > 1})]
    keys = [key for person in policy.people for key in person.ssh_keys]
    problems += [
        f"two people have the key {key[:40]}…" for key in sorted({k for k in keys if keys.count(k) > 1})
    ]
    tokens = [
        (token.issuer, token.email.casefold() or token.subject)
        for person in policy.people
        for token in person.tokens
    ]
    problems += [
        f"the token of {issuer} for {account} is listed twice, and it proves to be one person"
        for issuer, account in sorted({t for t in tokens if tokens.count(t) > 1})
    ]
    for person in policy.people:
        problems += [f"{person.name}: {problem}" for problem in _person_problems(person)]
    if not policy.approvals:
        problems.append("approvals: say how many of which role, such as {approver = 2}")
    for role, count in policy.approvals.items():
        holders = sum(role in person.roles for person in policy.people)
        if not _ROLE.fullmatch(role):
            problems.append(f"approvals: {role[:80]!r} cannot be a role")
        elif count < 1:
            problems.append(f"approvals: {count} people of the role {role} are none; leave it out")
        elif holders < count:
            problems.append(
                f"approvals: {count} people of the role {role} are asked for, and {holders} have it"
            )
    problems += [
        f"evidence: {sort[:80]!r} is no sort of it" for sort in policy.evidence if not _ROLE.fullmatch(sort)
    ]
    if not 0 < policy.valid_days <= 366:
        problems.append("valid_days must lie between 0 and 366")
    if not 0 <= policy.evidence_days <= 3660:
        problems.append("evidence_days must lie between 0 and 3660")
    if not 0 < policy.emergency.review_days <= 366:
        problems.append("emergency.review_days must lie between 0 and 366")
    problems += [
        f"emergency: there is no {name} among the people"
        for name in policy.emergency.people
        if name not in names
    ]
    return problems


def _person_problems(person: Person) -> list[str]:
    problems = []
    if not _PERSON.fullmatch(person.name):
        problems.append("a name is an address such as ana@example.com, without blanks, commas or wildcards")
    problems += [f"{role[:80]!r} cannot be a role" for role in person.roles if not _ROLE.fullmatch(role)]
    problems += [
        f"{key[:60]!r} is not an SSH public key without its comment, such as ssh-ed25519 AAAA…"
        for key in person.ssh_keys
        if not _SSH_KEY.fullmatch(key)
    ]
    for token in person.tokens:
        if bool(token.email) == bool(token.subject):
            problems.append("a token is known by its email or its subject: give one of them")
        if not token.issuer.startswith(("https://", "http://127.0.0.1:")):
            problems.append(f"the issuer {token.issuer[:80]!r} must begin with https://")
    if not person.ssh_keys and not person.tokens:
        problems.append("nobody could prove to be this person: give ssh_keys or tokens")
    return problems


def unfilled_role_places(required: Mapping[str, int], approvers: Sequence[Person]) -> list[str]:
    """The places of the required roles that the approvers leave unfilled: a role once for each missing person.

    Each person fills one place of one role.
    """
    places = [role for role, count in required.items() for _ in range(count)]
    filled: dict[int, Person] = {}

    def find_place(person: Person, tried: set[int]) -> bool:
        """An augmenting path: who has a place moves on, where that makes room."""
        for index, role in enumerate(places):
            if role not in person.roles or index in tried:
                continue
            tried.add(index)
            if index not in filled or find_place(filled[index], tried):
                filled[index] = person
                return True
        return False

    for person in approvers:
        find_place(person, set())
    return [role for index, role in enumerate(places) if index not in filled]
