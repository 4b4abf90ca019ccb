"""Public keys of token issuers, kept to verify signatures later.

Issuers replace their keys within weeks. A request's document keeps the public key (JWK, RFC 7517) of each identity token that
was verified when it was written, so it is in the hash chain from that write on. An audit can verify the token for good. The
gate never counts on such a key: somebody who can write the registry could keep a key of their own there.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from gateway.auth.jwks import parse_key
from gateway.registry.base import now_rfc3339
from gateway.registry.hash_chain import canonical_json
from gateway.signoff.verify_identity_token_signature import IssuerKeys, token_key_name

_REQUIRED: Final = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y")}  # RFC 7638, section 3.2


class KeptIssuerKey(msgspec.Struct, frozen=True, kw_only=True):
    """A token issuer's public key, kept to verify signatures later. It is kept from the time when it verified a token."""

    issuer: str
    kid: str
    jwk: dict[str, Any]
    thumbprint: str  # SHA-256 (RFC 7638), base64url
    verified_at: str  # RFC 3339, UTC


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """The SHA-256 thumbprint of a public key (RFC 7638), base64url without padding."""
    required = {name: jwk[name] for name in _REQUIRED[str(jwk["kty"])]}
    return base64.urlsafe_b64encode(hashlib.sha256(canonical_json(required)).digest()).decode().rstrip("=")


def keys_that_verify(tokens: Iterable[bytes], keys: IssuerKeys) -> list[KeptIssuerKey]:
    """The issuers' keys that verify `tokens`. They are to be kept. `keys` are those that issuers publish now."""
    found = []
    for token in tokens:
        name = token_key_name(token)
        public = keys.get(name[0], {}).get(name[1]) if name is not None else None
        if name is None or public is None:
            continue
        algorithm = RSAAlgorithm if isinstance(public.key, RSAPublicKey) else ECAlgorithm
        jwk: dict[str, Any] = algorithm.to_jwk(public.key, as_dict=True)
        jwk.pop("key_ops", None)
        found.append(
            KeptIssuerKey(
                issuer=name[0],
                kid=name[1],
                jwk=jwk,
                thumbprint=thumbprint(jwk),
                verified_at=now_rfc3339(),
            )
        )
    return found


def with_kept_keys(keys: IssuerKeys, kept: Iterable[KeptIssuerKey]) -> IssuerKeys:
    """The keys that issuers publish, and the kept ones.

    A kept key is added only where its issuer no longer publishes it. A published key is never replaced.
    """
    merged = {issuer: dict(of_issuer) for issuer, of_issuer in keys.items()}
    for one in kept:
        public = parse_key(one.jwk)
        try:
            is_it = public is not None and thumbprint(one.jwk) == one.thumbprint
        except (KeyError, TypeError, ValueError):
            is_it = False
        if public is not None and is_it:
            merged.setdefault(one.issuer, {}).setdefault(one.kid, public)
    return merged
