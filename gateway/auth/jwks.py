"""Fetch and cache the public keys of a token issuer.

They are a JSON Web Key Set (RFC 7517). They are fetched on first use, cached for their lifetime and refreshed in the
background. Where they are is a setting, or said by the issuer's discovery document (OpenID Connect Discovery 1.0). An
address that such a document names is not trusted: it must be https, and lead to public addresses or to the issuer's own
host.
"""

import asyncio
import logging
import re
import socket
import time
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import jwt
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from gateway.core.ip_network_set import embedded_ipv4_addresses
from gateway.core.read_at_most import read_at_most
from gateway.core.token_and_certificate_rules import is_trusted_jwks_url
from gateway.thread_and_task_supervisor import Supervisor

_log = logging.getLogger(__name__)

_TIMEOUT_S: Final = 5.0
_MAX_BYTES: Final = 256 * 1024
_DISCOVERY: Final = "/.well-known/openid-configuration"
_MAX_KEYS: Final = 100
_MIN_AGE_S: Final = 300.0  # however short an issuer says; and however long:
_MAX_AGE_S: Final = 24 * 3600.0
_STALE_S: Final = 24 * 3600.0  # for which keys serve on while the issuer is away
_RETRY_S: Final = 30.0  # between two fetches, whatever is asked for: strangers choose the key ids
_MAX_AGE: Final = re.compile(r"max-age=(\d{1,9})")


class PublicKey(NamedTuple):
    """A public key and its signature algorithm. It verifies signatures of that one algorithm."""

    algorithm: str
    key: Any


class JwksKeySet:
    """The public keys of one issuer, fetched from `url` and cached.

    They are found by key id (`kid`). `find` never waits; `refresh` fetches, once for all who wait at that time. Without
    a `url`, the discovery document of `issuer` names the address; it is read again with each fetch. While that document
    cannot be read or is not valid, the last known address is used.
    """

    def __init__(
        self,
        url: str,
        *,
        issuer: str = "",
        now: Callable[[], float] = time.monotonic,
        supervisor: Supervisor | None = None,
    ) -> None:
        self._supervisor = supervisor or Supervisor()
        self.url = url
        self._issuer = issuer
        self.keys: dict[str, PublicKey] = {}
        self._now = now
        self._fetched_at = -float("inf")
        self._tried_at = -float("inf")
        self._fresh_until = -float("inf")
        self._refreshing: asyncio.Task[None] | None = None

    @property
    def issuer_host(self) -> str:
        """The issuer's host, or that of `url` where no issuer is given. It is the host that the settings name."""
        return urlsplit(self._issuer or self.url).hostname or ""

    def find(self, key_id: str) -> PublicKey | None:
        """The key with this id, or None. Also None where the cached keys are too old to trust."""
        return self.keys.get(key_id) if self._now() < self._fresh_until + _STALE_S else None

    def has_usable_keys(self) -> bool:
        return bool(self.keys) and self._now() < self._fresh_until + _STALE_S

    def is_refresh_due(self) -> bool:
        """Whether the keys should be fetched again: they have expired. The last attempt must not be too recent."""
        now = self._now()
        return now >= self._fresh_until and now - self._tried_at >= _RETRY_S

    def refresh_in_background(self, session: aiohttp.ClientSession) -> None:
        """Start to fetch the keys in the background, if that is due. The present keys stay in use meanwhile."""
        if self.is_refresh_due() and self._refreshing is None:
            self._start(session)

    async def refresh(self, session: aiohttp.ClientSession) -> None:
        """Fetch the keys now. A caller does so for an unknown key id. Never raises; at most one fetch in half a minute."""
        if self._refreshing is None:
            if self._now() - self._tried_at < _RETRY_S:
                return
            self._start(session)
        if self._refreshing is not None:
            # Shielded: one caller who leaves must not take the keys from the others who wait for them.
            await asyncio.shield(self._refreshing)

    async def close(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)

    def _start(self, session: aiohttp.ClientSession) -> None:
        self._tried_at = self._now()
        self._refreshing = self._supervisor.start_one_off_task("issuers' keys", self._fetch(session))

    async def _fetch(self, session: aiohttp.ClientSession) -> None:
        try:
            if self._issuer:
                await self._discover(session)
            body, max_age_s = await _get(session, self.url)
            self._accept(parse_keys(body), max_age_s)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            serving = (
                "serving on with those known" if self.has_usable_keys() else "its tokens cannot be checked"
            )
            _log.error(
                "the keys at %s cannot be fetched (%s): %s", self.url or self._issuer, serving, _reason(error)
            )
        finally:
            self._refreshing = None

    async def _discover(self, session: aiohttp.ClientSession) -> None:
        try:
            body, _ = await _get(session, self._issuer.rstrip("/") + _DISCOVERY)
            self.url = parse_discovery_document(body, self._issuer)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if not self.url:
                raise
            _log.error(
                "the discovery document of %s cannot be used (its keys are still looked for at %s): %s",
                self._issuer,
                self.url,
                _reason(error),
            )

    def _accept(self, keys: dict[str, PublicKey], max_age_s: float) -> None:
        # A key that stays keeps its object: what was decided by it is remembered as long as that is the one found.
        self.keys = {
            key_id: before if (before := self.keys.get(key_id)) == key else key
            for key_id, key in keys.items()
        }
        self._fetched_at = self._now()
        self._fresh_until = self._fetched_at + min(max(max_age_s, _MIN_AGE_S), _MAX_AGE_S)


async def _get(session: aiohttp.ClientSession, url: str) -> tuple[bytes, float]:
    """What lies there, and for how many seconds it is good. Raises ValueError where it is not to be believed."""
    async with session.get(
        url,
        allow_redirects=False,
        timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
        headers={"Accept-Encoding": "identity", "Accept": "application/json"},
    ) as response:
        if response.status != 200:
            raise ValueError(f"it answered {response.status}")
        body = await read_at_most(response.content.iter_any(), _MAX_BYTES)
        max_age = _MAX_AGE.search(response.headers.get("Cache-Control", ""))
    return body, float(max_age[1]) if max_age is not None else 0.0


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:300]


async def fetch_authorization_endpoint(issuer: str) -> str:
    """Fetch the URL where people sign in at `issuer`.

    It comes from the issuer's discovery document. Empty where the issuer does not answer or names no such URL.
    """
    async with open_ssrf_guarded_session([urlsplit(issuer).hostname or ""]) as session:
        try:
            body, _ = await _get(session, issuer.rstrip("/") + _DISCOVERY)
            document = msgspec.json.decode(body, type=_Discovery)
        except (aiohttp.ClientError, OSError, ValueError, RecursionError) as error:
            _log.error("the discovery document of %s cannot be used: %s", issuer, _reason(error))
            return ""
    is_it = document.issuer == issuer and is_trusted_jwks_url(document.authorization_endpoint)
    return document.authorization_endpoint if is_it else ""


class _Discovery(msgspec.Struct):
    issuer: str
    jwks_uri: str
    authorization_endpoint: str = ""


def parse_discovery_document(body: bytes, issuer: str) -> str:
    """The `jwks_uri` in a discovery document of `issuer`. ValueError says what is wrong with the document."""
    try:
        document = msgspec.json.decode(body, type=_Discovery)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ValueError("what it sent is no discovery document") from None
    if document.issuer != issuer:
        raise ValueError("its discovery document is that of another issuer")
    if not is_trusted_jwks_url(document.jwks_uri):
        raise ValueError("its discovery document does not name an https:// address")
    its, theirs = urlsplit(issuer), urlsplit(document.jwks_uri)
    if theirs.hostname != its.hostname and (
        theirs.scheme != "https" or _is_inside(theirs.hostname or "", unknown=False)
    ):
        raise ValueError("its discovery document names an address that is not public")
    return document.jwks_uri


def _is_inside(host: str, *, unknown: bool) -> bool:
    """Whether `host` is an address that is not a public one; `unknown` where it is none at all."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return unknown
    return any(
        not each.is_global or each.is_multicast or each.is_reserved or getattr(each, "is_site_local", False)
        for each in embedded_ipv4_addresses(address) or [address]
    )


def open_ssrf_guarded_session(trusted_hosts: Iterable[str]) -> aiohttp.ClientSession:
    """Open an HTTP client that connects to public addresses only.

    Only `trusted_hosts` may have any address. It prevents server-side request forgery (SSRF) by the addresses that an
    issuer names.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(resolver=_Resolver(frozenset(trusted_hosts))),
        trust_env=False,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    )


class _Resolver(AbstractResolver):
    """Checks the very addresses that are then connected to, so that a name that moves (DNS rebinding) opens nothing."""

    def __init__(self, trusted_hosts: frozenset[str]) -> None:
        self._named = trusted_hosts
        self._inner = aiohttp.DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        if host not in self._named and any(_is_inside(each["host"], unknown=True) for each in found):
            raise OSError(f"{host} does not lead to public addresses")
        return found

    async def close(self) -> None:
        await self._inner.close()


class _Document(msgspec.Struct):
    keys: list[dict[str, Any]]


def parse_keys(body: bytes) -> dict[str, PublicKey]:
    """Parse a JWKS document into its usable keys, by id. Others are left out. ValueError where none is usable."""
    try:
        document = msgspec.json.decode(body, type=_Document)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ValueError("what it sent is not a set of keys") from None
    keys: dict[str, PublicKey] = {}
    for entry in document.keys[:_MAX_KEYS]:
        key_id = entry.get("kid")
        public = parse_key(entry)
        if isinstance(key_id, str) and key_id not in keys and public is not None:
            keys[key_id] = public
    if not keys:
        raise ValueError("none of its keys is a public RSA key of 2048 bits or more, or one on P-256")
    return keys


def parse_key(entry: dict[str, Any]) -> PublicKey | None:
    """Parse one key of a key set (JWK, RFC 7517). None where it is not a public key that is used here."""
    if entry.get("kty") not in ("RSA", "EC") or entry.get("use", "sig") != "sig" or "d" in entry:
        return None  # never a shared secret, and never a key that is not public any more
    try:
        key = jwt.PyJWK(entry).key
    except Exception:  # noqa: BLE001  (one strange key must not discard the good ones)
        return None
    algorithm = ""
    if isinstance(key, RSAPublicKey) and 2048 <= key.key_size <= 8192:
        algorithm = "RS256"
    elif isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        algorithm = "ES256"
    if not algorithm or entry.get("alg", algorithm) != algorithm:
        return None
    return PublicKey(algorithm, key)
