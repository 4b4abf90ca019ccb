"""Run a coroutine at once, where it is called, and go on with it when what it waits for is done: without a task.

A task costs two turns of the event loop, and most requests wait once. What a coroutine does here must not ask for the current task,
as `asyncio.timeout` does; futures are all that it waits for.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")


class EagerRunner(Generic[_T]):
    """Runs one coroutine at a time. `ended` is called with what it returns; with None where it was cancelled, or raised."""

    __slots__ = ("_awaited", "_coroutine", "_ended", "_is_cancelled", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, ended: Callable[[_T | None], None]) -> None:
        self._loop = loop
        self._ended = ended
        self._coroutine: Coroutine[Any, Any, _T] | None = None
        self._awaited: asyncio.Future[Any] | None = None
        self._is_cancelled = False

    def start(self, coroutine: Coroutine[Any, Any, _T]) -> None:
        self._coroutine = coroutine
        self._step()

    def cancel(self) -> None:
        """Raise CancelledError in the coroutine where it waits, in one of the next turns of the loop."""
        if self._coroutine is not None and (self._awaited is None or not self._awaited.cancel()):
            self._is_cancelled = True

    def _step(self, _: object = None) -> None:
        coroutine = self._coroutine
        assert coroutine is not None  # noqa: S101
        self._awaited = None
        try:
            if self._is_cancelled:
                self._is_cancelled = False
                awaited = coroutine.throw(asyncio.CancelledError())
            else:
                awaited = coroutine.send(None)
        except StopIteration as stop:
            self._coroutine = None
            self._ended(stop.value)
        except BaseException as error:
            self._coroutine = None
            self._ended(None)
            if not isinstance(error, asyncio.CancelledError):
                raise  # to whatever calls callbacks, which reports it
        else:
            if awaited is None:  # asyncio.sleep(0)
                self._loop.call_soon(self._step)
            else:
                self._awaited = awaited
                awaited.add_done_callback(self._step)
