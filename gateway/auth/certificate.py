"""Client certificates that a load balancer has checked, and tells of in headers.

Nothing in a header proves that the balancer wrote it. So these are read only where the request came through a trusted
proxy, and that proxy must replace them: docs/threat-model.md says how.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase

from gateway.auth.base import Authenticator, Proof
from gateway.core.errors import Unauthenticated
from gateway.core.headers import RequestHead, credential_field
from gateway.core.issuers import Certificate, is_plain_subject
from gateway.core.principal import Principal


class Certificates(Authenticator):
    """`identity_header` says whose certificate it is, `verified_header` that its chain was checked (`true`)."""

    def __init__(self, entries: Iterable[Certificate], *, identity_header: str, verified_header: str) -> None:
        self._entries = tuple(entries)
        self._identity = credential_field(identity_header)
        self._verified = credential_field(verified_header)

    def at_once(self, head: RequestHead) -> Proof | None:
        identity = head.read[self._identity]
        if not identity or not head.vouched:
            return None
        if (head.read[self._verified] or b"").lower() != b"true":
            raise Unauthenticated("Your certificate was not verified.")
        subject = identity.decode("latin-1")
        if is_plain_subject(subject):
            for entry in self._entries:
                if any(fnmatchcase(subject, pattern) for pattern in entry.subjects):
                    principal = Principal(
                        id=f"{entry.name}:{subject}", label=subject, models=entry.models, verbs=entry.verbs
                    )
                    return Proof(principal, spent_authorization=False)
        raise Unauthenticated("Your certificate is good, but not among those that this gateway lets in.")

    async def __call__(self, head: RequestHead) -> Proof | None:
        return self.at_once(head)
