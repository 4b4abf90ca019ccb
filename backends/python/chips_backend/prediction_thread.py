"""A thread that runs one function after the other for an event loop.

`ThreadPoolExecutor` does it with two futures, two locks and a semaphore for each call.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, NamedTuple, TypeVar

_T = TypeVar("_T")


class _Call(NamedTuple):
    future: asyncio.Future[Any]
    function: Callable[..., Any]
    positional: tuple[Any, ...]


class PredictionThread:
    """Runs what is submitted, in this order. It starts with the first call, and ends when nothing refers to this object any more."""

    def __init__(self) -> None:
        self._calls: Final[SimpleQueue[_Call | None]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, function: Callable[..., _T], *positional: Any) -> "asyncio.Future[_T]":
        """Call it in the thread; the future has what it returns, or a RuntimeError that says what it raised."""
        future = asyncio.get_running_loop().create_future()
        if self._thread is None:
            thread = threading.Thread(target=_run, args=(self._calls,), name="predict", daemon=True)
            thread.start()  # raises RuntimeError where the system gives none
            self._thread = thread
        self._calls.put(_Call(future, function, positional))
        return future

    def stop(self) -> None:
        """Wait until what was submitted has run, and end the thread."""
        if self._thread is not None:
            self._calls.put(None)
            self._thread.join()

    def __del__(self) -> None:
        self._calls.put(None)


def _run(calls: "SimpleQueue[_Call | None]") -> None:
    while (call := calls.get()) is not None:
        result: Any = None
        error: Exception | None = None
        try:
            result = call.function(*call.positional)
        except BaseException as raised:  # noqa: BLE001  (the thread must not end)
            # Not every exception may cross a future.
            error = RuntimeError(f"{type(raised).__name__}: {raised}")
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            call.future.get_loop().call_soon_threadsafe(_settle, call.future, result, error)
        del call, result, error


def _settle(future: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
