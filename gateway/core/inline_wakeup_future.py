"""A future whose `complete` resumes the waiting coroutine at once.

It is for one event. It takes no task, and no round of the event loop.
"""

from collections.abc import Callable, Generator
from typing import Any, Final, cast


class InlineWakeupFuture:
    """A future whose waiter continues inside `complete` itself.

    It is for one waiter, who does not go on in a later turn of the event loop. The code that finishes the work calls
    `complete`, with an error if it failed. Only a coroutine that `gateway.server.eager_coroutine_runner` runs can await
    one.
    """

    __slots__ = ("_done", "_error", "wake")

    def __init__(self) -> None:
        self._done = False
        self._error: BaseException | None = None
        self.wake: Callable[[], None] | None = None

    def complete(self, error: BaseException | None = None) -> None:
        """End the wait. The first call counts; the waiting coroutine continues before this returns."""
        if self._done:
            return
        self._done = True
        self._error = error
        wake = self.wake
        if wake is not None:
            self.wake = None
            wake()

    def __await__(self) -> Generator["InlineWakeupFuture | None", None, None]:
        if not self._done:
            yield self
        error = self._error
        if error is not None:
            self._error = None
            try:
                raise error
            finally:
                del error  # its traceback leads to this frame, which would keep both from being freed


class _Completed:
    """What a function returns that callers await and that has nothing to wait for: a coroutine costs three times as much."""

    _nothing = cast("Generator[Any, None, None]", iter(()))

    def __await__(self) -> Generator[Any, None, None]:
        return self._nothing


COMPLETED: Final = _Completed()


class _Yield:
    def __await__(self) -> Generator[None, None, None]:
        yield


def continue_in_own_task() -> _Yield:
    """Make the rest of the request run in a task of its own.

    Await this before code that needs one. `asyncio.timeout` is such code. On the fast path a request is carried by
    callbacks until it first waits for something other than its backend.
    """
    return _Yield()
