"""As many predictions at once as were declared, and a short line of requests behind them."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from chips_backend.manifest import Manifest
from chips_backend.model import Rows
from chips_backend.pool import BROKEN, Slot, open_slots
from chips_backend.problem import Problem

WAITING_PER_SLOT = 16


class Outcome(NamedTuple):
    predictions: list[Any]
    queue_s: float
    predict_s: float


def overloaded() -> Problem:
    return Problem(
        503, "overloaded", "all prediction slots are busy and the queue is full", headers={"Retry-After": "1"}
    )


def too_late() -> Problem:
    return Problem(504, "deadline-exceeded", "the time allowed was over before the prediction could begin")


class Workers:
    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.waiting_limit = concurrency * WAITING_PER_SLOT
        self._free: deque[Slot] = deque()
        self._permits = asyncio.Semaphore(concurrency)
        self._slots: Sequence[Slot] = ()
        self._waiting = 0

    async def start(self, folder: Path, manifest: Manifest) -> None:
        """Load the model. Whatever `predict.load` raises comes out here."""
        self._slots = await open_slots(self.concurrency, folder, manifest)
        self._free.extend(self._slots)

    async def score(self, rows: Rows, parameters: dict[str, Any], deadline: float | None) -> Outcome:
        """Predict `rows`. `deadline` is in seconds of the loop's clock. Raises Problem; a model's own error as it is."""
        began = time.monotonic()
        if self._permits.locked() and self._waiting >= self.waiting_limit:
            raise overloaded()
        self._waiting += 1
        try:
            async with asyncio.timeout_at(deadline):
                slot = await self.take()
        except TimeoutError:
            raise too_late() from None
        finally:
            self._waiting -= 1
        queued_until = time.monotonic()
        predictions = await self.predict(slot, rows, parameters)
        return Outcome(predictions, queued_until - began, time.monotonic() - queued_until)

    async def take(self) -> Slot:
        """Wait for a slot; who takes one gives it to `predict` or gives it back."""
        await self._permits.acquire()
        return self._free.pop()

    def give_back(self, slot: Slot, *, last: bool = False) -> None:
        if last:
            self._free.appendleft(slot)
        else:
            self._free.append(slot)  # the one used last has the warmest caches
        self._permits.release()

    async def predict(self, slot: Slot, rows: Rows, parameters: dict[str, Any]) -> list[Any]:
        """Predict in `slot`, which is free again when the work has truly ended, even where the caller leaves before."""
        try:
            running = slot.submit(rows, parameters)
        except BaseException:
            self.give_back(slot)
            raise
        running.add_done_callback(lambda done: self._finished(slot, done))
        return await asyncio.shield(running)

    def _finished(self, slot: Slot, done: asyncio.Future[list[Any]]) -> None:
        broke = not done.cancelled() and isinstance(done.exception(), BROKEN)
        if broke:
            slot.mend()
        self.give_back(slot, last=broke)

    async def stop(self, grace_s: float) -> None:
        """Let what runs finish, but no longer than that."""
        stopping = [asyncio.to_thread(slot.stop) for slot in self._slots]
        try:
            async with asyncio.timeout(grace_s):
                await asyncio.gather(*stopping)
        except TimeoutError:
            return
