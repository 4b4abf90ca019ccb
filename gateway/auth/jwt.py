"""Authenticate callers by signed tokens (JWT).

They are OIDC tokens, Google's ID tokens and IAP's. A token is verified by its issuer's public keys, then
remembered until it expires.
"""

import binascii
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Any, Final, NamedTuple

import aiohttp
import jwt
import msgspec

from gateway.auth.base import Authentication, Authenticator
from gateway.auth.jwks import JwksKeySet, PublicKey, open_ssrf_guarded_session
from gateway.auth.ttl_cache import TtlCache
from gateway.core.compiled_model_policy import principal_from_rule
from gateway.core.errors import IssuerUnavailable, Unauthenticated
from gateway.core.header_classification import AUTHORIZATION, RequestHead, register_credential_field
from gateway.core.needs_wait_sentinel import NEEDS_WAIT, NeedsWait
from gateway.core.principal import Principal
from gateway.core.token_and_certificate_rules import IssuerRule, apply_preset, is_printable_subject
from gateway.thread_and_task_supervisor import Supervisor

_MAX_TOKEN_BYTES: Final = 8 * 1024
_BEARER: Final = b"bearer "
_LONGEST_S: Final = 24 * 3600.0
_YEAR_10000: Final = 253_402_300_800.0
_JWS: Final = jwt.PyJWS()


class _Header(msgspec.Struct):
    alg: str
    kid: str = ""
    crit: Any = None


class _Claims(msgspec.Struct):
    """What says whose token it is, before anything is verified."""

    iss: str
    aud: str | list[str] = ""


class _UnverifiedToken(NamedTuple):
    header: _Header
    claims: _Claims


class _Candidate(NamedTuple):
    """An entry of the settings, and the keys by which its tokens are verified."""

    issuer: IssuerRule
    keys: JwksKeySet


class _Verified(NamedTuple):
    principal: Principal
    key_id: str
    seen: tuple[tuple[JwksKeySet, PublicKey | None], ...]  # the keys by which it was decided

    def holds(self) -> bool:
        """Whether the same keys would be found now."""
        for keys, public in self.seen:  # noqa: SIM110  (a generator would cost as much as the look-up)
            if keys.find(self.key_id) is not public:
                return False
        return True


class TokenAuthenticator(Authenticator):
    """Authenticate a caller by a token of one of `issuers`.

    A token that names one of the issuers must be valid. The first entry that accepts it decides, by its own header,
    audience, algorithms, keys, clock skew, subjects and groups. The verdict is cached for the header that the token came in,
    until the token expires or one of the keys changes.
    """

    def __init__(
        self,
        issuers: Iterable[IssuerRule],
        *,
        size: int = 20_000,
        now: Callable[[], float] = time.time,
        supervisor: Supervisor | None = None,
    ) -> None:
        self._now = now
        self._verified: TtlCache[_Verified] = TtlCache(size)
        self._by_header: dict[int, dict[str, list[_Candidate]]] = {}
        self._keys: dict[str, JwksKeySet] = {}
        self._session: aiohttp.ClientSession
        for given in issuers:
            issuer = apply_preset(given)
            field = (
                AUTHORIZATION
                if issuer.header == "authorization"
                else register_credential_field(issuer.header)
            )
            source = _jwks_url(issuer)
            if source not in self._keys:
                self._keys[source] = JwksKeySet(
                    issuer.jwks, issuer="" if issuer.jwks else source, supervisor=supervisor
                )
            for name in issuer.issuer:
                candidates = self._by_header.setdefault(field, {}).setdefault(name, [])
                candidates.append(_Candidate(issuer, self._keys[source]))

    async def start(self) -> None:
        self._session = open_ssrf_guarded_session(keys.issuer_host for keys in self._keys.values())

    async def stop(self) -> None:
        for keys in self._keys.values():
            await keys.close()
        await self._session.close()

    def try_nowait(self, head: RequestHead) -> Authentication | NeedsWait | None:
        for field in self._by_header:
            value = head.read[field]
            if value is not None:
                token = _bearer(value) if field == AUTHORIZATION else value
                found = None if token is None else self._authenticate_nowait(field, token)
                if found is not None:
                    return found
        return None

    async def __call__(self, head: RequestHead) -> Authentication | None:
        for field in self._by_header:
            value = head.read[field]
            token = value if value is None or field != AUTHORIZATION else _bearer(value)
            if token is None:
                continue
            found = self._authenticate_nowait(field, token)
            if found is NEEDS_WAIT:
                found = await self._decide_with_new_keys(field, token)
            if found is not None:
                return found
        return None

    def owns_authorization(self, authorization: bytes) -> bool:
        token = _bearer(authorization)
        unverified = None if token is None else _read_unverified(token)
        return unverified is not None and any(
            _has_audience(unverified.claims, candidate.issuer)
            for candidate in self._by_header.get(AUTHORIZATION, {}).get(unverified.claims.iss, ())
        )

    def _authenticate_nowait(self, field: int, token: bytes) -> Authentication | NeedsWait | None:
        in_authorization = field == AUTHORIZATION
        remembered_as = field, sha256(token).digest()
        known = self._verified.get(remembered_as, self._now())
        if known is not None and known.holds():
            for keys, _ in known.seen:
                keys.refresh_in_background(self._session)
            return Authentication(known.principal, in_authorization)
        if len(token) > _MAX_TOKEN_BYTES:
            if in_authorization:
                return None  # too long to be looked into, so nobody's
            raise Unauthenticated("The token is longer than this gateway accepts.")
        unverified = _read_unverified(token)
        if unverified is None or unverified.claims.iss not in self._by_header[field]:
            if in_authorization:
                return None
            raise Unauthenticated("The token's issuer is not one that this gateway trusts.")
        candidates = self._candidates(field, unverified)
        decided = self._decide(remembered_as, token, unverified, candidates)
        if decided is NEEDS_WAIT:
            return NEEDS_WAIT
        for candidate in candidates:
            candidate.keys.refresh_in_background(self._session)
        return Authentication(decided, in_authorization)

    async def _decide_with_new_keys(self, field: int, token: bytes) -> Authentication:
        unverified = _read_unverified(token)
        assert unverified is not None  # noqa: S101  (it could be read a moment ago)
        candidates = self._candidates(field, unverified)
        for keys in {id(keys): keys for _, keys in candidates}.values():
            if keys.find(unverified.header.kid) is None:
                await keys.refresh(self._session)
        decided = self._decide((field, sha256(token).digest()), token, unverified, candidates, final=True)
        assert decided is not NEEDS_WAIT  # noqa: S101  (that is what `final` says)
        return Authentication(decided, field == AUTHORIZATION)

    def _candidates(self, field: int, unverified: _UnverifiedToken) -> list[_Candidate]:
        """The entries for the issuer and the audience that the token names, in the order of the settings."""
        issuers = self._by_header[field][unverified.claims.iss]
        return [candidate for candidate in issuers if _has_audience(unverified.claims, candidate.issuer)]

    def _decide(
        self,
        remembered_as: tuple[int, bytes],
        token: bytes,
        unverified: _UnverifiedToken,
        candidates: Sequence[_Candidate],
        *,
        final: bool = False,
    ) -> Principal | NeedsWait:
        """Whose token it is: NEEDS_WAIT where keys must be fetched first, unless `final`. Raises Unauthenticated.

        No message holds a word of the token.
        """
        refusal: Unauthenticated | None = None
        seen: list[tuple[JwksKeySet, PublicKey | None]] = []
        lasts = True
        for issuer, keys in candidates:
            public = keys.find(unverified.header.kid)
            seen.append((keys, public))
            if public is None:
                if not final:
                    return NEEDS_WAIT
                if not keys.has_usable_keys():
                    raise IssuerUnavailable(
                        "Your token cannot be checked now: its issuer's keys cannot be fetched."
                    )
            try:
                claims = _verify(token, unverified.header, public, issuer)
                ends_at = _check_times(claims, issuer.skew_s, self._now())
                principal = _principal(claims, issuer)
            except _Early as error:
                refusal = refusal or error
                lasts = False  # this entry may take it a moment later, before another one is asked
            except Unauthenticated as error:
                refusal = refusal or error
            else:
                if lasts:
                    until = min(ends_at, self._now() + _LONGEST_S)
                    self._verified.put(
                        remembered_as, _Verified(principal, unverified.header.kid, tuple(seen)), until
                    )
                return principal
        raise refusal or Unauthenticated("The token is made for another audience.")


class _Early(Unauthenticated):
    """Not valid yet."""


def _verify(token: bytes, header: _Header, public: PublicKey | None, issuer: IssuerRule) -> dict[str, Any]:
    """The claims of a token whose signature is good. Raises Unauthenticated."""
    if public is None:
        raise Unauthenticated("The token is signed with a key that its issuer does not publish.")
    # The key says which algorithm it is for. What the token says of itself is only compared with that.
    if header.alg != public.algorithm or header.crit is not None or public.algorithm not in issuer.algorithms:
        raise Unauthenticated("The token is signed with an algorithm that this gateway does not accept.")
    try:
        payload: bytes = _JWS.decode(token, public.key, algorithms=[public.algorithm])
        # One parser for what is peeked at and for what is believed: two could read a doubled name differently.
        return msgspec.json.decode(payload, type=dict[str, Any])
    except (jwt.PyJWTError, msgspec.MsgspecError, ValueError, TypeError, ArithmeticError, RecursionError):
        raise Unauthenticated("The token cannot be verified.") from None


def _check_times(claims: dict[str, Any], skew_s: float, now: float) -> float:
    """Until when the token is good, in seconds since the epoch. Raises Unauthenticated (RFC 7519 section 4.1)."""
    expires, issued = _date(claims, "exp"), _date(claims, "iat")
    begins = _date(claims, "nbf") if "nbf" in claims else issued
    if expires + skew_s <= now:
        raise Unauthenticated("The token has expired.")
    if max(issued, begins) - skew_s > now:
        raise _Early("The token is not valid yet; are the clocks right?")
    return expires + skew_s


def _date(claims: dict[str, Any], name: str) -> float:
    """A NumericDate: seconds since the epoch, whole or not. Raises Unauthenticated for what is none before the year 10000."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _YEAR_10000:
        raise Unauthenticated("The token cannot be verified.")
    return float(value)


def _jwks_url(issuer: IssuerRule) -> str:
    """Where its keys come from: their own address, or the issuer's, which tells that."""
    return issuer.jwks or issuer.issuer[0]


def _principal(claims: dict[str, Any], issuer: IssuerRule) -> Principal:
    subject = claims.get(issuer.claim)
    # An address that nobody has checked is anybody's.
    checked = issuer.claim != "email" or issuer.preset == "iap" or claims.get("email_verified") is True
    if (
        checked
        and isinstance(subject, str)
        and is_printable_subject(subject)
        and _matches(subject, issuer.subjects)
        and (not issuer.groups or any(_matches(group, issuer.groups) for group in _groups(claims, issuer)))
    ):
        return principal_from_rule(issuer, subject)
    raise Unauthenticated(
        "The token is valid, but no rule of this gateway admits its holder. Ask its operator."
    )


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _groups(claims: dict[str, Any], issuer: IssuerRule) -> list[str]:
    listed = claims.get(issuer.groups_claim)
    if isinstance(listed, str):
        return listed.split()
    return [group for group in listed if isinstance(group, str)] if isinstance(listed, list) else []


def _has_audience(claims: _Claims, issuer: IssuerRule) -> bool:
    audiences = [claims.aud] if isinstance(claims.aud, str) else claims.aud
    return any(audience in issuer.audience for audience in audiences)


def _bearer(authorization: bytes) -> bytes | None:
    return authorization[7:].strip() if authorization[:7].lower() == _BEARER else None


def _read_unverified(token: bytes) -> _UnverifiedToken | None:
    """What a token says of itself; None where it is no token at all. Proves nothing."""
    parts = token.split(b".")
    if len(parts) != 3 or len(token) > _MAX_TOKEN_BYTES:
        return None
    try:
        header, claims = (urlsafe_b64decode(part + b"=" * (-len(part) % 4)) for part in parts[:2])
        return _UnverifiedToken(
            msgspec.json.decode(header, type=_Header), msgspec.json.decode(claims, type=_Claims)
        )
    except (binascii.Error, ValueError, msgspec.MsgspecError, RecursionError):
        return None
