"""API keys, looked up by digest: remembered for a while, read from the registry on a miss, dead at once when revoked."""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple

import msgspec

from gateway.auth.base import LATER, Authenticator, Later, Proof
from gateway.auth.remembered import Remembered
from gateway.core.errors import RegistryUnavailable, Unauthenticated
from gateway.core.headers import API_KEY, AUTHORIZATION, RequestHead
from gateway.core.keys import bearer_key, is_well_formed, key_id
from gateway.core.model import Key
from gateway.core.networks import NetworkSet, parse_network
from gateway.core.principal import Principal
from gateway.core.rules import quota_of
from gateway.registry.base import KEYS, Registry, Unavailable
from gateway.registry.snapshot import Snapshot

_log = logging.getLogger(__name__)

_INFINITY = float("inf")
_UNKNOWN = "This API key is not known, or no longer valid."


class _Known(NamedTuple):
    principal: Principal
    expires_at: float  # seconds since the epoch; infinity where it does not expire


class ApiKeys(Authenticator):
    """Authenticate `X-Api-Key: <key>` or `Authorization: Bearer <key>`.

    A key that was read is trusted for `ttl_s`; one that is not there is not asked for again for `missing_ttl_s`. The
    revocations in the mirrored snapshot override both.
    """

    def __init__(
        self,
        registry: Registry,
        snapshot: Callable[[], Snapshot | None],
        *,
        ttl_s: float = 300.0,
        missing_ttl_s: float = 2.0,
        size: int = 100_000,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._snapshot = snapshot
        self._now = now
        self._ttl_s = ttl_s
        self._missing_ttl_s = missing_ttl_s
        self._known: Remembered[_Known] = Remembered(size)
        self._missing: Remembered[bool] = Remembered(size)
        self.used: dict[
            str, float
        ] = {}  # when each key was last used here, by digest; emptied by who keeps it
        self._reading: dict[str, asyncio.Task[_Known | None]] = {}

    def at_once(self, head: RequestHead) -> Proof | Later | None:
        found = _key_in(head)
        if found is None:
            return None
        raw, in_authorization = found
        digest = sha256(raw).hexdigest()
        now = self._now()
        known = self._known.get(digest, now)
        if known is None:
            if not is_well_formed(raw.decode("latin-1")):
                raise Unauthenticated("This is not a CHIPS API key: it is incomplete or mistyped.")
            if self._missing.get(digest, now) is None:
                return LATER
        return self._proof(digest, known, now, in_authorization=in_authorization)

    async def __call__(self, head: RequestHead) -> Proof | None:
        at_once = self.at_once(head)
        if at_once is not LATER:
            return at_once
        found = _key_in(head)
        assert found is not None  # noqa: S101  (there was one a moment ago)
        raw, in_authorization = found
        digest = sha256(raw).hexdigest()
        known = await self._look_up(digest)
        return self._proof(digest, known, self._now(), in_authorization=in_authorization)

    def claims(self, authorization: bytes) -> bool:
        return bearer_key(authorization) is not None

    def _proof(self, digest: str, known: _Known | None, now: float, *, in_authorization: bool) -> Proof:
        if known is None or known.expires_at <= now or self._is_revoked(digest):
            raise Unauthenticated(_UNKNOWN)
        self.used[digest] = now
        return Proof(known.principal, in_authorization)

    def _is_revoked(self, digest: str) -> bool:
        snapshot = self._snapshot()
        return snapshot is not None and digest in snapshot.revoked

    async def _look_up(self, digest: str) -> _Known | None:
        reading = self._reading.get(digest)
        if reading is None:
            reading = asyncio.get_running_loop().create_task(self._read(digest), name="read key")
            self._reading[digest] = reading
            reading.add_done_callback(lambda _: self._reading.pop(digest, None))
        # Shielded: one caller who leaves must not take the answer from the others who wait for it.
        return await asyncio.shield(reading)

    async def _read(self, digest: str) -> _Known | None:
        try:
            document = await self._registry.read(KEYS, digest)
        except Unavailable as error:
            raise RegistryUnavailable(
                "Your key cannot be checked now: the registry does not answer."
            ) from error
        now = self._now()
        if document is None:
            self._missing.put(digest, True, now + self._missing_ttl_s)  # noqa: FBT003
            return None
        known: _Known | None = None
        try:
            known = _known(digest, msgspec.convert(document.body, Key))
        except ValueError as error:  # msgspec.ValidationError is one
            _log.error("the document of key %s is not readable: %s", key_id(digest), error)
        if known is None or known.expires_at <= now:
            self._missing.put(digest, True, now + self._missing_ttl_s)  # noqa: FBT003
            return None
        self._known.put(digest, known, min(known.expires_at, now + self._ttl_s))
        return known


def _key_in(head: RequestHead) -> tuple[bytes, bool] | None:
    """The key that the head holds, and whether it stands in Authorization."""
    raw = head.read[API_KEY]
    if raw is not None:
        return raw, False
    authorization = head.read[AUTHORIZATION]
    raw = bearer_key(authorization) if authorization is not None else None
    return None if raw is None else (raw, True)


def _known(digest: str, key: Key) -> _Known | None:
    if key.revoked is not None:
        return None
    principal = Principal(
        id=key_id(digest),
        label=key.label,
        models=key.models,
        verbs=key.verbs,
        networks=NetworkSet(map(parse_network, key.networks)) if key.networks else None,
        quota=quota_of(key),
    )
    expires_at = _INFINITY if key.expires is None else datetime.fromisoformat(key.expires).timestamp()
    return _Known(principal, expires_at)
