"""Where predictions run: off the event loop, as many at once as was declared, the rest waiting in a short line."""

import asyncio
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

from chips_backend import predict
from chips_backend.manifest import Manifest
from chips_backend.problem import Problem

_WAITING_PER_SLOT = 16

_model: Any = None  # in a worker process: the model it has loaded


class Outcome(NamedTuple):
    predictions: list[Any]
    queue_s: float
    predict_s: float


class Workers:
    """`concurrency` predictions at once, in threads or processes as predict.py says; a bounded line behind them."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._slots = asyncio.Semaphore(concurrency)
        self._waiting_limit = concurrency * _WAITING_PER_SLOT
        self._waiting = 0
        self._make: Any = None
        self._executor: Executor | None = None
        self._score: Any = None

    async def start(self, folder: Path, manifest: Manifest) -> None:
        """Load the model. Whatever `predict.load` raises comes out here."""
        loop = asyncio.get_running_loop()
        if predict.RUNS_IN == "process":
            self._make = lambda: ProcessPoolExecutor(
                self._concurrency,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_load_in_process,
                initargs=(folder, manifest),
            )
            self._score = _score_in_process
            self._executor = self._make()
            await loop.run_in_executor(self._executor, _is_loaded)
        else:
            self._make = lambda: ThreadPoolExecutor(self._concurrency, thread_name_prefix="predict")
            self._executor = self._make()
            model = await loop.run_in_executor(self._executor, predict.load, folder, manifest)
            self._score = _Scorer(model)

    async def score(self, rows: Sequence[Any], parameters: dict[str, Any], deadline: float | None) -> Outcome:
        """Predict `rows`. `deadline` is in seconds of the loop's clock. Raises Problem; a model's own error as it is."""
        began = time.monotonic()
        await self._take_slot(deadline)
        try:
            queued_until = time.monotonic()
            predictions = await self._run(rows, parameters)
            return Outcome(predictions, queued_until - began, time.monotonic() - queued_until)
        finally:
            self._slots.release()

    async def _take_slot(self, deadline: float | None) -> None:
        if self._slots.locked() and self._waiting >= self._waiting_limit:
            raise Problem(
                503,
                "overloaded",
                "all prediction slots are busy and the queue is full",
                headers={"Retry-After": "1"},
            )
        self._waiting += 1
        try:
            async with asyncio.timeout_at(deadline):
                await self._slots.acquire()
        except TimeoutError:
            raise Problem(
                504, "deadline-exceeded", "the time allowed was over before a slot was free"
            ) from None
        finally:
            self._waiting -= 1

    async def _run(self, rows: Sequence[Any], parameters: dict[str, Any]) -> list[Any]:
        executor = self._executor
        try:
            predictions = await asyncio.get_running_loop().run_in_executor(
                executor, self._score, rows, parameters
            )
        except BrokenProcessPool:
            if self._executor is executor:  # the first who sees it mends it
                self._executor = self._make()
            raise
        if hasattr(predictions, "tolist"):
            predictions = predictions.tolist()
        if len(predictions) != len(rows):
            raise ValueError(f"predict() returned {len(predictions)} predictions for {len(rows)} rows")
        return list(predictions)

    async def stop(self) -> None:
        if self._executor is not None:
            await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)


class _Scorer:
    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, rows: Sequence[Any], parameters: dict[str, Any]) -> Any:
        return predict.predict(self._model, rows, parameters) if rows else []


def _load_in_process(folder: Path, manifest: Manifest) -> None:
    global _model  # noqa: PLW0603  (a worker process has one model)
    _model = predict.load(folder, manifest)


def _is_loaded() -> bool:
    return _model is not None


def _score_in_process(rows: Sequence[Any], parameters: dict[str, Any]) -> Any:
    predictions = predict.predict(_model, rows, parameters) if rows else []
    return predictions.tolist() if hasattr(predictions, "tolist") else predictions
