"""Verify an identity token (OpenID Connect) as a signature of one statement.

An identity token says who somebody is, not what they agree to. So it counts only where its audience or its nonce is the
digest of the statement: it was then asked for to approve this, and is worth nothing anywhere else. Google makes such tokens
for service accounts (`gcloud auth print-identity-token --audiences=…`); other issuers take a nonce.

Every site where somebody signs in chooses the nonce of their token. So a nonce counts only in a token for a client that the
policy names: any other site could have somebody sign in, and gets their approval.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import jwt
import msgspec

from gateway.auth.jwks import JwksKeySet, PublicKey, open_ssrf_guarded_session
from gateway.signoff.environment_policy import AcceptedIdentity

IssuerKeys = Mapping[str, Mapping[str, PublicKey]]  # of issuers of identity tokens, by key id
_PREFIX: Final = "chips-approval:sha256:"
_MAX_BYTES: Final = 8 * 1024
_SKEW_S: Final = 300.0


class _Header(msgspec.Struct):
    alg: str
    kid: str = ""


class _Claims(msgspec.Struct):
    iss: str
    sub: str
    iat: float
    exp: float
    aud: str | list[str] = ""
    nonce: str = ""
    email: str = ""
    email_verified: bool | str = False


def signature_audience(message: bytes) -> str:
    """The audience that an identity token must have, to count as a signature of `message`."""
    return _PREFIX + hashlib.sha256(message).hexdigest()


async def fetch_available_keys(issuers: Sequence[str]) -> dict[str, dict[str, PublicKey]]:
    """Fetch the present public keys of the token issuers that can be reached.

    Their discovery documents say where. An issuer that cannot be reached has no keys in the result.
    """
    sets = {issuer: JwksKeySet("", issuer=issuer) for issuer in issuers}
    async with open_ssrf_guarded_session(keys.issuer_host for keys in sets.values()) as session:
        for keys in sets.values():
            await keys.refresh(session)
            await keys.close()
    return {issuer: keys.keys for issuer, keys in sets.items()}


def token_key_name(token: bytes) -> tuple[str, str] | None:
    """The issuer and the key id that a token names. None where it is no token. The token is not verified."""
    if len(token) > _MAX_BYTES:
        return None
    try:
        header = msgspec.convert(jwt.get_unverified_header(token), _Header)
        issuer = msgspec.convert(jwt.decode(token, options={"verify_signature": False}), _Claims).iss
    except (jwt.PyJWTError, msgspec.ValidationError, ValueError, RecursionError):
        return None
    return issuer, header.kid


def has_signed(
    message: bytes,
    token: bytes,
    tokens: Sequence[AcceptedIdentity],
    keys: IssuerKeys,
    at: datetime,
) -> bool:
    """Whether `token` signs `message`.

    A token that signs is of an accepted identity, was valid at the time `at`, and was made for `message`. `keys` decides
    which keys count: the gate gives it those that issuers publish now, an audit also those that were kept.
    """
    name = token_key_name(token)
    public = keys.get(name[0], {}).get(name[1]) if name is not None else None
    if public is None:
        return False
    try:
        options: Any = {"verify_aud": False, "verify_exp": False, "verify_iat": False, "verify_nbf": False}
        verified = jwt.decode(token, public.key, algorithms=[public.algorithm], options=options)
        claims = msgspec.convert(verified, _Claims)
    except (jwt.PyJWTError, msgspec.ValidationError, ValueError):
        return False
    if not claims.iat - _SKEW_S <= at.timestamp() <= claims.exp + _SKEW_S:
        return False
    made_for = signature_audience(message)
    return any(_is_of(claims, wanted) and _was_made_for(claims, made_for, wanted) for wanted in tokens)


def _was_made_for(claims: _Claims, made_for: str, wanted: AcceptedIdentity) -> bool:
    audience = {claims.aud} if isinstance(claims.aud, str) else set(claims.aud)
    by_nonce = bool(wanted.client) and wanted.client in audience and claims.nonce == made_for
    return by_nonce or made_for in audience


def _is_of(claims: _Claims, wanted: AcceptedIdentity) -> bool:
    if claims.iss != wanted.issuer:
        return False
    if wanted.subject:
        return claims.sub == wanted.subject
    return claims.email == wanted.email and claims.email_verified in {True, "true"}
