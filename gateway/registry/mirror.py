"""Keeps the snapshot fresh: watches the registry, serves on from the last good state when it is gone, says how old that is."""

import asyncio
import contextlib
import logging
import random
import time

from gateway.registry.base import Listing, Registry, RegistryError
from gateway.registry.snapshot import Snapshot, compile_snapshot

_log = logging.getLogger(__name__)
_jitter = random.Random().uniform  # noqa: S311  (spreads reconnects; nothing to guess)

_FIRST_DELAY_S = 0.2
_LONGEST_DELAY_S = 15.0
_REFRESH_INTERVAL_S = 0.25


class Mirror:
    """`snapshot` is the data plane's only view of the registry: a plain attribute, swapped whole, never waited for."""

    def __init__(self, registry: Registry, *, first_load_timeout_s: float = 10.0) -> None:
        self._registry = registry
        self._first_load_timeout_s = first_load_timeout_s
        self._confirmed_at = time.monotonic()
        self._refreshed_at = -_REFRESH_INTERVAL_S
        self._refreshing: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._advanced = asyncio.Event()
        self.snapshot: Snapshot | None = None
        self.connected = False
        self.last_error = ""

    @property
    def age_s(self) -> float:
        """Seconds since the registry last confirmed that the snapshot is what it holds."""
        return time.monotonic() - self._confirmed_at

    async def start(self) -> None:
        """Begin to watch; wait for the first snapshot, but not for ever: a registry that is away may come back."""
        self._watching = asyncio.get_running_loop().create_task(self._watch(), name="registry mirror")
        if not await self.wait_for(0, timeout_s=self._first_load_timeout_s):
            _log.error("the registry has not been read yet, so no model can be served: %s", self.last_error)

    async def stop(self) -> None:
        for task in (self._watching, self._refreshing):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def wait_for(self, generation: int, *, timeout_s: float) -> bool:
        """Wait until the snapshot is at `generation` or later; False where it is not in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.snapshot is None or self.snapshot.generation < generation:
                    self._advanced.clear()
                    await self._advanced.wait()
        except TimeoutError:
            return False
        return True

    async def refresh(self) -> None:
        """Read the registry once more, for a name that the snapshot lacks.

        All who ask at once share one read, and there are at most four a second: somebody who asks for names that do not
        exist must not become a load on the registry. Never raises; the snapshot stays as it is where the read fails.
        """
        if self._refreshing is None:
            if time.monotonic() - self._refreshed_at < _REFRESH_INTERVAL_S:
                return
            self._refreshing = asyncio.get_running_loop().create_task(
                self._refresh(), name="registry refresh"
            )
        await asyncio.shield(self._refreshing)

    async def _refresh(self) -> None:
        try:
            self._accept(await self._registry.load())
        except RegistryError as error:
            self._fail(error)
        finally:
            self._refreshed_at = time.monotonic()
            self._refreshing = None

    async def _watch(self) -> None:
        delay_s = _FIRST_DELAY_S
        while True:
            try:
                async for listing in self._registry.watch():
                    delay_s = _FIRST_DELAY_S
                    if listing is None:
                        self._confirm()
                    else:
                        self._accept(listing)
            except RegistryError as error:
                self._fail(error)
            except Exception as bug:  # noqa: BLE001  (whatever a plug-in raises, the mirror lives on)
                self._fail(bug)
            # Full jitter: a hundred gateways that lost one registry must not come back as one.
            await asyncio.sleep(_jitter(0, delay_s))
            delay_s = min(delay_s * 2, _LONGEST_DELAY_S)

    def _accept(self, listing: Listing) -> None:
        current = self.snapshot
        if current is not None and current.registry_id == listing.registry_id:
            if listing.generation < current.generation:
                return  # an answer that was overtaken
            if listing.generation == current.generation:
                self._confirm()
                return
        self.snapshot = compile_snapshot(listing, current)
        for problem in self.snapshot.problems:
            _log.error("a registry document cannot be used: %s", problem)
        self._confirm()
        self._advanced.set()

    def _confirm(self) -> None:
        if not self.connected and self.last_error:
            _log.warning("the registry is back")
        self.connected = True
        self.last_error = ""
        self._confirmed_at = time.monotonic()

    def _fail(self, error: BaseException) -> None:
        if self.connected or not self.last_error:
            serving = (
                "serving on from the last good state"
                if self.snapshot is not None
                else "nothing can be served"
            )
            _log.error("the registry does not answer (%s): %s", serving, error)
        self.connected = False
        self.last_error = str(error)
