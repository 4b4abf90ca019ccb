"""Micro-batching: requests that wait at the same moment are predicted in one call, within a latency target.

What one call costs is learned as it goes: `fixed + per_row * rows` seconds. A batch takes at most as many rows as fit the
target. It waits for more only while that pays: while the calls saved (one `fixed` for each request that comes along) are
worth more than the time that those in the batch lose, and only as long as the oldest of them keeps within the target.

Without a target nobody waits for company: a request that finds a free slot is predicted at once and by itself. Those that wait for a
slot anyway share a call as long as each one that joins saves more than it costs: it saves one `fixed` for itself and for each that
waits behind it, and costs its rows' time for each that is in the call already.
"""

import asyncio
import contextlib
import math
import time
from collections import deque
from typing import Any, Final

import msgspec

from chips_backend.column_block import form_of, joined
from chips_backend.failure_cause import ModelFailed
from chips_backend.model import Rows
from chips_backend.prediction_pool import Failed, Slot
from chips_backend.workers import Outcome, Workers, fail, overloaded, too_late, took_too_long

_MOST_ROWS: Final = 10_000
_WAIT_S: Final = 1.0  # of predictions may wait for a slot, if that is more requests than wait in any case
_MOST_WAITING: Final = 16  # times as many, however fast they are
_SAFETY: Final = 0.8  # of the target is planned with
_MEMORY: Final = 0.98  # how much of what was learned remains after each call


class Cost:
    """Estimates the seconds of a call from its number of rows: a line fitted to past calls, newest first in weight."""

    def __init__(self) -> None:
        self._n = self._x = self._y = self._xx = self._xy = 0.0

    def learn(self, rows: int, seconds: float) -> None:
        self._n = self._n * _MEMORY + 1
        self._x = self._x * _MEMORY + rows
        self._y = self._y * _MEMORY + seconds
        self._xx = self._xx * _MEMORY + rows * rows
        self._xy = self._xy * _MEMORY + rows * seconds

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

    @property
    def is_known(self) -> bool:
        """Whether a call was seen."""
        return self._n > 0

    def rows_within(self, seconds: float) -> int:
        """How many rows a call may have.

        One, before anything was seen, and where even one misses the target. Twice as many as before, while only one size was
        seen: that is how it learns what a row adds.
        """
        fixed, per_row = self.line
        if per_row <= 0:
            return _MOST_ROWS if self._n else 1
        fitting = math.floor((seconds - fixed) / per_row)
        if not self._differ:
            fitting = max(fitting, math.ceil(2 * self._x / self._n))
        return max(1, min(_MOST_ROWS, fitting))


class _Entry:
    """One request in the line."""

    __slots__ = ("arrived", "asked", "began", "deadline", "done", "form", "parameters", "rows")

    def __init__(self, rows: Rows, parameters: dict[str, Any], deadline: float | None) -> None:
        self.rows = rows
        self.parameters = parameters
        self.asked = _as_asked(parameters) if parameters else b"{}"
        self.form = form_of(rows)
        self.deadline = deadline
        self.arrived = time.monotonic()
        self.began: float | None = None  # when it left the line
        self.done: asyncio.Future[tuple[list[Any], float, int]] = asyncio.get_running_loop().create_future()

    @property
    def is_left(self) -> bool:
        return self.done.done() and self.began is None

    def pass_deadline(self) -> None:
        fail(self.done, too_late() if self.began is None else took_too_long())

    def is_like(self, other: "_Entry") -> bool:
        """Whether both may share a call. One without a deadline would keep a process that hangs from being ended.

        Rows of another form would make all of them be converted, one by one.
        """
        return (
            self.asked == other.asked
            and (self.deadline is None) == (other.deadline is None)
            and self.form == other.form
        )


def _as_asked(parameters: dict[str, Any]) -> object:
    """What parameters are compared by: their JSON, since 1, 1.0 and true are equal in Python. What has none is like no other."""
    try:
        return msgspec.json.encode(parameters)
    except (RecursionError, ValueError, TypeError, OverflowError):
        return object()


class _Call:
    """A call that is being put together for some of those who wait, `waiting` in all."""

    def __init__(self, cost: Cost, target_s: float, waiting: int) -> None:
        self.entries: list[_Entry] = []
        self._fixed_s, self._row_s = cost.line
        self._fitting = cost.rows_within(target_s)
        self._target_s = target_s
        self._waiting = waiting
        self._rows = 0
        self._is_late = False
        self._left_s = math.inf  # until the first deadline of one that is in it
        self._now = asyncio.get_running_loop().time()

    def add(self, entry: _Entry) -> bool:
        """Add a request where it may share the call; whether it was added."""
        rows = self._rows + len(entry.rows)
        took_s = self._fixed_s + self._row_s * rows
        left_s = self._left_s if entry.deadline is None else min(self._left_s, entry.deadline - self._now)
        if not self.entries:
            self._is_late = took_s > self._target_s
        elif not (
            entry.is_like(self.entries[0])
            and took_s <= left_s
            and (rows <= self._fitting or (self._is_late and self._pays(rows)))
        ):
            return False
        self.entries.append(entry)
        self._rows, self._left_s = rows, left_s
        return True

    def _pays(self, rows: int) -> bool:
        """Whether one more, with which it would have so many rows, saves more than those that are in it lose.

        It saves a call for itself and for each that is not in it, and takes time from each that is.
        """
        among = len(self.entries)
        lost_s = self._row_s * (rows - self._rows) * among
        return rows <= _MOST_ROWS and self._fixed_s * (self._waiting - among) >= lost_s


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
        self._apart = 0  # requests whose call failed, and that are predicted in smaller ones now
        self._dispatcher = asyncio.create_task(self._dispatch(), name="batches")

    async def score(self, rows: Rows, parameters: dict[str, Any], deadline: float | None) -> Outcome:
        """As `Workers.score`."""
        if not self._target_s and not self._line and self._workers.has_free_slot:
            outcome = await self._workers.score(rows, parameters, deadline)
            self._cost.learn(len(rows), outcome.predict_s)
            return outcome
        if self._is_full():
            raise overloaded()
        entry = _Entry(rows, parameters, deadline)
        self._learn_gap(entry.arrived)
        self._line.append(entry)
        self._came.set()
        alarm = (
            None if deadline is None else asyncio.get_running_loop().call_at(deadline, entry.pass_deadline)
        )
        try:
            predictions, predict_s, shared = await entry.done
        finally:
            if alarm is not None:
                alarm.cancel()
            if entry.began is None:
                self._remove(entry)
        return Outcome(predictions, (entry.began or entry.arrived) - entry.arrived, predict_s, shared)

    async def stop(self) -> None:
        self._dispatcher.cancel()
        for task in self._running:
            task.cancel()
        await asyncio.gather(self._dispatcher, *self._running, return_exceptions=True)

    def _is_full(self) -> bool:
        """Whether a request more would wait too long: what waits takes longer than `_WAIT_S`, or the oldest has waited as long."""
        line, limit = self._line, self._workers.waiting_limit
        waiting = len(line) + self._apart
        if waiting < limit:
            return False
        if waiting >= limit * _MOST_WAITING or not self._cost.is_known:
            return True
        expected_s = self._cost.of(sum(len(entry.rows) for entry in line)) / self._workers.concurrency
        oldest_s = time.monotonic() - line[0].arrived if line else 0.0
        return max(expected_s, oldest_s) >= _WAIT_S

    def _remove(self, entry: _Entry) -> None:
        """Give the place of a request that waits no more to another."""
        with contextlib.suppress(ValueError):  # it was not taken, but may have been passed over
            self._line.remove(entry)

    def _learn_gap(self, now: float) -> None:
        gap = now - self._last_came
        self._last_came = now
        self._gap_s = gap if self._gap_s == math.inf else 0.9 * self._gap_s + 0.1 * gap

    async def _dispatch(self) -> None:
        while True:
            await self._came.wait()
            slot = await self._workers.take()
            try:
                if self._target_s:
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
        """The oldest, and those behind it that join its call."""
        waiting = [entry for entry in self._line if not entry.is_left]
        call = _Call(self._cost, self._target_s * _SAFETY, len(waiting))
        self._line = kept = deque(entry for entry in waiting if not call.add(entry))
        if kept:
            self._came.set()
        else:
            self._came.clear()
        now = time.monotonic()
        for entry in call.entries:
            entry.began = now
        return call.entries

    async def _run(self, slot: Slot, batch: list[_Entry]) -> None:
        if not await self._predict(slot, batch):
            self._apart += len(batch)
            try:
                await self._run_apart(batch)
            finally:
                self._apart -= len(batch)

    async def _predict(self, slot: Slot, batch: list[_Entry]) -> bool:
        """Predict the rows of all in one call. False where it failed, and nobody has an answer yet."""
        try:
            rows = joined([entry.rows for entry in batch])
        except Exception as error:  # noqa: BLE001  (no memory, for example)
            self._workers.give_back(slot)
            _fail_all(batch, error)
            return True
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
            _fail_all(batch, error)
            return True
        if isinstance(came, Failed):
            return False
        took = time.monotonic() - began
        self._cost.learn(len(rows), took)
        at = 0
        for entry in batch:
            _finish(entry, came[at : at + len(entry.rows)], took, len(batch))
            at += len(entry.rows)
        return True

    async def _run_apart(self, batch: list[_Entry]) -> None:
        """Somebody's rows made it fail: only they get the error, and what is wrong with them.

        Halves are predicted, and halves of those that fail: one bad request among n costs about 2 log2(n) calls, not n.
        """
        if len(batch) == 1:
            await self._run_alone(batch[0])
            return
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            live = [entry for entry in half if not entry.done.done()]
            if live and not await self._predict(await self._workers.take(), live):
                await self._run_apart(live)

    async def _run_alone(self, entry: _Entry) -> None:
        if entry.done.done():
            return
        try:
            outcome = await self._workers.score_waiting(entry.rows, entry.parameters, entry.deadline)
        except Exception as error:  # noqa: BLE001
            fail(entry.done, error)
        else:
            _finish(entry, outcome.predictions, outcome.predict_s)


def _finish(entry: _Entry, predictions: list[Any], took: float, shared: int = 1) -> None:
    if not entry.done.done():
        entry.done.set_result((predictions, took, shared))


def _fail_all(batch: list[_Entry], error: Exception) -> None:
    for entry in batch:
        fail(entry.done, error)
