"""Client certificates that a load balancer has checked, and tells of in headers.

Nothing in a header proves that the balancer wrote it. So these are read only where the request came through a trusted
proxy, and that proxy must replace them: docs/threat-model.md says how.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

from gateway.auth.base import Authenticator, Proof
from gateway.core.errors import Unauthenticated
from gateway.core.headers import RequestHead, credential_field
from gateway.core.issuers import Certificate, is_plain_subject
from gateway.core.principal import Principal
from gateway.core.rules import vouched_for

_REMEMBERED: Final = 10_000


class Certificates(Authenticator):
    """`identity_header` says whose certificate it is, `verified_header` that its chain was checked (`true`)."""

    def __init__(self, entries: Iterable[Certificate], *, identity_header: str, verified_header: str) -> None:
        self._entries = tuple(entries)
        self._identity = credential_field(identity_header)
        self._verified = credential_field(verified_header)
        self._known: dict[bytes, Principal] = {}  # what the settings say of an identity does not change

    def at_once(self, head: RequestHead) -> Proof | None:
        identity = head.read[self._identity]
        if not identity or not head.vouched:
            return None
        if (head.read[self._verified] or b"").lower() != b"true":
            raise Unauthenticated("Your certificate was not verified.")
        principal = self._known.get(identity) or self._principal(identity)
        return Proof(principal, spent_authorization=False)

    async def __call__(self, head: RequestHead) -> Proof | None:
        return self.at_once(head)

    def _principal(self, identity: bytes) -> Principal:
        subject = identity.decode("latin-1")
        if is_plain_subject(subject):
            for entry in self._entries:
                if any(fnmatchcase(subject, pattern) for pattern in entry.subjects):
                    if len(self._known) >= _REMEMBERED:
                        self._known.clear()
                    principal = self._known[identity] = vouched_for(entry, subject)
                    return principal
        raise Unauthenticated("Your certificate is good, but not among those that this gateway lets in.")
