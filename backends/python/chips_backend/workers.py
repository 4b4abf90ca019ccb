"""Run as many predictions at once as declared, with a short queue of requests behind them."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from chips_backend.failure_cause import ModelFailed, explain
from chips_backend.logs import Log
from chips_backend.manifest import Manifest
from chips_backend.model import Facts, Row, Rows
from chips_backend.prediction_pool import BROKEN, Failed, Slot, open_slots
from chips_backend.prediction_pool import Outcome as Came
from chips_backend.problem_details import Problem

WAITING_PER_SLOT = 16
RESTART_PAUSE_S = 1.0  # before a slot that could not be restarted is tried again


class Outcome(NamedTuple):
    """The predictions of one request, how many seconds it waited and was predicted, and how many requests shared that call."""

    predictions: list[Any]
    queue_s: float
    predict_s: float
    shared: int = 1


def overloaded() -> Problem:
    return Problem(
        503, "overloaded", "all prediction slots are busy and the queue is full", headers={"Retry-After": "1"}
    )


def too_late() -> Problem:
    return Problem(504, "deadline-exceeded", "the time allowed was over before the prediction could begin")


def took_too_long() -> Problem:
    return Problem(504, "deadline-exceeded", "the time allowed was over before the prediction had ended")


def cannot_work() -> Problem:
    return Problem(
        503,
        "not-ready",
        "no prediction slot could be restarted; it is tried again",
        headers={"Retry-After": "1"},
    )


class _NoSlot:
    """Stands for a slot where all are broken, so that a request that waits for one is answered at once."""

    async def load(self) -> Facts:
        raise cannot_work()

    def submit(self, rows: Rows, parameters: dict[str, Any]) -> asyncio.Future[Came]:  # noqa: ARG002
        raise cannot_work()

    def end_running(self) -> bool:
        return False

    def restart(self) -> None: ...

    def stop(self) -> None: ...


_NO_SLOT: Final = _NoSlot()


def fail(waiting: "asyncio.Future[Any]", error: Exception) -> None:
    """Raise `error` where a future is awaited, if it still is."""
    if not waiting.done():
        waiting.set_exception(error)


class Workers:
    """Runs as many predictions at once as declared; a few more requests wait in a queue.

    A slot that cannot be restarted is broken: it gets no work, and is tried again after a pause. While all slots are broken,
    every request is refused with 503.
    """

    def __init__(self, concurrency: int, log: Log | None = None) -> None:
        self.concurrency = concurrency
        self.waiting_limit = concurrency * WAITING_PER_SLOT
        self._free: deque[Slot] = deque()
        self._takers: deque[asyncio.Future[Slot]] = deque()  # who waits for a slot
        self._slots: Sequence[Slot] = ()
        self._overdue: set[Slot] = set()  # held by work that is past its deadline
        self._broken: dict[Slot, asyncio.TimerHandle] = {}  # with the next try to restart it
        self._log = log or Log()
        self.good: Row | None = None  # a row that the model can take

    @property
    def is_stuck(self) -> bool:
        return len(self._overdue) + len(self._broken) == self.concurrency

    @property
    def has_free_slot(self) -> bool:
        return bool(self._free)

    async def start(self, folder: Path, manifest: Manifest) -> Facts:
        """Load the model. Raises LoadFailed."""
        self._slots, facts = await open_slots(self.concurrency, folder, manifest)
        self._free.extend(self._slots)
        return facts

    async def score(self, rows: Rows, parameters: dict[str, Any], deadline: float | None) -> Outcome:
        """Predict `rows`. `deadline` is in seconds of the loop's clock. Raises Problem, CannotTake or ModelFailed."""
        if not self._free and len(self._takers) >= self.waiting_limit:
            raise overloaded()
        return await self.score_waiting(rows, parameters, deadline)

    async def score_waiting(self, rows: Rows, parameters: dict[str, Any], deadline: float | None) -> Outcome:
        """As `score`, however long the line is."""
        began = time.monotonic()
        slot = await self.take(deadline)
        queued_until = time.monotonic()
        came = await self.predict(slot, rows, parameters, deadline)
        if isinstance(came, Failed):
            raise await self._explained(came, rows, parameters, deadline)
        return Outcome(came, queued_until - began, time.monotonic() - queued_until)

    async def _explained(
        self, failed: Failed, rows: Rows, parameters: dict[str, Any], deadline: float | None
    ) -> Exception:
        async def again(some: Rows, asked: dict[str, Any]) -> Came:
            return await self.predict(await self.take(deadline), some, asked, deadline)

        return await explain(failed, rows, parameters, self.good, again)

    async def take(self, deadline: float | None = None) -> Slot:
        """Wait for a slot; who takes one gives it to `predict` or gives it back. Raises Problem at the deadline."""
        if self._free:
            return self._free.pop()
        if self._all_broken:
            return _NO_SLOT
        loop = asyncio.get_running_loop()
        taker: asyncio.Future[Slot] = loop.create_future()
        self._takers.append(taker)
        alarm = None if deadline is None else loop.call_at(deadline, fail, taker, too_late())
        try:
            return await taker
        except asyncio.CancelledError:
            if taker.done() and not taker.cancelled() and taker.exception() is None:
                self.give_back(taker.result())
            raise
        finally:
            if alarm is not None:
                alarm.cancel()
            if taker in self._takers:
                self._takers.remove(taker)

    @property
    def _all_broken(self) -> bool:
        return len(self._broken) == self.concurrency

    def give_back(self, slot: Slot, *, last: bool = False) -> None:
        if slot is _NO_SLOT:
            return
        while self._takers:
            taker = self._takers.popleft()
            if not taker.done():
                taker.set_result(slot)
                return
        if last:
            self._free.appendleft(slot)
        else:
            self._free.append(slot)  # the one used last has the warmest caches

    async def predict(
        self, slot: Slot, rows: Rows, parameters: dict[str, Any], deadline: float | None = None
    ) -> Came:
        """Predict in `slot`, which is free again when the work has truly ended, even where the caller leaves before.

        At the deadline a process is ended; a thread works on, and nobody waits for it. Raises Problem, or ModelFailed where the
        process ended under the work.
        """
        try:
            running = slot.submit(rows, parameters)
        except Problem:  # of `_NO_SLOT`
            raise
        except Exception as error:
            self._set_aside(slot, error)
            raise cannot_work() from error
        except BaseException:
            self.give_back(slot)
            raise
        loop = asyncio.get_running_loop()
        came: asyncio.Future[Came] = loop.create_future()
        alarm = None if deadline is None else loop.call_at(deadline, self._pass_deadline, slot, running, came)
        running.add_done_callback(partial(self._finished, slot, came, alarm))
        return await came

    def _pass_deadline(
        self, slot: Slot, running: "asyncio.Future[Came]", came: "asyncio.Future[Came]"
    ) -> None:
        if not running.done():
            self._overdue.add(slot)
            fail(came, took_too_long())
            slot.end_running()

    def _finished(
        self,
        slot: Slot,
        came: "asyncio.Future[Came]",
        alarm: asyncio.TimerHandle | None,
        running: "asyncio.Future[Came]",
    ) -> None:
        """The work has ended: free the slot, and tell who waits for it."""
        if alarm is not None:
            alarm.cancel()
        self._overdue.discard(slot)
        error = asyncio.CancelledError() if running.cancelled() else running.exception()
        broke = isinstance(error, BROKEN)
        if broke:
            self._restart(slot)
        else:
            self.give_back(slot)
        if came.done():
            return
        if error is None:
            came.set_result(running.result())
        elif broke:
            ended = Failed(type(error).__name__, "the process ended under the prediction", str(error))
            came.set_exception(ModelFailed(ended))
        elif isinstance(error, Exception):  # what cannot cross to a process, for example
            came.set_result(Failed(type(error).__name__, str(error), ""))
        else:
            came.cancel()

    def _restart(self, slot: Slot) -> None:
        """Restart a slot and free it; set it aside where that fails."""
        try:
            slot.restart()
        except Exception as error:  # noqa: BLE001  (whatever a system says that gives no process)
            self._set_aside(slot, error)
            return
        if self._broken.pop(slot, None) is not None:
            self._log.info("a prediction slot that could not be restarted works again")
        self.give_back(slot, last=True)

    def _set_aside(self, slot: Slot, error: Exception) -> None:
        """Give a slot no work until it could be restarted."""
        if slot not in self._broken:
            self._log.error("a prediction slot could not be restarted; it is tried again", cause=error)
        loop = asyncio.get_running_loop()
        self._broken[slot] = loop.call_later(RESTART_PAUSE_S, self._restart, slot)
        while self._all_broken and self._takers:
            taker = self._takers.popleft()
            if not taker.done():
                taker.set_result(_NO_SLOT)

    async def stop(self, grace_s: float) -> None:
        """Let what runs finish, but no longer than that."""
        for handle in self._broken.values():
            handle.cancel()
        stopping = [asyncio.to_thread(slot.stop) for slot in self._slots]
        try:
            async with asyncio.timeout(grace_s):
                await asyncio.gather(*stopping)
        except TimeoutError:
            return
