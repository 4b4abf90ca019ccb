"""Signed tokens (OIDC, Google's ID tokens, IAP): verified by the issuer's public keys, then remembered until they end."""

import binascii
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Any, Final, NamedTuple

import aiohttp
import jwt
import msgspec

from gateway.auth.base import LATER, Authenticator, Later, Proof
from gateway.auth.jwks import KeySet, open_session
from gateway.auth.remembered import Remembered
from gateway.core.errors import IssuerUnavailable, Unauthenticated
from gateway.core.headers import AUTHORIZATION, RequestHead, credential_field
from gateway.core.issuers import Issuer, is_plain_subject, resolve_issuer
from gateway.core.principal import Principal
from gateway.core.rules import vouched_for

_MAX_TOKEN_BYTES: Final = 8 * 1024
_BEARER: Final = b"bearer "
_REQUIRED: Final = ["exp", "iat", "iss", "aud"]


class _Header(msgspec.Struct):
    alg: str
    kid: str = ""
    crit: Any = None


class _Claims(msgspec.Struct):
    """What says whose token it is, before anything is verified."""

    iss: str
    aud: str | list[str] = ""


class _Peeked(NamedTuple):
    header: _Header
    claims: _Claims


class _Verified(NamedTuple):
    principal: Principal
    keys: KeySet
    key_id: str


class Tokens(Authenticator):
    """Authenticate tokens of `issuers`.

    A token is ours where one of them is named in it; then it must be good. A verified one is remembered until it ends,
    or until its issuer withdraws the key that signed it.
    """

    def __init__(
        self, issuers: Iterable[Issuer], *, size: int = 20_000, now: Callable[[], float] = time.time
    ) -> None:
        self._now = now
        self._verified: Remembered[_Verified] = Remembered(size)
        self._by_header: dict[int, dict[str, list[Issuer]]] = {}
        self._keys: dict[str, KeySet] = {}
        self._session: aiohttp.ClientSession
        for given in issuers:
            issuer = resolve_issuer(given)
            field = AUTHORIZATION if issuer.header == "authorization" else credential_field(issuer.header)
            for name in issuer.issuer:
                self._by_header.setdefault(field, {}).setdefault(name, []).append(issuer)
            source = _source(issuer)
            if source not in self._keys:
                self._keys[source] = KeySet(issuer.jwks, issuer="" if issuer.jwks else source)

    async def start(self) -> None:
        self._session = open_session(keys.host for keys in self._keys.values())

    async def stop(self) -> None:
        for keys in self._keys.values():
            await keys.close()
        await self._session.close()

    def at_once(self, head: RequestHead) -> Proof | Later | None:
        for field in self._by_header:
            value = head.read[field]
            if value is not None:
                token = _bearer(value) if field == AUTHORIZATION else value
                found = None if token is None else self._at_once(field, token)
                if found is not None:
                    return found
        return None

    async def __call__(self, head: RequestHead) -> Proof | None:
        for field in self._by_header:
            value = head.read[field]
            token = value if value is None or field != AUTHORIZATION else _bearer(value)
            if token is None:
                continue
            found = self._at_once(field, token)
            if found is LATER:
                found = await self._verify_with_new_keys(field, token)
            if found is not None:
                return found
        return None

    def claims(self, authorization: bytes) -> bool:
        token = _bearer(authorization)
        peeked = None if token is None else _peek(token)
        if peeked is None:
            return False
        issuers = self._by_header.get(AUTHORIZATION, {}).get(peeked.claims.iss, ())
        return any(_is_meant_for(peeked.claims, issuer) for issuer in issuers)

    def _at_once(self, field: int, token: bytes) -> Proof | Later | None:
        in_authorization = field == AUTHORIZATION
        digest = sha256(token).digest()
        known = self._verified.get(digest, self._now())
        if known is not None and known.keys.find(known.key_id) is not None:
            known.keys.refresh_soon(self._session)
            return Proof(known.principal, in_authorization)
        if len(token) > _MAX_TOKEN_BYTES:
            if in_authorization:
                return None  # too long to be looked into, so nobody's
            raise Unauthenticated("The token is longer than any this gateway takes.")
        peeked = _peek(token)
        issuers = None if peeked is None else self._by_header[field].get(peeked.claims.iss)
        if peeked is None or issuers is None:
            if in_authorization:
                return None
            raise Unauthenticated("The token is not of an issuer that this gateway trusts.")
        keys = self._keys[_source(issuers[0])]
        if keys.find(peeked.header.kid) is None:
            return LATER
        keys.refresh_soon(self._session)
        return Proof(self._verify(digest, token, peeked, issuers, keys), in_authorization)

    async def _verify_with_new_keys(self, field: int, token: bytes) -> Proof:
        peeked = _peek(token)
        assert peeked is not None  # noqa: S101  (it could be read a moment ago)
        issuers = self._by_header[field][peeked.claims.iss]
        keys = self._keys[_source(issuers[0])]
        await keys.refresh(self._session)
        if not keys.is_usable():
            raise IssuerUnavailable("Your token cannot be checked now: its issuer's keys cannot be fetched.")
        principal = self._verify(sha256(token).digest(), token, peeked, issuers, keys)
        return Proof(principal, field == AUTHORIZATION)

    def _verify(
        self, digest: bytes, token: bytes, peeked: _Peeked, issuers: list[Issuer], keys: KeySet
    ) -> Principal:
        """Raises Unauthenticated, never with a word of the token in it."""
        header = peeked.header
        public = keys.find(header.kid)
        if public is None:
            raise Unauthenticated("The token is signed with a key that its issuer does not publish.")
        # The key says which algorithm it is for. What the token says of itself is only compared with that.
        if header.alg != public.algorithm or header.crit is not None:
            raise Unauthenticated("The token is signed in a way that this gateway does not take.")
        meant = [issuer for issuer in issuers if _is_meant_for(peeked.claims, issuer)]
        if not meant:
            raise Unauthenticated("The token is made for another audience.")
        if public.algorithm not in meant[0].algorithms:
            raise Unauthenticated("The token is signed in a way that this gateway does not take.")
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                public.key,
                algorithms=[public.algorithm],
                audience=[audience for issuer in meant for audience in issuer.audience],
                issuer=[name for issuer in meant for name in issuer.issuer],
                leeway=min(issuer.skew_s for issuer in meant),
                options={"require": _REQUIRED},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("The token has expired.") from None
        except jwt.ImmatureSignatureError:
            raise Unauthenticated("The token is not valid yet; are the clocks right?") from None
        except jwt.PyJWTError:
            raise Unauthenticated("The token cannot be verified.") from None
        principal = _principal(claims, meant)
        until = min(float(claims["exp"]) + meant[0].skew_s, self._now() + 24 * 3600)
        self._verified.put(digest, _Verified(principal, keys, header.kid), until)
        return principal


def _source(issuer: Issuer) -> str:
    """Where its keys come from: their own address, or the issuer's, which tells that."""
    return issuer.jwks or issuer.issuer[0]


def _principal(claims: dict[str, Any], issuers: list[Issuer]) -> Principal:
    for issuer in issuers:
        subject = claims.get(issuer.claim)
        if not isinstance(subject, str) or not is_plain_subject(subject):
            continue
        if issuer.claim == "email" and issuer.preset != "iap" and claims.get("email_verified") is not True:
            continue  # an address that nobody has checked is anybody's
        if _fits(subject, issuer.subjects) and (
            not issuer.groups or any(_fits(group, issuer.groups) for group in _groups(claims, issuer))
        ):
            return vouched_for(issuer, subject)
    raise Unauthenticated("The token is good, but its holder is not among those whom this gateway lets in.")


def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _groups(claims: dict[str, Any], issuer: Issuer) -> list[str]:
    listed = claims.get(issuer.groups_claim)
    if isinstance(listed, str):
        return listed.split()
    return [group for group in listed if isinstance(group, str)] if isinstance(listed, list) else []


def _is_meant_for(claims: _Claims, issuer: Issuer) -> bool:
    audiences = [claims.aud] if isinstance(claims.aud, str) else claims.aud
    return any(audience in issuer.audience for audience in audiences)


def _bearer(authorization: bytes) -> bytes | None:
    return authorization[7:].strip() if authorization[:7].lower() == _BEARER else None


def _peek(token: bytes) -> _Peeked | None:
    """What a token says of itself; None where it is no token at all. Proves nothing."""
    parts = token.split(b".")
    if len(parts) != 3 or len(token) > _MAX_TOKEN_BYTES:
        return None
    try:
        header, claims = (urlsafe_b64decode(part + b"=" * (-len(part) % 4)) for part in parts[:2])
        return _Peeked(msgspec.json.decode(header, type=_Header), msgspec.json.decode(claims, type=_Claims))
    except (binascii.Error, ValueError, msgspec.MsgspecError, RecursionError):
        return None
