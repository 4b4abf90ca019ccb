"""Mirrors the registry as snapshots in memory. It watches it, keeps the last good one in an outage, and knows its age."""

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Final

from cachetools import TTLCache

from gateway.core.api_key_document import Key
from gateway.core.name_validation import check_model_name
from gateway.core.per_process_random import random_between
from gateway.core.token_bucket import TokenBucket
from gateway.registry.base import MODELS, MirroredListing, Registry, RegistryError, Unavailable
from gateway.registry.fallback_api_keys import NO_KEYS, FallbackKeys, update_fallback_keys
from gateway.registry.fallback_copy import FallbackStore
from gateway.registry.snapshot import ModelEntry, Snapshot, compile_entry, compile_with_pauses
from gateway.thread_and_task_supervisor import HelperHealth, Supervisor

_log = logging.getLogger(__name__)

_FIRST_DELAY_S: Final = 0.2
_LONGEST_DELAY_S: Final = 15.0
_FIRST_LOOK_S: Final = 2.0  # how long a start that has a fallback waits for the registry itself
_MANY: Final = 1000  # documents
_SLICE_S: Final = 0.002  # how long compiling may hold the loop at a time
_ASKED_TTL_S: Final = 2.0
_KEEP_INTERVAL_S: Final = 30.0

REGISTRY: Final = "registry"
FALLBACK: Final = "fallback"


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Mirror:
    """Mirrors the registry in memory.

    `snapshot` is the data plane's only view of it: an attribute that is swapped whole and never waited for. A registry
    that has become another one, or gone back in time, is not believed at once: a database that was wiped, or restored
    from a backup, must not take every model out of service. For `accept_reset_after_s` the last good snapshot stays,
    and `held` says why; then the new state is accepted, unless it lists no model while the last good snapshot lists some.
    Keys that the new state revokes are refused at once all the same.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        fallback: FallbackStore | None = None,
        first_load_timeout_s: float = 10.0,
        accept_reset_after_s: float = 300.0,
        fallback_keys_age_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        supervisor: Supervisor | None = None,
    ) -> None:
        self._supervisor = supervisor or Supervisor()
        self._registry = registry
        self._fallback = fallback
        self._first_load_timeout_s = first_load_timeout_s
        self._accept_reset_after_s = accept_reset_after_s
        self._fallback_keys_age_s = fallback_keys_age_s  # 0: the copy neither gets keys nor gives any
        self._clock = clock
        self._sleep = sleep
        self._confirmed_at = clock()
        self._held_since = 0.0
        self._held_listing: MirroredListing | None = None
        self._since: MirroredListing | None = None  # from the fallback, until the registry itself answers
        self._to_keep: MirroredListing | None = None
        self._keys_kept: FallbackKeys | None = None  # in the copy that this gateway keeps for itself
        self._keys_given = NO_KEYS
        self.kept_keys_end = 0.0  # by the clock: until then keys from the copy are good
        self._keys_turned = False  # on or off, since the copy was written
        self._tasks: list[asyncio.Task[None]] = []
        self._advanced = asyncio.Event()
        self._asked: TTLCache[str, ModelEntry | None] = TTLCache(10_000, _ASKED_TTL_S, clock)
        self._asking: dict[str, asyncio.Task[ModelEntry | None]] = {}
        self._bucket = TokenBucket(per_second=4, burst=20, clock=clock)
        self.snapshot: Snapshot | None = None
        self.on_swap: Callable[[Snapshot], object] = id  # called with each new one; quick, and does not raise
        self.source = REGISTRY  # or FALLBACK: what the snapshot was made from
        self.connected = False
        self.held = ""  # why the registry's present state is not believed; empty where it is
        self.last_error = ""
        self.failures = 0  # how often the watch has broken

    @property
    def age_s(self) -> float:
        """Seconds since the registry last confirmed the snapshot."""
        return self._clock() - self._confirmed_at

    @property
    def is_authoritative(self) -> bool:
        """Whether the snapshot is current. If it is, "there is no such model or key" can be trusted."""
        return self.connected and not self.held

    def find_key_in_fallback_copy(self, digest: str) -> Key | None:
        """The key with that digest in the fallback copy. None while the registry gives the snapshot. ValueError: it is unreadable."""
        if self.source != FALLBACK or self._clock() >= self.kept_keys_end:
            return None
        return self._keys_given.find(digest)

    async def start(self) -> None:
        """Start to mirror the registry. Waits `first_load_timeout_s` for a first snapshot: a registry that is away may return."""
        patience_s = self._first_load_timeout_s
        if self._fallback is not None and await self._load_fallback(self._fallback):
            patience_s = min(patience_s, _FIRST_LOOK_S)
        self._tasks = [self._supervisor.start_retrying_task("registry watch", self._watch)]
        if self._fallback is not None and self._fallback.saved_by_gateways:
            self._tasks.append(
                self._supervisor.start_retrying_task("registry fallback", partial(self._keep, self._fallback))
            )
        if await self._wait(lambda: self.connected, timeout_s=patience_s):
            return
        if self.snapshot is None:
            _log.error("the registry has not been read yet, so no model can be served: %s", self.last_error)
        else:
            _log.error("serving from the fallback, for the registry does not answer: %s", self.last_error)

    async def stop(self) -> None:
        for task in (*self._tasks, *self._asking.values()):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, RegistryError):
                await task
        if self._fallback is not None and self._to_keep is not None:
            await self._save(
                self._fallback, self._to_keep
            )  # with the keys as they were known: there is no time to ask

    async def wait_for_generation(self, generation: int, *, timeout_s: float) -> bool:
        """Wait until the snapshot is at `generation` or later. Returns False where it is not in time."""
        return await self._wait(
            lambda: self.snapshot is not None and self.snapshot.generation >= generation, timeout_s=timeout_s
        )

    async def _wait(self, condition: Callable[[], bool], *, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._advanced.clear()
                    await self._advanced.wait()
        except TimeoutError:
            return False
        return True

    # -- reading what the snapshot lacks

    async def read_missing_model(self, name: str) -> ModelEntry | None:
        """Read a model that the snapshot lacks from the registry itself. Raises Unavailable where it cannot be asked now.

        The snapshot stays as it is; the result is kept for two seconds. All who ask for one name share one read, and reads are
        rate limited: callers who ask for names that do not exist must not become a load on the registry.
        """
        try:
            check_model_name(name)
        except ValueError:
            return None  # no registry can hold it
        if name in self._asked and (self.is_authoritative or self._asked[name] is not None):
            return self._asked[name]
        asking = self._asking.get(name)
        if asking is None:
            if not self.is_authoritative:
                raise Unavailable(self.held or self.last_error or "the registry has not been read yet")
            if not self._bucket.take():
                return None  # the stream is well, so what it does not tell is hardly there
            asking = self._supervisor.start_one_off_task(
                "registry read-through", self._ask(name), expected=RegistryError
            )
            self._asking[name] = asking
            asking.add_done_callback(lambda done: self._asked_for(name, done))
        # Shielded: one caller who leaves must not take the answer from the others who wait for it.
        return await asyncio.shield(asking)

    async def _ask(self, name: str) -> ModelEntry | None:
        before = self.snapshot
        document = await self._registry.read(MODELS, name)
        entry: ModelEntry | None = None
        if document is not None:
            try:
                entry = compile_entry(document)
            except ValueError as error:
                _log.error("a registry document cannot be used: models/%s: %s", name, error)
        if self.snapshot is before:  # else what was read may be older than the snapshot
            self._asked[name] = entry
        return entry

    def _asked_for(self, name: str, done: "asyncio.Task[ModelEntry | None]") -> None:
        self._asking.pop(name, None)
        if not done.cancelled():
            done.exception()  # the waiter gets it, if there still is one

    # -- watching

    async def _watch(self, helper: HelperHealth) -> None:
        delay_s = _FIRST_DELAY_S
        while True:
            began = self._clock()
            try:
                async for listing in self._registry.watch(self._since):
                    if listing is not None:
                        await self._accept(listing)
                    elif self._held_listing is not None:
                        await self._accept(self._held_listing)
                    else:
                        self._confirm()
                raise Unavailable("the registry ended its watch")
            except Exception as error:  # noqa: BLE001  (whatever a plug-in raises, the mirror lives on)
                if not isinstance(error, RegistryError):
                    _log.debug("the watch met a bug", exc_info=error)
                self._fail(error)
                helper.failed(error, tell=False)  # the mirror reports it as what it means for the snapshot
            # One that lives for a moment each time must not be opened again and again at once.
            if self._clock() - began > _LONGEST_DELAY_S:
                delay_s = _FIRST_DELAY_S
            # Full jitter: a hundred gateways that lost one registry must not come back as one.
            await self._sleep(random_between(0, delay_s))
            delay_s = min(delay_s * 2, _LONGEST_DELAY_S)

    async def _accept(self, listing: MirroredListing) -> None:
        current = self.snapshot
        forked = (
            self._held_listing is not None
        )  # its numbers belong to another history: alike, they prove nothing
        if current is not None:
            same = current.registry_id == listing.registry_id
            if same and listing.generation == current.generation and not forked:
                self._settle()
                return
            if not (same and listing.generation >= current.generation) and self._must_hold(current, listing):
                return
            forked = forked or not same or listing.generation < current.generation
        snapshot = await self._compile(listing, None if forked else current)
        self._asked.clear()
        self.snapshot = snapshot
        self.on_swap(snapshot)
        for problem in snapshot.problems:
            _log.error("a registry document cannot be used: %s", problem)
        if self._fallback is not None and self._fallback.saved_by_gateways:
            self._to_keep = listing
        self._settle()

    async def _compile(self, listing: MirroredListing, current: Snapshot | None) -> Snapshot:
        """Compile next to the old snapshot, a slice at a time, so that ten thousand models hold up no request."""
        if current is None and len(listing.documents) >= _MANY:
            # Millions of small objects that stay: the garbage collector would look through them all, again and again,
            # 0.3 s at a time for ten thousand models, and find nothing.
            with _without_collection():
                snapshot = await self._compile_sliced(listing, None)
                gc.freeze()  # before it goes on, or it would begin with all of this
            return snapshot
        return await self._compile_sliced(listing, current)

    async def _compile_sliced(self, listing: MirroredListing, current: Snapshot | None) -> Snapshot:
        steps = compile_with_pauses(listing, current)
        clock = time.perf_counter
        ends = clock() + _SLICE_S
        while True:
            try:
                next(steps)
            except StopIteration as done:
                snapshot: Snapshot = done.value
                return snapshot
            if clock() > ends:
                await asyncio.sleep(0)
                ends = clock() + _SLICE_S

    def _must_hold(self, current: Snapshot, listing: MirroredListing) -> bool:
        """Whether to keep `current`, though the registry is another one now, or at an earlier generation."""
        empties = bool(current.entries) and not any(document.kind == MODELS for document in listing.documents)
        if self.source == FALLBACK and not empties:
            return False  # the registry itself is worth more than a copy of it
        if self._held_listing is None:
            self._held_since = self._clock()
            what = (
                f"went back from generation {current.generation} to {listing.generation}"
                if current.registry_id == listing.registry_id
                else f"has become another one ({listing.registry_id}, generation {listing.generation})"
            )
            self.held = f"the registry {what}" + (", which lists no model" if empties else "")
            _log.error("%s; the last good state is served on", self.held)
        if self._clock() - self._held_since >= self._accept_reset_after_s and not empties:
            _log.warning("%s, and that for %g s: it is accepted", self.held, self._accept_reset_after_s)
            return False
        if self._held_listing is not listing:
            self._held_listing = listing
            self.snapshot = current.with_revocations(listing)
        self.connected = True
        self.last_error = ""
        self._advanced.set()
        return True

    def _settle(self) -> None:
        """The snapshot is what the registry holds."""
        if self.held:
            _log.warning("the registry is believed again")
        self.held = ""
        self._held_listing = None
        self.source = REGISTRY
        if self._keys_turned and self._to_keep is None:
            self._to_keep = self._since
        self._keys_turned = False
        self._since = None
        self._keys_given = NO_KEYS
        self._confirm()

    def _confirm(self) -> None:
        if not self.connected and self.last_error:
            _log.warning("the registry is back")
        self.connected = True
        self.last_error = ""
        self._confirmed_at = self._clock()
        self._advanced.set()

    def _fail(self, error: BaseException) -> None:
        if self.connected or not self.last_error:
            serving = (
                "serving on from the last good state"
                if self.snapshot is not None
                else "nothing can be served"
            )
            _log.error("the registry does not answer (%s): %s", serving, error)
        self.connected = False
        self.failures += 1
        self.last_error = str(error) or type(error).__name__

    # -- the fallback

    async def _load_fallback(self, fallback: FallbackStore) -> bool:
        try:
            kept = await fallback.load()
        except RegistryError as error:
            _log.error("the fallback cannot be used: %s", error)
            return False
        if kept is None:
            _log.warning("there is no fallback yet at %s", fallback)
            return False
        self.snapshot = await self._compile(kept.listing, None)
        self.source = FALLBACK
        self._since = kept.listing
        self._confirmed_at = self._clock() - max(0.0, kept.age_s)
        self._keys_turned = fallback.saved_by_gateways and (kept.keys is None) == bool(
            self._fallback_keys_age_s
        )
        if kept.keys is not None and self._fallback_keys_age_s:
            self._keys_given = kept.keys
            self._keys_kept = kept.keys if fallback.saved_by_gateways else None
            self.kept_keys_end = self._confirmed_at + self._fallback_keys_age_s
        return True

    async def _keep(self, fallback: FallbackStore, helper: HelperHealth) -> None:
        saved: MirroredListing | None = None
        while True:
            await self._sleep(_KEEP_INTERVAL_S)
            listing = self._to_keep
            if listing is None:
                continue
            followed = await self._update_fallback_keys(listing)
            if followed or listing is not saved:
                try:
                    await fallback.save_if_newer(listing, self._keys_kept)
                except RegistryError as error:
                    helper.failed(error)
                    continue  # it is tried again in the next round
                helper.succeeded()
                saved = listing
            if self._to_keep is listing and followed:
                self._to_keep = None  # else there is a newer one, or the keys are to be asked for again

    async def _update_fallback_keys(self, listing: MirroredListing) -> bool:
        """Bring the keys of the copy to where `listing` is; False where that was not possible now."""
        if not self._fallback_keys_age_s:
            return True
        helper = self._supervisor.helper("keys in the fallback")
        try:
            self._keys_kept = await update_fallback_keys(self._registry, listing, self._keys_kept)
        except Exception as error:  # noqa: BLE001  (whatever a plug-in raises, the models are kept)
            helper.failed(error)
            return False
        helper.succeeded()
        return True

    async def _save(self, fallback: FallbackStore, listing: MirroredListing) -> None:
        try:
            await fallback.save_if_newer(listing, self._keys_kept)
        except RegistryError as error:
            _log.error("the fallback cannot be written: %s", error)
