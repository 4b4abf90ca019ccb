"""Reads all that a registry holds about sign-off: the policy, the requests with their decisions, and the issuers' keys.

What refuses a write, what shows it, and what audits it read the same records here, so that they cannot disagree.
"""

from datetime import datetime
from typing import NamedTuple

from gateway.registry.base import APPROVALS, SIGN_OFF, Document, Precondition, Registry
from gateway.signoff.approval_requests import StoredPolicy, signed_for
from gateway.signoff.identity_token_signature import fetch_keys
from gateway.signoff.in_toto_statement import Keys, VerifiedStatement
from gateway.signoff.policy import POLICY, SignOffPolicy, parse_policy, policy_digest


class SignOffRecords(NamedTuple):
    """The sign-off policy in force with everything that decides whether something is approved by it."""

    stored: StoredPolicy
    keys: Keys  # that the issuers of the policy's identity tokens publish now
    requests: tuple[Document, ...]
    environment: str  # the registry's id

    def signed_for(
        self, *, title: str, artifact: str, image: str, url: str, until: datetime
    ) -> list[tuple[str, VerifiedStatement]]:
        """The approvals and emergencies that were signed for a version until a time, each with the id of its request."""
        return signed_for(
            self.requests,
            self.stored,
            self.keys,
            environment=self.environment,
            title=title,
            artifact=artifact,
            image=image,
            url=url,
            until=until,
        )


async def read_policy(registry: Registry) -> StoredPolicy | None:
    """The sign-off policy of a registry; None where it asks for nothing. ValueError says what is wrong with it."""
    document = await registry.read(SIGN_OFF, POLICY)
    return None if document is None else stored_policy(document)


def stored_policy(document: Document) -> StoredPolicy:
    """Read the stored policy from its document. ValueError says what is wrong with it."""
    if document.problem:
        raise ValueError(document.problem)
    return StoredPolicy(
        policy=parse_policy(document.body), digest=policy_digest(document.body), revision=document.revision
    )


async def read_records(registry: Registry, stored: StoredPolicy) -> SignOffRecords:
    """Read the records that the policy `stored` is applied to."""
    requests = await registry.list(APPROVALS)
    keys = await issuers_keys(stored.policy)
    return SignOffRecords(stored, keys, requests, (await registry.head()).registry_id)


async def read_sign_off(registry: Registry) -> SignOffRecords | None:
    """Read the sign-off policy and its records; None where there is no policy. ValueError says what is wrong with the policy."""
    stored = await read_policy(registry)
    return None if stored is None else await read_records(registry, stored)


async def issuers_keys(policy: SignOffPolicy) -> Keys:
    """The present keys of all issuers of the policy's identity tokens; no request where there is none."""
    issuers = sorted({token.issuer for person in policy.people for token in person.tokens})
    return await fetch_keys(issuers) if issuers else {}


def policy_precondition(document: Document | None) -> Precondition:
    """The precondition that the sign-off policy is still the one that was read; None: that there is still none."""
    revision = document.revision if document is not None else 0
    return Precondition(kind=SIGN_OFF, name=POLICY, expected=revision)
