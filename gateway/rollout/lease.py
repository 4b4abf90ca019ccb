"""A lease in the registry, so that one of several rollout controllers acts at a time.

It holds no expiry time: a process that sees it unchanged for `ttl_s`, by its own monotonic clock, takes it over, by
compare-and-set. So no clock of one machine is compared with another's. The holder changes the document every few seconds.
A holder that could not renew in time stops acting before that, by its own clock.
"""

import time
from collections.abc import Callable
from typing import Final

from gateway.registry.base import Conflict, Registry

LEASES: Final = "leases"
LEASE: Final = "rollouts"  # of the controller


class Lease:
    """A lease that one process holds at a time.

    Call `acquire_or_renew` every second or so; `is_held` says whether this process may act now.
    """

    def __init__(
        self,
        registry: Registry,
        name: str,
        holder: str,
        *,
        ttl_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._name = name
        self._holder = holder
        self.ttl_s = ttl_s
        self._clock = clock
        self._revision: int | None = None  # as last seen; None: not looked yet
        self._changed_at = 0.0  # when that was first seen
        self._renewed_at = float("-inf")

    @property
    def is_held(self) -> bool:
        """Whether this process holds the lease now.

        No other process can have taken it over. The second half of `ttl_s` is left for what is under way.
        """
        return self._clock() - self._renewed_at < self.ttl_s / 2

    async def acquire_or_renew(self) -> bool:
        """Acquire the lease if it is free or expired, or renew it. Return whether this process holds it. Raises RegistryError."""
        now = self._clock()
        if now - self._renewed_at < self.ttl_s / 5:
            return True
        found = {one.name: one for one in await self._registry.list_ephemeral(LEASES)}.get(self._name)
        holder = "" if found is None else str(found.body.get("holder", ""))
        revision = 0 if found is None else found.revision
        if revision != self._revision:
            self._revision, self._changed_at = revision, self._clock()
        if holder not in {"", self._holder} and self._clock() - self._changed_at < self.ttl_s:
            self._renewed_at = float("-inf")
            return False
        return await self._write(self._holder, revision, now)

    async def release(self) -> None:
        """Release the lease. Another process need not wait then. Raises RegistryError."""
        if self.is_held and self._revision is not None:
            await self._write("", self._revision, float("-inf"))

    async def _write(self, holder: str, revision: int, now: float) -> bool:
        try:
            self._revision = await self._registry.write_ephemeral(
                LEASES, self._name, {"holder": holder}, expected=revision
            )
        except Conflict:
            self._renewed_at = float("-inf")
            return False
        self._changed_at = self._clock()
        self._renewed_at = now
        return True


class LeaseObserver:
    """Observes how long ago a lease was last renewed. It is for a process that does not compete for the lease."""

    def __init__(self, registry: Registry, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._registry = registry
        self._name = name
        self._clock = clock
        self._seen: tuple[int, str] | None = None
        self._changed_at = clock()

    async def seconds_since_observed_renewal(self) -> float:
        """The seconds since the lease was last seen to change. It is 0.0 where it was just seen to. Raises RegistryError."""
        found = {one.name: one for one in await self._registry.list_ephemeral(LEASES)}.get(self._name)
        seen = (found.revision, str(found.body.get("holder", ""))) if found is not None else (0, "")
        if seen != self._seen:
            first, self._seen = self._seen is None, seen
            if not first or seen[1]:
                self._changed_at = self._clock()
        return self._clock() - self._changed_at

    def reset(self) -> None:
        """Count the seconds since the renewal from now on. What was seen before is forgotten."""
        self._seen, self._changed_at = None, self._clock()
