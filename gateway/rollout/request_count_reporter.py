"""Reports to the controller how many requests this gateway counted for each rollout.

Only active rollouts count. Each gateway writes a small document for each rollout, once in each window. A report holds the
last few windows, each with a number, so that one that could not be written or read in time comes with the next. Nothing is
counted, timed or written where no rollout runs.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Final
from uuid import uuid4

import msgspec

from gateway.core.exchange import Exchange
from gateway.core.model_updates import to_document
from gateway.core.rollout_document import Rollout, version_replaced_since_start
from gateway.registry.base import Conflict, Registry, RegistryError
from gateway.registry.snapshot import Snapshot
from gateway.rollout.lease import LeaseObserver
from gateway.rollout.request_counter import Count, RequestCounter, Tally, VersionWindowCollector
from gateway.telemetry.metrics import Reading
from gateway.thread_and_task_supervisor import HelperHealth, Supervisor

FIGURES: Final = "rollout-figures"
_WINDOWS: Final = 8  # kept in a report: two minutes of 15 s each
_STOP_S: Final = 1.0
_UNATTENDED_S: Final = 60.0  # without a sign of life of any controller
_log = logging.getLogger(__name__)


class RolloutWindow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The request counts of one time window of a rollout.

    They are those of both versions, at one gateway, at one step of the plan.
    """

    number: Count  # from 1 on
    position: int  # of the step
    after_s: float  # how long that step was in force when the window began
    versions: dict[str, Tally]


class RolloutReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One gateway's report on a rollout. It is the document `rollout-figures/MODEL.GATEWAY`."""

    rollout: str  # its id
    gateway: str
    windows: tuple[RolloutWindow, ...]
    final: bool = False  # the gateway has stopped
    process: str = ""  # `process_liveness.current_process`, where the store is of one machine

    @property
    def last(self) -> int:
        return self.windows[-1].number if self.windows else 0


class _Open:
    """A rollout that is counted now."""

    def __init__(self, rollout: Rollout, now: float, *, counts: bool) -> None:
        self.rollout = rollout
        self.counts = counts  # both versions are what they were when the rollout began
        self.stepped_at = self.began = now
        self.due = now + rollout.plan.window_s
        self.number = 0
        self.revision = 0
        self.windows: list[RolloutWindow] = []
        self.collectors = {
            rollout.candidate: VersionWindowCollector(),
            rollout.stable: VersionWindowCollector(),
        }

    def close_window(self, now: float) -> None:
        self.number += 1
        self.windows.append(
            RolloutWindow(
                number=self.number,
                position=self.rollout.position,
                after_s=round(self.began - self.stepped_at, 3),
                versions={
                    version: collector.fold_times_into_tally()
                    for version, collector in self.collectors.items()
                },
            )
        )
        del self.windows[:-_WINDOWS]
        for version in self.collectors:
            self.collectors[version] = VersionWindowCollector()
        self.began = now

    def report(self, gateway: str, process: str, *, final: bool) -> RolloutReport:
        return RolloutReport(
            rollout=self.rollout.id,
            gateway=gateway,
            windows=tuple(self.windows),
            final=final,
            process=process,
        )


class RolloutReporter:
    """Reports this gateway's request counts for the active rollouts.

    It counts the requests, and reports once in each window. Call `follow` with each snapshot. `count_also` installs the
    counter where requests end, and takes it away. `controller_lease` shows whether there is a controller: it is looked at
    with each report.
    """

    def __init__(
        self,
        store: Registry,
        count_also: Callable[[Callable[[Exchange], None] | None], None],
        *,
        supervisor: Supervisor,
        controller_lease: LeaseObserver | None = None,
        process: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._controller_lease = controller_lease
        self._process = process
        self._unattended = False
        self._store = store
        self._count_also = count_also
        self._supervisor = supervisor
        self._clock = clock
        self._gateway = uuid4().hex[:12]
        self._counter = RequestCounter()
        self._open: dict[str, _Open] = {}
        self._ended: list[str] = []
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def follow(self, snapshot: Snapshot) -> None:
        """Count for the rollouts that are active in `snapshot`. No others are counted for."""
        active = {name: rollout for name, rollout in snapshot.rollouts.items() if rollout.active}
        if not active and not self._open:
            return
        now = self._clock()
        if self._controller_lease is not None and not (active and self._open):
            self._unattended = False
            self._controller_lease.reset()
        for name in list(self._open):
            if name not in active or active[name].id != self._open[name].rollout.id:
                self._ended.append(name)
                del self._open[name]
        for name, rollout in active.items():
            counted = self._open.get(name)
            entry = snapshot.entries.get(name)
            counts = entry is not None and not version_replaced_since_start(rollout, entry.model)
            if counted is None:
                counted = self._open[name] = _Open(rollout, now, counts=counts)
            elif counted.rollout.position != rollout.position:
                counted.close_window(now)  # of the old share: no window has two
                counted.rollout, counted.stepped_at = rollout, now
            else:
                counted.rollout = rollout
            if counts != counted.counts:
                counted.counts = counts
                counted.close_window(now)  # what another backend does under the same name is no evidence
        self._counter.collectors = {n: one.collectors for n, one in self._open.items() if one.counts}
        self._count_also(self._counter if self._counter.collectors else None)
        self._changed.set()

    async def start(self) -> None:
        self._task = self._supervisor.start_retrying_task("rollout figures", self._run)

    async def stop(self) -> None:
        """Stop, after one last report. It is written if that is quick."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        with contextlib.suppress(TimeoutError, RegistryError):
            async with asyncio.timeout(_STOP_S):
                for name, counted in list(self._open.items()):
                    await self._report(name, counted, final=True)

    async def _run(self, helper: HelperHealth) -> None:
        while True:
            await self._wait()
            try:
                await self._forget_ended()
                for name, counted in list(self._open.items()):
                    if self._clock() >= counted.due:
                        await self._report(name, counted)
                        await self._look_for_controller(counted.rollout.plan.window_s)
            except RegistryError as error:
                await asyncio.sleep(helper.failed(error))  # the windows are kept, and written with the next
            else:
                helper.succeeded()

    async def _wait(self) -> None:
        """Until a window is over, or the rollouts have changed; without one, until there is one."""
        self._changed.clear()
        due = min((counted.due for counted in self._open.values()), default=None)
        if not self._ended and (due is None or due > self._clock()):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if due is None else max(0.0, due - self._clock())):
                    await self._changed.wait()

    async def _report(self, name: str, counted: _Open, *, final: bool = False) -> None:
        now = self._clock()
        counted.close_window(now)
        counted.due = now + counted.rollout.plan.window_s
        body = to_document(counted.report(self._gateway, self._process, final=final))
        for _ in range(2):
            try:
                counted.revision = await self._store.write_ephemeral(
                    FIGURES, self._name(name), body, expected=counted.revision
                )
            except Conflict as conflict:  # an earlier write was done, though nobody said so
                counted.revision = conflict.actual
            else:
                return

    async def _look_for_controller(self, window_s: float) -> None:
        if self._controller_lease is None:
            return
        unattended = await self._controller_lease.seconds_since_observed_renewal() > max(
            _UNATTENDED_S, 4 * window_s
        )
        if unattended and not self._unattended:
            _log.error("a rollout is under way, and no controller: start one with `chips rollouts run`")
        self._unattended = unattended

    def gauges(self) -> Reading:
        return {"chips_rollout_unattended": {"": float(self._unattended and bool(self._open))}}

    async def _forget_ended(self) -> None:
        while self._ended:
            name = self._ended[-1]
            await self._store.delete_ephemeral(FIGURES, self._name(name))
            self._ended.remove(name)  # others may have ended meanwhile

    def _name(self, model: str) -> str:
        return f"{model}.{self._gateway}"
