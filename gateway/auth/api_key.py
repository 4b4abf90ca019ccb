"""Authenticate callers by API key, looked up by its digest in a cache, else in the registry.

A revoked key stops at once.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

import msgspec

from gateway.auth.base import Authentication, Authenticator, raise_refusal
from gateway.auth.ttl_cache import TtlCache
from gateway.core.api_key_document import Key
from gateway.core.api_keys import PREFIX, bearer_key, digest_key_bytes, is_well_formed, key_id
from gateway.core.compiled_model_policy import network_set, quota_from_limits
from gateway.core.errors import RegistryUnavailable, Unauthenticated
from gateway.core.header_classification import API_KEY, AUTHORIZATION, RequestHead
from gateway.core.needs_wait_sentinel import NEEDS_WAIT, NeedsWait
from gateway.core.per_process_random import random_between
from gateway.core.principal import CALLER_VERBS, Principal
from gateway.core.token_bucket import TokenBucket
from gateway.registry.base import KEYS, Registry, RegistryError
from gateway.registry.mirror import Mirror
from gateway.thread_and_task_supervisor import Supervisor

_log = logging.getLogger(__name__)

_AGAIN_S = 15.0  # until the next look, where one has failed

_INFINITY = float("inf")
_UNKNOWN = "This API key is not known, or no longer valid."


class _CachedKey:
    __slots__ = ("expires_at", "in_authorization", "in_own_field", "look_at")

    def __init__(self, principal: Principal, expires_at: float, look_at: float) -> None:
        self.in_own_field = Authentication(principal, consumed_authorization=False)
        self.in_authorization = Authentication(principal, consumed_authorization=True)
        self.expires_at = expires_at  # seconds since the epoch; infinity where it does not expire
        self.look_at = look_at  # monotonic: when to look again whether it is still there


class ApiKeyAuthenticator(Authenticator):
    """Authenticates callers by API key.

    The key comes as `X-Api-Key: <key>` or `Authorization: Bearer <key>`. A key that was found is read again about every
    `ttl_s` seconds, in the background, in case somebody has changed it by hand: its revocation is mirrored and counts at
    once. While the registry is away a known key stays valid for `stale_s` at most. A key that does not exist is not looked
    up again for `missing_ttl_s`. Reads are rate limited, because anybody can make up keys that look right.
    """

    def __init__(
        self,
        registry: Registry,
        mirror: Mirror,
        *,
        ttl_s: float = 3600.0,
        stale_s: float = 24 * 3600.0,
        missing_ttl_s: float = 2.0,
        size: int = 100_000,
        bucket: TokenBucket | None = None,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        supervisor: Supervisor | None = None,
    ) -> None:
        self._supervisor = supervisor or Supervisor()
        self._registry = registry
        self._mirror = mirror
        self._ttl_s = ttl_s
        self._now = now
        self._clock = clock
        self._stale_s = stale_s
        self._missing_ttl_s = missing_ttl_s
        self._bucket = bucket or TokenBucket(per_second=500, burst=2000)
        self._known: TtlCache[_CachedKey] = TtlCache(size)
        self._missing: TtlCache[bool] = TtlCache(size)
        self.used: dict[str, float] = {}  # when keys were last used, by digest; LastUsedRecorder empties it
        self._reading: dict[str, asyncio.Task[_CachedKey | None]] = {}

    def try_nowait(self, head: RequestHead) -> Authentication | Unauthenticated | NeedsWait | None:
        found = _key_in(head)
        if found is None:
            return None
        raw, in_authorization = found
        last = head.last_digest
        digest = digest_key_bytes(raw) if last is None else last.digest(raw)
        tick = self._clock()
        known = self._known.get(digest, tick)
        if known is None:
            if not is_well_formed(raw.decode("latin-1")):
                return Unauthenticated("This is not a CHIPS API key: it is incomplete or mistyped.")
            if self._missing.get(digest, tick) is None:
                return NEEDS_WAIT
        elif known.look_at <= tick:
            self._refresh(digest, known)
        return self._authentication(digest, known, self._now(), in_authorization)

    async def __call__(self, head: RequestHead) -> Authentication | None:
        at_once = self.try_nowait(head)
        if at_once is not NEEDS_WAIT:
            return raise_refusal(at_once)
        found = _key_in(head)
        assert found is not None  # noqa: S101  (there was one a moment ago)
        raw, in_authorization = found
        last = head.last_digest
        digest = digest_key_bytes(raw) if last is None else last.digest(raw)
        known = await self._read_through(digest)
        return raise_refusal(self._authentication(digest, known, self._now(), in_authorization))

    def owns_authorization(self, authorization: bytes) -> bool:
        return PREFIX.encode() in authorization.lower()  # also where it is written wrongly: it is still a key

    def _authentication(
        self,
        digest: str,
        known: _CachedKey | None,
        now: float,
        in_authorization: bool,  # noqa: FBT001
    ) -> Authentication | Unauthenticated:
        snapshot = self._mirror.snapshot
        is_revoked = snapshot is not None and digest in snapshot.revoked
        if known is None or known.expires_at <= now or is_revoked:
            return Unauthenticated(_UNKNOWN)
        self.used[digest] = now
        return known.in_authorization if in_authorization else known.in_own_field

    async def _read_through(self, digest: str) -> _CachedKey | None:
        reading = self._reading.get(digest)
        if reading is None:
            if not self._bucket.take():
                raise RegistryUnavailable("Too many keys are being looked up at the moment.", retry_after_s=1)
            reading = self._begin(digest, self._read(digest))
        # Shielded: one caller who leaves must not take the answer from the others who wait for it.
        return await asyncio.shield(reading)

    def _refresh(self, digest: str, known: _CachedKey) -> None:
        """See behind the caller's back whether a key is still what it was."""
        if digest not in self._reading and self._bucket.take():
            _ = self._begin(digest, self._read_again(digest, known))

    def _begin(
        self, digest: str, work: Coroutine[Any, Any, _CachedKey | None]
    ) -> "asyncio.Task[_CachedKey | None]":
        reading = self._supervisor.start_one_off_task("key look-up", work, expected=RegistryUnavailable)
        self._reading[digest] = reading
        reading.add_done_callback(lambda done: self._ended(digest, done))
        return reading

    def _ended(self, digest: str, done: "asyncio.Task[_CachedKey | None]") -> None:
        self._reading.pop(digest, None)
        if not done.cancelled():
            done.exception()  # the waiter gets it, if there still is one

    async def _read_again(self, digest: str, known: _CachedKey) -> _CachedKey | None:
        try:
            found = await self._read(digest)
        except RegistryUnavailable:
            found = None
        else:
            # A registry that was wiped has lost the key too; that is no reason to turn its owner away.
            if found is None and self._mirror.is_authoritative:
                self._known.forget(digest)
                return None
        if found is None:
            self._missing.forget(digest)
            known.look_at = self._clock() + random_between(_AGAIN_S / 2, _AGAIN_S)
        return found

    async def _read(self, digest: str) -> _CachedKey | None:
        kept = self._read_fallback(digest)
        if kept is not None:
            return kept
        try:
            document = await self._registry.read(KEYS, digest)
        except RegistryError as error:
            raise RegistryUnavailable(
                "Your key cannot be checked now: the registry does not answer."
            ) from error
        tick = self._clock()
        if document is None:
            self._missing.put(digest, True, tick + self._missing_ttl_s)  # noqa: FBT003
            return None
        known: _CachedKey | None = None
        try:
            known = _known(
                digest, msgspec.convert(document.body, Key), tick + random_between(0.75, 1.25) * self._ttl_s
            )
        except ValueError as error:  # msgspec.ValidationError is one
            _log.error("the document of key %s is not readable: %s", key_id(digest), error)
        if known is None or known.expires_at <= self._now():
            self._missing.put(digest, True, tick + self._missing_ttl_s)  # noqa: FBT003
            return None
        self._known.put(digest, known, tick + self._stale_s)
        return known

    def _read_fallback(self, digest: str) -> _CachedKey | None:
        """A key from the copy that a start without the registry goes by; it is looked up properly before long.

        Anybody who can write the copy could add a key of their own: a key from it never opens the operators' pages.
        """
        tick = self._clock()
        try:
            key = self._mirror.find_key_in_fallback_copy(digest)
            if key is None:
                return None
            verbs = tuple(verb for verb in key.verbs if verb in CALLER_VERBS)
            if not verbs:
                return None
            known = _known(
                digest,
                msgspec.structs.replace(key, verbs=verbs),
                tick + random_between(_AGAIN_S / 2, _AGAIN_S),
            )
        except ValueError as error:
            _log.error("key %s is not readable in the fallback: %s", key_id(digest), error)
            return None
        if known is not None and known.expires_at > self._now():
            self._known.put(digest, known, min(tick + self._stale_s, self._mirror.kept_keys_end))
        return known


def _key_in(head: RequestHead) -> tuple[bytes, bool] | None:
    """The key that the head holds, and whether it stands in Authorization."""
    raw = head.read[API_KEY]
    if raw is not None:
        return raw, False
    authorization = head.read[AUTHORIZATION]
    raw = bearer_key(authorization) if authorization is not None else None
    return None if raw is None else (raw, True)


def _known(digest: str, key: Key, look_at: float) -> _CachedKey | None:
    if key.revoked is not None:
        return None
    principal = Principal(
        id=key_id(digest),
        label=key.label,
        team=key.team,
        models=key.models,
        verbs=key.verbs,
        networks=network_set(key.networks),
        quota=quota_from_limits(key),
    )
    expires_at = _INFINITY if key.expires is None else datetime.fromisoformat(key.expires).timestamp()
    return _CachedKey(principal, expires_at, look_at)
