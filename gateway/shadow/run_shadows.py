"""Runs the registry's shadows in this gateway process. It reports what each of them finds in one small document."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Final
from uuid import uuid4

from gateway.core.exchange import Exchange
from gateway.core.model_updates import to_document
from gateway.core.shadow_document import Shadow, why_not_shadowed
from gateway.registry.base import Conflict, Registry, RegistryError
from gateway.registry.snapshot import Snapshot
from gateway.shadow.comparer_process import ComparerLost, ComparerProcess
from gateway.shadow.difference_counts import Findings, ShadowReport
from gateway.shadow.sender import ShadowSender
from gateway.stages.adaptive_backend_concurrency import AdaptiveBackendConcurrency
from gateway.thread_and_task_supervisor import HelperHealth, Supervisor
from gateway.upstream.base import Upstream, UpstreamRequest

_log = logging.getLogger(__name__)

FIGURES: Final = "shadow-figures"
_LAST_S: Final = 2.0  # after its end: how long what is under way may take
_STOP_S: Final = 1.0

Observe = Callable[[Exchange, UpstreamRequest], None]


class _Running:
    """A shadow with what was found for it by processes that compared before."""

    def __init__(self, sender: ShadowSender) -> None:
        self.sender = sender
        self.before = Findings()  # of processes that were lost
        self.last = Findings()  # of the present one
        self.revision = 0

    @property
    def shadow(self) -> Shadow:
        return self.sender.shadow

    def lose_process(self) -> None:
        """Keep what the process that is lost had said it found, and count the pairs that are lost with it."""
        self.before.add(self.last)
        self.last = Findings()
        self.sender.count_uncompared_as_lost(self.before.candidate.requests)

    def report(self, gateway: str) -> ShadowReport:
        findings = Findings()
        findings.add(self.before)
        findings.add(self.last)
        return ShadowReport(
            shadow=self.shadow.id,
            gateway=gateway,
            sampled=self.sender.sampled,
            dropped=dict(self.sender.dropped),
            incomparable=self.sender.incomparable,
            findings=findings,
        )


class ShadowRunner:
    """Runs the shadows of one gateway process.

    It reports what they find. Call `follow` with each snapshot. `install` sets what sees requests before they are
    forwarded, and takes it away. `upstream` is for shadows alone. It, the process that compares and the task that
    reports run only while a shadow does.
    """

    def __init__(
        self,
        store: Registry,
        install: Callable[[Observe | None], None],
        upstream: Upstream,
        slots: AdaptiveBackendConcurrency,
        *,
        supervisor: Supervisor,
    ) -> None:
        self._store = store
        self._install = install
        self._upstream = upstream
        self._slots = slots
        self._supervisor = supervisor
        self._gateway = uuid4().hex[:12]
        self._comparer = ComparerProcess()
        self._running: dict[str, _Running] = {}
        self._ended: list[_Running] = []
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def follow(self, snapshot: Snapshot) -> None:
        """Run the shadows of `snapshot`, and no others.

        A shadow runs as long as its time is not over and its versions are what they were.
        """
        now = time.time()
        wanted: dict[str, Shadow] = {}
        for name, shadow in snapshot.shadows.items():
            entry = snapshot.entries.get(name)
            if not why_not_shadowed(shadow, entry.model if entry is not None else None, now):
                wanted[name] = shadow
        for name in [name for name, one in self._running.items() if wanted.get(name) != one.shadow]:
            self._end(name)
        for name, shadow in wanted.items():
            model = snapshot.entries[name].model
            candidate, stable = model.backend(shadow.candidate), model.backend(shadow.stable)
            if candidate is not None and stable is not None:
                running = self._running.get(name)
                if running is not None:
                    running.sender.refresh_backends(candidate, stable)
                else:
                    self._running[name] = _Running(
                        ShadowSender(
                            shadow, candidate, stable, self._upstream, self._slots, self._comparer.offer
                        )
                    )
        self._show()
        if self._running or self._ended:
            self._changed.set()

    def counters(self) -> dict[str, dict[str, float]]:
        """The shadows' counters for the metrics, by model."""
        senders = {name: one.sender for name, one in list(self._running.items())}
        return {
            "chips_shadow_sampled_total": {name: float(one.sampled) for name, one in senders.items()},
            "chips_shadow_dropped_total": {
                name: float(sum(one.dropped.values())) for name, one in senders.items()
            },
        }

    async def start(self) -> None:
        await self._upstream.start()
        self._task = self._supervisor.start_retrying_task("shadows", self._run)

    async def stop(self) -> None:
        """Stop all shadows. It writes one last report before, if that is quick."""
        self._install(None)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        with contextlib.suppress(TimeoutError, RegistryError, ComparerLost):
            async with asyncio.timeout(_STOP_S):
                for one in self._running.values():
                    await self._report(one)
        for one in (*self._running.values(), *self._ended):
            one.sender.cancel()
        await self._upstream.stop()
        await self._comparer.stop()

    def _show(self) -> None:
        """See requests only while their answers can be compared."""
        self._install(self._observe if self._running and self._comparer.is_running else None)

    def _observe(self, exchange: Exchange, request: UpstreamRequest) -> None:
        one = self._running.get(exchange.model.name)
        if one is not None:
            try:
                one.sender.observe(exchange, request)
            except Exception:  # noqa: BLE001  (a caller waits for this request)
                _log.exception("request %s could not be shadowed", exchange.request_id)

    def _end(self, name: str) -> None:
        running = self._running.pop(name)
        running.sender.stop_sampling()
        self._ended.append(running)

    async def _run(self, helper: HelperHealth) -> None:
        while True:
            while not self._running and not self._ended:
                self._changed.clear()
                await self._changed.wait()
            await self._comparer.start()
            self._show()
            try:
                await self._attend(helper)
            except ComparerLost:
                self._install(None)
                await self._comparer.stop()
                raise
            await self._comparer.stop()

    async def _attend(self, helper: HelperHealth) -> None:
        """Report until no shadow runs. Raises ComparerLost, after which it is begun again."""
        while self._running or self._ended:
            self._changed.clear()
            every_s = min((one.shadow.report_s for one in self._running.values()), default=0.0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.0 if self._ended else every_s):
                    await self._changed.wait()
            for name in [name for name, one in self._running.items() if one.sender.over]:
                self._end(name)
            self._show()
            try:
                for one in list(self._running.values()):
                    await self._report(one)
                await self._close_ended()
            except ComparerLost:
                for one in (*self._running.values(), *self._ended):
                    one.lose_process()
                raise
            except RegistryError as error:
                await asyncio.sleep(helper.failed(error))  # the figures are kept, and written with the next
            else:
                helper.succeeded()

    async def _close_ended(self) -> None:
        """What was under way at the end of a shadow still counts, if it is done soon."""
        while self._ended:
            one = self._ended[-1]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_S):
                    await one.sender.wait_idle()
            one.sender.cancel()
            await self._report(one)
            self._comparer.forget(one.shadow.id)
            self._ended.remove(one)  # others may have ended meanwhile

    async def _report(self, one: _Running) -> None:
        one.last = await self._comparer.findings_since_start(one.shadow.id)
        body = to_document(one.report(self._gateway))
        for _ in range(2):
            try:
                name = f"{one.shadow.model}.{self._gateway}"
                one.revision = await self._store.write_ephemeral(FIGURES, name, body, expected=one.revision)
            except Conflict as conflict:  # of an earlier shadow, or somebody deleted it
                one.revision = conflict.actual
            else:
                return
