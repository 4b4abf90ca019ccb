"""The pool of threads or processes in which predictions run, off the event loop.

Nothing that model code raises crosses a future: a StopIteration in one is never delivered, and a SystemExit ends the event
loop. What a prediction comes to is a value, `Failed` where it failed.
"""

import asyncio
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Hashable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from chips_backend import forkserver
from chips_backend.manifest import Manifest
from chips_backend.model import Facts, Model, Refused, Rows, facts_of
from chips_backend.predict_module import predict_module
from chips_backend.prediction_thread import PredictionThread


class Failed(NamedTuple):
    """A prediction that failed: what was raised, as text, because an exception may not survive the way between processes."""

    kind: str  # the exception's type
    text: str
    stack: str
    refused: tuple[int | None, int | None] | None = None  # `Refused`: its row and field
    may_be_the_caller: bool = False  # an error as an input may cause it


Outcome = list[Any] | Failed


class Unloaded(RuntimeError):
    """A process that should have loaded the model has not."""


class LoadFailed(RuntimeError):
    """The model could not be loaded; `cause` says why."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(f"{failed.kind}: {failed.text}")
        self.failed = failed


class Slot(Protocol):
    """Predicts one request at a time."""

    async def load(self) -> Facts:
        """Raises LoadFailed."""

    def submit(self, rows: Rows, parameters: dict[str, Any]) -> asyncio.Future[Outcome]: ...

    def end_running(self) -> bool:
        """End what runs here, whatever it does; False where that cannot be done."""

    def restart(self) -> None:
        """Start afresh, after `submit` ended with one of `BROKEN`."""

    def stop(self) -> None: ...


BROKEN: Final = (BrokenProcessPool, Unloaded)


class ThreadSlot:
    """A slot whose predictions run in a thread of this process."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._what = (folder, manifest)
        self._outputs = tuple(tensor.name for tensor in manifest.signature.outputs)
        self._thread = PredictionThread()
        self.model: Any = None

    async def load(self) -> Facts:
        loaded = await self._thread.submit(load_safely, *self._what)
        if isinstance(loaded, Failed):
            raise LoadFailed(loaded)
        self.model, facts = loaded
        return facts

    def submit(self, rows: Rows, parameters: dict[str, Any]) -> asyncio.Future[Outcome]:
        return self._thread.submit(predict_safely, self.model, rows, parameters, self._outputs)

    def end_running(self) -> bool:
        return False

    def restart(self) -> None: ...

    def stop(self) -> None:
        self._thread.stop()


class ProcessSlot:
    """A slot with a process of its own.

    If the process ends during a prediction, only that prediction is lost; the next one gets a new process.
    """

    def __init__(self, folder: Path, manifest: Manifest, context: BaseContext) -> None:
        self._what = (folder, manifest)
        self._context = context
        self._executor = self._new_process()

    def _new_process(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, mp_context=self._context, initializer=_begin_process)

    async def load(self) -> Facts:
        try:
            # The first process comes when the fork server has loaded the model, and who asks for it waits.
            asked = await asyncio.to_thread(lambda: self._executor.submit(_load_here, *self._what))
            facts = await asyncio.wrap_future(asked)
        except (BrokenProcessPool, EOFError, ConnectionError):
            raise LoadFailed(
                Failed("ProcessEnded", "the process ended while it loaded the model", "")
            ) from None
        if isinstance(facts, Failed):
            raise LoadFailed(facts)
        return facts

    def submit(self, rows: Rows, parameters: dict[str, Any]) -> asyncio.Future[Outcome]:
        loop = asyncio.get_running_loop()
        try:
            return loop.run_in_executor(self._executor, _predict_here, rows, parameters)
        except BrokenProcessPool:  # it ended while idle
            self.restart()
            return loop.run_in_executor(self._executor, _predict_here, rows, parameters)

    def end_running(self) -> bool:
        for process in list((self._executor._processes or {}).values()):
            process.kill()
        return True

    def restart(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._executor = self._new_process()
        self._executor.submit(_load_here, *self._what)

    def stop(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)


async def open_slots(concurrency: int, folder: Path, manifest: Manifest) -> tuple[Sequence[Slot], Facts]:
    """Load the model once, for as many threads or for processes that share its memory, as predict.py says. Raises LoadFailed."""
    try:
        predict = await asyncio.to_thread(predict_module)
    except BaseException as error:  # noqa: BLE001  (a person edits that file)
        raise LoadFailed(_failed(error)) from None
    if predict.RUNS_IN == "process":
        context = await asyncio.to_thread(forkserver.prepare, folder, manifest, concurrency)
        processes = [ProcessSlot(folder, manifest, context) for _ in range(concurrency)]
        facts = await asyncio.gather(*(slot.load() for slot in processes))
        return processes, facts[0]
    threads = [ThreadSlot(folder, manifest) for _ in range(concurrency)]
    known = await threads[0].load()
    for slot in threads[1:]:
        slot.model = threads[0].model
    return threads, known


def load_safely(folder: Path, manifest: Manifest) -> tuple[Any, Facts] | Failed:
    """What `predict.load` gives, and the facts of it, with whatever it raises as a value."""
    try:
        predict = predict_module()
        model = predict.load(folder, manifest)
        return model, facts_of(model, manifest.signature, getattr(predict, "PARAMETERS", {}))
    except BaseException as error:  # noqa: BLE001  (sys.exit in a model's module, too)
        return _failed(error)


def predict_safely(
    model: Any, rows: Rows, parameters: dict[str, Any], outputs: Sequence[str] = ()
) -> Outcome:
    """`predict.predict` with whatever it raises as a value."""
    try:
        return _predict(model, rows, parameters, outputs)
    except BaseException as error:  # noqa: BLE001
        return _failed(error)


# An input may cause any error but these: they say that the code, or the machine, is not as it should be.
_NEVER_THE_CALLER: Final = (
    StopIteration,
    StopAsyncIteration,
    MemoryError,
    ImportError,
    NameError,
    NotImplementedError,
)


def _failed(error: BaseException) -> Failed:
    try:
        text = str(error)
        stack = "".join(traceback.format_exception(error))
    except BaseException:  # noqa: BLE001  (its __str__ is the model's code, too)
        text, stack = "", "".join(traceback.format_tb(error.__traceback__))
    is_error = isinstance(error, Exception) and not isinstance(error, (*_NEVER_THE_CALLER, _wrong_answer()))
    refused = (error.row, error.field) if isinstance(error, Refused) else None
    return Failed(type(error).__name__, text, stack, refused, is_error)


def _wrong_answer() -> type[Exception]:
    from chips_backend.predictions_as_json import WrongAnswer

    return WrongAnswer


def _predict(model: Any, rows: Rows, parameters: dict[str, Any], outputs: Sequence[str]) -> list[Any]:
    from chips_backend.input_tables import Apart
    from chips_backend.predictions_as_json import as_predictions

    predict = predict_module()
    if not rows:
        return []
    apart = model.apart if isinstance(model, Model) else None
    if apart is not None and len(rows) > 1 and not (isinstance(apart, Apart) and apart.needs_none(rows)):
        groups: dict[Hashable, list[int]] = {}
        for at, row in enumerate(rows):
            groups.setdefault(apart(row), []).append(at)
        if len(groups) > 1:
            predictions: list[Any] = [None] * len(rows)
            for places in groups.values():
                some = [rows[at] for at in places]
                for at, value in zip(
                    places,
                    as_predictions(predict.predict(model, some, parameters), len(some), outputs),
                    strict=True,
                ):
                    predictions[at] = value
            return predictions
    count = len(rows)
    return as_predictions(predict.predict(model, rows, parameters), count, outputs)


# -- in a process of its own

_model: Any = None
_outputs: tuple[str, ...] = ()
_is_loaded = False


def _begin_process() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _load_here(folder: Path, manifest: Manifest) -> Facts | Failed:
    global _model, _outputs, _is_loaded  # noqa: PLW0603  (a process has one model)
    loaded = forkserver.found(folder, manifest) or load_safely(folder, manifest)
    if isinstance(loaded, Failed):
        return loaded
    _model, facts = loaded
    _outputs = tuple(tensor.name for tensor in manifest.signature.outputs)
    _is_loaded = True
    return facts


def _predict_here(rows: Rows, parameters: dict[str, Any]) -> Outcome:
    if not _is_loaded:
        raise Unloaded("this process could not load the model")
    return predict_safely(_model, rows, parameters, _outputs)
