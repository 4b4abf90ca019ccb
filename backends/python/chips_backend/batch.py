"""Micro-batching: requests that wait at the same moment are predicted in one call, within a latency target.

What one call costs is learned as it goes: `fixed + per_row * rows` seconds. A batch takes at most as many rows as fit the
target. It waits for more only while that pays: while the calls saved (one `fixed` for each request that comes along) are
worth more than the time that those in the batch lose, and only as long as the oldest of them keeps within the target.

Without a target nobody waits for company: a request that finds a free slot is predicted at once and by itself, and those that
wait for a slot anyway share a call that takes a fifth longer than one of them would, at most.
"""

import asyncio
import math
import time
from collections import deque
from typing import Any, Final

from chips_backend.column_block import joined
from chips_backend.failure_cause import ModelFailed
from chips_backend.model import Rows
from chips_backend.prediction_pool import Failed, Slot
from chips_backend.workers import Outcome, Workers, overloaded, too_late, took_too_long

_MOST_ROWS: Final = 1024
_SAFETY: Final = 0.8  # of the target is planned with
_MEMORY: Final = 0.98  # how much of what was learned remains after each call


class Cost:
    """Estimates the seconds of a call from its number of rows: a line fitted to past calls, newest first in weight."""

    def __init__(self) -> None:
        self._n = self._x = self._y = self._xx = self._xy = 0.0

    def learn(self, rows: int, seconds: float) -> None:
        for name in ("_n", "_x", "_y", "_xx", "_xy"):
            setattr(self, name, getattr(self, name) * _MEMORY)
        self._n += 1
        self._x += rows
        self._y += seconds
        self._xx += rows * rows
        self._xy += rows * seconds

    @property
    def line(self) -> tuple[float, float]:
        """(fixed, per_row), both at least zero. As long as all calls had one size, all of it is per row."""
        if self._x == 0:
            return 0.0, 0.0
        if self._differ:
            spread = self._n * self._xx - self._x * self._x
            per_row = max(0.0, (self._n * self._xy - self._x * self._y) / spread)
            fixed = (self._y - per_row * self._x) / self._n
            if fixed >= 0:
                return fixed, per_row
        return 0.0, self._y / self._x

    @property
    def _differ(self) -> bool:
        """Whether calls of different sizes were seen."""
        return self._n * self._xx - self._x * self._x > 1e-6 * self._xx

    def of(self, rows: int) -> float:
        fixed, per_row = self.line
        return fixed + per_row * rows

    def rows_within(self, seconds: float) -> int:
        """How many rows a call may have.

        One, before anything was seen. Twice as many as before, while only one size was seen: that is how it learns what
        a row adds. Where even one row misses the target, those that make the call a fifth longer at most.
        """
        fixed, per_row = self.line
        if per_row <= 0:
            return _MOST_ROWS if self._n else 1
        seconds = max(seconds, 1.2 * (fixed + per_row))
        fitting = math.floor((seconds - fixed) / per_row)
        if not self._differ:
            fitting = max(fitting, math.ceil(2 * self._x / self._n))
        return max(1, min(_MOST_ROWS, fitting))


class _Entry:
    """One request in the line."""

    def __init__(self, rows: Rows, parameters: dict[str, Any], deadline: float | None) -> None:
        loop = asyncio.get_running_loop()
        self.rows = rows
        self.parameters = parameters
        self.deadline = deadline
        self.arrived = time.monotonic()
        self.begun: asyncio.Future[float] = loop.create_future()
        self.done: asyncio.Future[tuple[list[Any], float]] = loop.create_future()

    @property
    def is_left(self) -> bool:
        return self.begun.cancelled()

    def is_like(self, other: "_Entry") -> bool:
        """Whether both may share a call. One without a deadline would keep a process that hangs from being ended."""
        return self.parameters == other.parameters and (self.deadline is None) == (other.deadline is None)


class Batcher:
    """Collects requests that wait at the same moment, and predicts them in one call."""

    def __init__(self, workers: Workers, target_s: float) -> None:
        self._workers = workers
        self._target_s = target_s
        self._line: deque[_Entry] = deque()
        self._came = asyncio.Event()
        self._cost = Cost()
        self._gap_s = math.inf  # between two requests, on average
        self._last_came = -math.inf
        self._running: set[asyncio.Task[None]] = set()
        self._dispatcher = asyncio.create_task(self._dispatch(), name="batches")

    async def score(self, rows: Rows, parameters: dict[str, Any], deadline: float | None) -> Outcome:
        """As `Workers.score`."""
        if not self._target_s and not self._line and self._workers.has_free_slot:
            outcome = await self._workers.score(rows, parameters, deadline)
            self._cost.learn(len(rows), outcome.predict_s)
            return outcome
        if len(self._line) >= self._workers.waiting_limit:
            raise overloaded()
        entry = _Entry(rows, parameters, deadline)
        self._learn_gap(entry.arrived)
        self._line.append(entry)
        self._came.set()
        try:
            async with asyncio.timeout_at(deadline):
                began = await entry.begun  # cancelled with us: then the entry is not predicted
        except TimeoutError:
            raise too_late() from None
        try:
            async with asyncio.timeout_at(deadline):
                predictions, predict_s = await entry.done
        except TimeoutError:
            raise took_too_long() from None
        return Outcome(predictions, began - entry.arrived, predict_s)

    async def stop(self) -> None:
        self._dispatcher.cancel()
        for task in self._running:
            task.cancel()
        await asyncio.gather(self._dispatcher, *self._running, return_exceptions=True)

    def _learn_gap(self, now: float) -> None:
        gap = now - self._last_came
        self._last_came = now
        self._gap_s = gap if self._gap_s == math.inf else 0.9 * self._gap_s + 0.1 * gap

    async def _dispatch(self) -> None:
        while True:
            await self._came.wait()
            slot = await self._workers.take()
            try:
                await self._gather()
                batch = self._take()
            except BaseException:
                self._workers.give_back(slot)
                raise
            if not batch:
                self._workers.give_back(slot)
                continue
            task = asyncio.create_task(self._run(slot, batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _gather(self) -> None:
        """Wait for company as long as that pays."""
        while self._line:
            self._drop_left()
            rows = sum(len(entry.rows) for entry in self._line)
            wait_s = self._worth_waiting(rows) if self._line else 0.0
            if wait_s <= 0:
                return
            self._came.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._came.wait()
            except TimeoutError:
                return

    def _worth_waiting(self, rows: int) -> float:
        fixed, _ = self._cost.line
        left_s = (
            self._target_s * _SAFETY - (time.monotonic() - self._line[0].arrived) - self._cost.of(rows + 1)
        )
        if rows >= self._cost.rows_within(self._target_s * _SAFETY) or len(self._line) * self._gap_s > fixed:
            return 0.0
        return min(left_s, 2 * self._gap_s)

    def _drop_left(self) -> None:
        while self._line and self._line[0].is_left:
            self._line.popleft()

    def _take(self) -> list[_Entry]:
        """The oldest, and those behind it that are like it and still fit."""
        batch: list[_Entry] = []
        kept: deque[_Entry] = deque()
        most, rows = self._cost.rows_within(self._target_s * _SAFETY), 0
        for entry in self._line:
            if entry.is_left:
                continue
            fits = not batch or (rows + len(entry.rows) <= most and entry.is_like(batch[0]))
            if fits:
                batch.append(entry)
                rows += len(entry.rows)
            else:
                kept.append(entry)
        self._line = kept
        if kept:
            self._came.set()
        else:
            self._came.clear()
        now = time.monotonic()
        for entry in batch:
            entry.begun.set_result(now)
        return batch

    async def _run(self, slot: Slot, batch: list[_Entry]) -> None:
        rows = joined([entry.rows for entry in batch])
        # A process may be ended when the last of them has stopped waiting.
        deadlines = [math.inf if entry.deadline is None else entry.deadline for entry in batch]
        latest = max(deadlines)
        began = time.monotonic()
        try:
            came = await self._workers.predict(
                slot, rows, batch[0].parameters, None if latest == math.inf else latest
            )
        except ModelFailed as error:  # its process ended, by whose rows nobody can tell
            came = error.failed
        except Exception as error:  # noqa: BLE001  (each caller gets it)
            for entry in batch:
                _fail(entry, error)
            return
        if isinstance(came, Failed):
            await self._run_one_by_one(batch)
            return
        took = time.monotonic() - began
        self._cost.learn(len(rows), took)
        at = 0
        for entry in batch:
            _finish(entry, came[at : at + len(entry.rows)], took)
            at += len(entry.rows)

    async def _run_one_by_one(self, batch: list[_Entry]) -> None:
        """Somebody's rows made it fail: only they get the error, and what is wrong with them."""
        for entry in batch:
            if entry.done.cancelled():
                continue
            try:
                outcome = await self._workers.score_waiting(entry.rows, entry.parameters, entry.deadline)
            except Exception as error:  # noqa: BLE001
                _fail(entry, error)
            else:
                _finish(entry, outcome.predictions, outcome.predict_s)


def _finish(entry: _Entry, predictions: list[Any], took: float) -> None:
    if not entry.done.done():
        entry.done.set_result((predictions, took))


def _fail(entry: _Entry, error: Exception) -> None:
    if not entry.done.done():
        entry.done.set_exception(error)
        entry.done.exception()  # a caller who has left will not ask for it
