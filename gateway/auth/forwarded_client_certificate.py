"""Authenticate callers by a client certificate (mTLS) that a trusted proxy verified and describes in headers.

The proxy is a load balancer that ends TLS. Nothing in a header proves that the balancer wrote it. So these are read only
where the request came through a trusted proxy, and that proxy must replace them: docs/threat-model.md says how.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

from gateway.auth.base import Authentication, Authenticator
from gateway.core.compiled_model_policy import principal_from_rule
from gateway.core.errors import Unauthenticated
from gateway.core.header_classification import RequestHead, register_credential_field
from gateway.core.principal import Principal
from gateway.core.token_and_certificate_rules import ForwardedCertificateRule, is_printable_subject

_REMEMBERED: Final = 10_000


class CertificateAuthenticator(Authenticator):
    """Authenticate a caller by a client certificate.

    A load balancer describes the certificate in headers. `identity_header` names its subject, and `verified_header` is
    `true` where the load balancer checked its chain.
    """

    def __init__(
        self, entries: Iterable[ForwardedCertificateRule], *, identity_header: str, verified_header: str
    ) -> None:
        self._entries = tuple(entries)
        self._identity = register_credential_field(identity_header)
        self._verified = register_credential_field(verified_header)
        self._known: dict[bytes, Principal] = {}  # what the settings say of an identity does not change

    def try_nowait(self, head: RequestHead) -> Authentication | None:
        identity = head.read[self._identity]
        if not identity or not head.vouched:
            return None
        if (head.read[self._verified] or b"").lower() != b"true":
            raise Unauthenticated("Your certificate was not verified.")
        principal = self._known.get(identity) or self._principal(identity)
        return Authentication(principal, consumed_authorization=False)

    async def __call__(self, head: RequestHead) -> Authentication | None:
        return self.try_nowait(head)

    def _principal(self, identity: bytes) -> Principal:
        subject = identity.decode("latin-1")
        if is_printable_subject(subject):
            for entry in self._entries:
                if any(fnmatchcase(subject, pattern) for pattern in entry.subjects):
                    if len(self._known) >= _REMEMBERED:
                        self._known.clear()
                    principal = self._known[identity] = principal_from_rule(entry, subject)
                    return principal
        raise Unauthenticated(
            "Your certificate is valid, but no rule of this gateway admits it. Ask its operator."
        )
