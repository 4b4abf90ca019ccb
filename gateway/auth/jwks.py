"""An issuer's public keys: fetched when first needed, kept while they are good, and believed only so far."""

import asyncio
import logging
import re
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import aiohttp
import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

_log = logging.getLogger(__name__)

_TIMEOUT_S: Final = 5.0
_MAX_BYTES: Final = 256 * 1024
_MAX_KEYS: Final = 100
_MIN_AGE_S: Final = 300.0  # however short an issuer says; and however long:
_MAX_AGE_S: Final = 24 * 3600.0
_STALE_S: Final = 24 * 3600.0  # for which keys serve on while the issuer is away
_RETRY_S: Final = 30.0  # between two fetches, whatever is asked for: strangers choose the key ids
_MAX_AGE: Final = re.compile(r"max-age=(\d{1,9})")


class PublicKey(NamedTuple):
    algorithm: str
    key: Any


class KeySet:
    """The keys at `url` by their ids. `find` never waits; `refresh` fetches, once for all who ask at the same time."""

    def __init__(self, url: str, *, now: Callable[[], float] = time.monotonic) -> None:
        self.url = url
        self.keys: dict[str, PublicKey] = {}
        self._now = now
        self._fetched_at = -float("inf")
        self._tried_at = -float("inf")
        self._fresh_until = -float("inf")
        self._refreshing: asyncio.Task[None] | None = None

    def find(self, key_id: str) -> PublicKey | None:
        """The key, unless the keys are too old to be believed."""
        return self.keys.get(key_id) if self._now() < self._fresh_until + _STALE_S else None

    def is_usable(self) -> bool:
        return bool(self.keys) and self._now() < self._fresh_until + _STALE_S

    def is_due(self) -> bool:
        """Whether the keys should be fetched anew, and may be: not too soon after the last try."""
        now = self._now()
        return now >= self._fresh_until and now - self._tried_at >= _RETRY_S

    def refresh_soon(self, session: aiohttp.ClientSession) -> None:
        """Fetch in the background where it is due, while the present keys serve on."""
        if self.is_due() and self._refreshing is None:
            self._start(session)

    async def refresh(self, session: aiohttp.ClientSession) -> None:
        """Fetch, for a key id that is not known. Never raises; at most one fetch in half a minute."""
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
        self._refreshing = asyncio.get_running_loop().create_task(self._fetch(session), name="fetch keys")

    async def _fetch(self, session: aiohttp.ClientSession) -> None:
        try:
            async with session.get(
                self.url,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
                headers={"Accept-Encoding": "identity", "Accept": "application/json"},
            ) as response:
                if response.status != 200:
                    raise ValueError(f"it answered {response.status}")
                body = await _at_most(response.content, _MAX_BYTES)
                max_age = _MAX_AGE.search(response.headers.get("Cache-Control", ""))
            self._accept(parse_keys(body), float(max_age[1]) if max_age is not None else 0.0)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            serving = "serving on with those known" if self.is_usable() else "its tokens cannot be checked"
            reason = str(error) or type(error).__name__
            _log.error("the keys at %s cannot be fetched (%s): %s", self.url, serving, reason[:300])
        finally:
            self._refreshing = None

    def _accept(self, keys: dict[str, PublicKey], max_age_s: float) -> None:
        self.keys = keys
        self._fetched_at = self._now()
        self._fresh_until = self._fetched_at + min(max(max_age_s, _MIN_AGE_S), _MAX_AGE_S)


async def _at_most(content: aiohttp.StreamReader, limit: int) -> bytes:
    body = b""
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > limit:
            raise ValueError(f"it sent more than {limit} bytes")
    return body


class _Document(msgspec.Struct):
    keys: list[dict[str, Any]]


def parse_keys(body: bytes) -> dict[str, PublicKey]:
    """The keys that may be used, by id. What is not a public key of a kind we take is left out; ValueError: none is."""
    try:
        document = msgspec.json.decode(body, type=_Document)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ValueError("what it sent is not a set of keys") from None
    keys: dict[str, PublicKey] = {}
    for entry in document.keys[:_MAX_KEYS]:
        key_id = entry.get("kid")
        public = _public_key(entry)
        if isinstance(key_id, str) and key_id not in keys and public is not None:
            keys[key_id] = public
    if not keys:
        raise ValueError("none of its keys is a public RSA key of 2048 bits or more, or one on P-256")
    return keys


def _public_key(entry: dict[str, Any]) -> PublicKey | None:
    if entry.get("kty") not in {"RSA", "EC"} or entry.get("use", "sig") != "sig" or "d" in entry:
        return None  # never a shared secret, and never a key that is not public any more
    try:
        key = jwt.PyJWK(entry).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, OverflowError):
        return None
    algorithm = ""
    if isinstance(key, RSAPublicKey) and 2048 <= key.key_size <= 8192:
        algorithm = "RS256"
    elif isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        algorithm = "ES256"
    if not algorithm or entry.get("alg", algorithm) != algorithm:
        return None
    return PublicKey(algorithm, key)
