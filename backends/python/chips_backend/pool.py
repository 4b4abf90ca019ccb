"""Where predictions run: off the event loop, each slot with a thread or a process of its own."""

import asyncio
import importlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Final, Protocol

from chips_backend.manifest import Manifest
from chips_backend.model import Rows


class Unloaded(RuntimeError):
    """A process that should have loaded the model could not."""


class Slot(Protocol):
    """Predicts one request at a time."""

    async def load(self) -> None:
        """Whatever `predict.load` raises comes out here."""

    def submit(self, rows: Rows, parameters: dict[str, Any]) -> asyncio.Future[list[Any]]: ...

    def mend(self) -> None:
        """Begin anew, after `submit` ended with one of `BROKEN`."""

    def stop(self) -> None: ...


BROKEN: Final = (BrokenProcessPool, Unloaded)


class ThreadSlot:
    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._what = (folder, manifest)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="predict")
        self.model: Any = None

    async def load(self) -> None:
        self.model = await asyncio.get_running_loop().run_in_executor(self._executor, _load, *self._what)

    def submit(self, rows: Rows, parameters: dict[str, Any]) -> asyncio.Future[list[Any]]:
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._executor, _predict, self.model, rows, parameters)

    def mend(self) -> None: ...

    def stop(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)


class ProcessSlot:
    """A process that ends under a prediction costs that one prediction; the next finds a new process."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._what = (folder, manifest)
        self._executor = _new_process()

    async def load(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._executor, _load_here, *self._what)

    def submit(self, rows: Rows, parameters: dict[str, Any]) -> asyncio.Future[list[Any]]:
        loop = asyncio.get_running_loop()
        try:
            return loop.run_in_executor(self._executor, _predict_here, rows, parameters)
        except BrokenProcessPool:  # it ended while idle
            self.mend()
            return loop.run_in_executor(self._executor, _predict_here, rows, parameters)

    def mend(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._executor = _new_process()
        self._executor.submit(_load_here, *self._what)

    def stop(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)


def _new_process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_process)


async def open_slots(concurrency: int, folder: Path, manifest: Manifest) -> Sequence[Slot]:
    """Load the model once for as many threads, or `concurrency` times in processes, as predict.py says."""
    predict = await asyncio.to_thread(importlib.import_module, "chips_backend.predict")
    if predict.RUNS_IN == "process":
        processes = [ProcessSlot(folder, manifest) for _ in range(concurrency)]
        await asyncio.gather(*(slot.load() for slot in processes))
        return processes
    threads = [ThreadSlot(folder, manifest) for _ in range(concurrency)]
    await threads[0].load()
    for slot in threads[1:]:
        slot.model = threads[0].model
    return threads


def _load(folder: Path, manifest: Manifest) -> Any:
    from chips_backend import predict

    return predict.load(folder, manifest)


def _predict(model: Any, rows: Rows, parameters: dict[str, Any]) -> list[Any]:
    from chips_backend import predict

    if not rows:
        return []
    predictions = _as_list(predict.predict(model, rows, parameters))
    if len(predictions) != len(rows):
        raise ValueError(f"predict() returned {len(predictions)} predictions for {len(rows)} rows")
    return predictions


def _as_list(predictions: Any) -> list[Any]:
    """An array, a Series, a DataFrame or a list of anything as a list of what JSON knows."""
    if isinstance(predictions, str | bytes | dict):
        raise TypeError(f"predict() returned a {type(predictions).__name__}, not one prediction for each row")
    if hasattr(predictions, "to_numpy"):
        predictions = predictions.to_numpy()
    if hasattr(predictions, "tolist"):
        return list(predictions.tolist())
    return [item.tolist() if hasattr(item, "tolist") else item for item in predictions]


# -- in a process of its own

_model: Any = None
_is_loaded = False


def _begin_process() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _load_here(folder: Path, manifest: Manifest) -> None:
    global _model, _is_loaded  # noqa: PLW0603  (a process has one model)
    _model = _load(folder, manifest)
    _is_loaded = True


def _predict_here(rows: Rows, parameters: dict[str, Any]) -> list[Any]:
    if not _is_loaded:
        raise Unloaded("this process could not load the model")
    return _predict(_model, rows, parameters)
