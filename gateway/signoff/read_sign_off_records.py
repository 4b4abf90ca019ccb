"""Read the sign-off policy, the approval requests and the token issuers' keys.

The policy and the requests, with their decisions, are in the registry; the keys are those that the issuers publish now.
What refuses a write, what shows it, and what audits it read the same records here, so that they cannot disagree.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final, NamedTuple

from gateway.registry.base import APPROVALS, SIGN_OFF, Document, Precondition, Registry
from gateway.signoff.approval_requests import StoredPolicy, version_sign_offs_until
from gateway.signoff.environment_policy import POLICY, SignOffPolicy, parse_policy, policy_digest
from gateway.signoff.in_toto_statement import VerifiedStatement
from gateway.signoff.verify_identity_token_signature import IssuerKeys, fetch_available_keys

_RECENT_S: Final = 30.0


class SignOffRecords(NamedTuple):
    """The sign-off policy in force, with its requests and keys. These decide what it approves."""

    stored: StoredPolicy
    issuer_keys: IssuerKeys  # that the issuers of the policy's identity tokens publish now
    requests: tuple[Document, ...]
    environment: str  # the registry's id

    def version_sign_offs_until(
        self, *, title: str, artifact: str, image: str, url: str, until: datetime
    ) -> list[tuple[str, VerifiedStatement]]:
        """The version's sign-offs (approvals and emergencies) until a time. Each has the id of its request."""
        return version_sign_offs_until(
            self.requests,
            self.stored,
            self.issuer_keys,
            environment=self.environment,
            title=title,
            artifact=artifact,
            image=image,
            url=url,
            until=until,
        )


async def read_policy(registry: Registry) -> StoredPolicy | None:
    """Read the sign-off policy of a registry. None where there is none. ValueError says what is wrong with it."""
    document = await registry.read(SIGN_OFF, POLICY)
    return None if document is None else parse_stored_policy(document)


def parse_stored_policy(document: Document) -> StoredPolicy:
    """Parse the stored sign-off policy from its document. ValueError says what is wrong with it."""
    if document.problem:
        raise ValueError(document.problem)
    return StoredPolicy(
        policy=parse_policy(document.body), digest=policy_digest(document.body), revision=document.revision
    )


async def read_requests_and_keys(
    registry: Registry, stored: StoredPolicy, issuer_key_cache: "IssuerKeyCache | None" = None
) -> SignOffRecords:
    """Read the approval requests, and fetch the issuers' keys, that the policy `stored` is applied to.

    `issuer_key_cache` is only for a page that decides nothing.
    """
    requests = await registry.list(APPROVALS)
    keys = await (
        issuer_key_cache.find(stored.policy)
        if issuer_key_cache is not None
        else fetch_current_issuer_keys(stored.policy)
    )
    return SignOffRecords(stored, keys, requests, (await registry.head()).registry_id)


async def read_policy_and_records(registry: Registry) -> SignOffRecords | None:
    """Read the sign-off policy of a registry and its records.

    None where there is no policy. ValueError says what is wrong with the policy.
    """
    stored = await read_policy(registry)
    return None if stored is None else await read_requests_and_keys(registry, stored)


async def fetch_current_issuer_keys(policy: SignOffPolicy) -> IssuerKeys:
    """Fetch the public keys that the token issuers of the policy publish now.

    An issuer that cannot be reached has no keys in the result. Where the policy names no issuer, no request is
    made.
    """
    issuers = _issuers(policy)
    return await fetch_available_keys(issuers) if issuers else {}


def _issuers(policy: SignOffPolicy) -> list[str]:
    return sorted({token.issuer for person in policy.people for token in person.tokens})


class IssuerKeyCache:
    """A cache of the token issuers' public keys, for half a minute.

    It is for pages that ask every few seconds as long as somebody looks at them.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = asyncio.Lock()
        self._issuers: list[str] = []
        self._keys: IssuerKeys = {}
        self._until = 0.0

    async def find(self, policy: SignOffPolicy) -> IssuerKeys:
        """The public keys of the policy's token issuers, from the cache. They are at most half a minute old."""
        issuers = _issuers(policy)
        async with self._lock:
            if issuers != self._issuers or self._now() >= self._until:
                self._keys = await fetch_current_issuer_keys(policy)
                self._issuers, self._until = issuers, self._now() + _RECENT_S
            return self._keys


def policy_precondition(document: Document | None) -> Precondition:
    """The precondition that the sign-off policy has not changed.

    It is still that of `document`; None: there is still none.
    """
    revision = document.revision if document is not None else 0
    return Precondition(kind=SIGN_OFF, name=POLICY, expected=revision)
