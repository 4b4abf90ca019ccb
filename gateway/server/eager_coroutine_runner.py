"""Run a request's coroutine eagerly, without an asyncio task unless it has to wait.

It runs in the socket callback. While the coroutine awaits an `InlineWakeupFuture`, it stays suspended without a task;
completing the future resumes it. The first time it awaits anything else (the registry, a place in a queue), it becomes a task
and stays one.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any, Final

from gateway.core.inline_wakeup_future import InlineWakeupFuture

_log = logging.getLogger(__name__)

_ENDED: Final = object()


class EagerCoroutineRunner:
    """Runs one coroutine at a time, eagerly.

    It calls `ended` when the coroutine has ended, by return, error or cancellation.
    """

    __slots__ = ("_completion", "_ended", "_loop", "_running", "_steps", "_task")

    def __init__(self, loop: asyncio.AbstractEventLoop, ended: Callable[[], None]) -> None:
        self._loop = loop
        self._ended = ended
        self._steps: Generator[Any, Any, None] | None = None  # of the coroutine
        self._completion: InlineWakeupFuture | None = None
        self._task: asyncio.Task[None] | None = None
        self._running = False

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._steps = coroutine.__await__()
        self._step()

    def cancel(self) -> None:
        """Cancel the coroutine. CancelledError is thrown into it where it waits."""
        if self._task is not None:
            self._task.cancel()
        elif self._running:
            self._loop.call_soon(self.cancel)  # it is what calls us
        elif self._completion is not None:
            self._completion.wake = None
            self._step(asyncio.CancelledError())

    def _step(self, error: BaseException | None = None) -> None:
        steps = self._steps
        assert steps is not None  # noqa: S101
        self._completion = None
        self._running = True
        try:
            # Not `send`, whose StopIteration costs every request as much as a hundred bytecodes.
            awaited = next(steps, _ENDED) if error is None else steps.throw(error)
        except (StopIteration, asyncio.CancelledError):
            pass
        except BaseException as bug:  # noqa: BLE001  (the pipeline lets nothing escape; whatever calls us must not fall)
            _log.error("a request ended with an error that nobody caught", exc_info=bug)
        else:
            if awaited.__class__ is InlineWakeupFuture:
                self._completion = awaited
                awaited.wake = self._step
                return
            if awaited is not _ENDED:
                self._task = self._loop.create_task(self._run_remainder(steps, awaited), name="request")
                return
        finally:
            self._running = False
        self._steps = None
        self._ended()

    async def _run_remainder(self, steps: Generator[Any, Any, None], awaited: Any) -> None:
        try:
            await _Remainder(steps, awaited, self._loop)
        except asyncio.CancelledError:
            pass
        except BaseException as bug:  # noqa: BLE001
            _log.error("a request ended with an error that nobody caught", exc_info=bug)
        finally:
            self._task = self._steps = None
            self._ended()


class _Remainder:
    """What is left of a coroutine that has been begun outside a task."""

    __slots__ = ("_awaited", "_loop", "_steps")

    def __init__(
        self, steps: Generator[Any, Any, None], awaited: Any, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._steps = steps
        self._awaited = awaited
        self._loop = loop

    def __await__(self) -> Generator[Any, None, None]:
        steps, awaited = self._steps, self._awaited
        while True:
            error: BaseException | None = None
            try:
                if awaited.__class__ is InlineWakeupFuture:
                    future = self._loop.create_future()
                    awaited.wake = partial(_wake, future)
                    yield from future
                else:
                    yield awaited
            except BaseException as thrown:  # noqa: BLE001  (cancellation above all: it belongs to the coroutine)
                error = thrown
            try:
                awaited = steps.send(None) if error is None else steps.throw(error)
            except StopIteration:
                return


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
