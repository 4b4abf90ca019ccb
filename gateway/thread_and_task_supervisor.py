"""Supervises background threads and tasks, and restarts those that fail.

A *helper* runs as long as the gateway does (the log, the
mirror of the registry, an exporter). An error that may pass is counted and followed by another try, with back-off; it is
logged once, and once more when it is over. A fatal one ends the process with its reason. A *job* is done once, and somebody
waits for its result; what nobody waits for is logged.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar
from weakref import WeakSet

_log = logging.getLogger(__name__)

_FIRST_DELAY_S: Final = 0.1
_LONGEST_DELAY_S: Final = 30.0
_STEP_S: Final = 0.05

Item = TypeVar("Item")
Result = TypeVar("Result")
OnFatal = Callable[[str, BaseException], None]  # the helper's name, and the reason


class UnrecoverableError(Exception):
    """An error that a retry cannot fix. The supervisor ends the process."""


_FATAL: Final = (UnrecoverableError, MemoryError)


def join_in_steps(thread: threading.Thread, timeout_s: float) -> None:
    """Wait up to `timeout_s` for a thread to end.

    The time is counted in short waits: where the whole process stood still meanwhile, the thread still gets its turns.
    """
    for _ in range(math.ceil(timeout_s / _STEP_S)):
        thread.join(_STEP_S)
        if not thread.is_alive():
            return


class HelperHealth:
    """The health of one background helper.

    A helper is a thread or a task. Its failures in a row and its restarts are counted. The helper calls `succeeded` after
    each round that went well, and `failed` after one that did not.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.restarts = 0  # tries after a failure, since the start
        self.failing = 0  # failures in a row, up to now

    def failed(self, error: BaseException, *, tell: bool = True) -> float:
        """Record a failure; return how many seconds to wait before the next try.

        The first failure in a row is logged. Raises `error` itself where it is fatal.
        """
        if isinstance(error, _FATAL):
            raise error
        self.failing += 1
        self.restarts += 1
        if self.failing == 1 and tell:
            _log.error("%s: it fails and is tried again: %s", self.name, describe_error(error))
        return min(_FIRST_DELAY_S * 2.0 ** min(self.failing - 1, 20), _LONGEST_DELAY_S)

    def succeeded(self) -> None:
        if self.failing:
            failures, self.failing = self.failing, 0
            _log.warning("%s: it works again after %d failures", self.name, failures)

    def each(self, items: Iterable[Item], work: Callable[[Item], None]) -> None:
        """Do `work` with each of `items`; an error with one does not stop the others. It is for timers."""
        failure: Exception | None = None
        for item in items:
            try:
                work(item)
            except MemoryError:  # raised from here, it would end the timer, and nobody would see that
                failure = RuntimeError("out of memory")
            except Exception as error:  # noqa: BLE001  (a timer that raises is never set again)
                failure = error
        if failure is None:
            self.succeeded()
        else:
            self.failed(failure)


class Supervisor:
    """Starts and supervises background threads and tasks.

    One that fails is started again, with back-off; one that cannot go on is given to `on_fatal`, which has to end the
    process. It is called from any thread, with the name of the helper and the reason. The supervisor cancels nothing.
    """

    def __init__(self) -> None:
        self.on_fatal: OnFatal = _tell_fatal
        self._helpers: dict[str, HelperHealth] = {}
        self._threads: WeakSet[threading.Thread] = WeakSet()
        self._tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._pools: list[str] = []

    def helper(self, name: str) -> HelperHealth:
        """The health of the helper `name`. It is the same record for the same name."""
        return self._helpers.setdefault(name, HelperHealth(name))

    def restart_counters(self) -> dict[str, dict[str, float]]:
        """Counters for the metrics: how often each helper was restarted. A restart follows a failure."""
        counts = {name: float(helper.restarts) for name, helper in list(self._helpers.items())}
        return {"chips_helper_restarts_total": counts}

    def create_retrying_thread(
        self, name: str, run: Callable[[HelperHealth], None], *, interrupt_backoff: threading.Event
    ) -> threading.Thread:
        """Make a thread that calls `run`, and calls it again after a failure until it returns.

        It is not started yet. `interrupt_backoff` cuts short the wait between two tries; it ends nothing.
        """
        helper = self.helper(name)
        thread = threading.Thread(target=self._keep_running, args=(helper, run, interrupt_backoff), name=name)
        thread.daemon = True  # one that is stuck outside must not hold up the end of the process
        self._threads.add(thread)
        return thread

    def start_retrying_task(
        self, name: str, run: Callable[[HelperHealth], Awaitable[None]]
    ) -> "asyncio.Task[None]":
        """Start a task that calls `run`, and calls it again after a failure until it returns. It can be cancelled."""
        return self._own(
            asyncio.get_running_loop().create_task(self._keep_on(self.helper(name), run), name=name)
        )

    def start_one_off_task(
        self,
        name: str,
        work: Coroutine[Any, Any, Result],
        *,
        expected: type[Exception] | tuple[type[Exception], ...] = (),
    ) -> "asyncio.Task[Result]":
        """Start a task that does `work` once, without a restart.

        Its error goes to those who await it; one that is not `expected` is also counted and logged.
        """
        helper = self.helper(name)

        def take_note(done: "asyncio.Task[Result]") -> None:
            error = None if done.cancelled() else done.exception()
            if isinstance(error, UnrecoverableError):
                self.on_fatal(name, error)
            elif isinstance(error, MemoryError):  # one caller's job is no reason to end all others
                helper.failed(RuntimeError("out of memory"))
            elif error is not None and not isinstance(error, expected):
                helper.failed(error)
            elif error is None and not done.cancelled():
                helper.succeeded()

        job = self._own(asyncio.get_running_loop().create_task(work, name=name))
        job.add_done_callback(take_note)
        return job

    def make_blocking_call_executor(self, name: str, *, threads: int) -> ThreadPoolExecutor:
        """Make an executor, a pool of threads, for calls that block.

        An error in a call goes to its caller and does not end the thread. Its threads are owned, and neither restarted nor
        watched.
        """
        self._pools.append(f"{name}_")
        return ThreadPoolExecutor(max_workers=threads, thread_name_prefix=name)

    def owns(self, one: "threading.Thread | asyncio.Task[Any]") -> bool:
        """Whether the thread or task was started by this supervisor."""
        if isinstance(one, threading.Thread):
            return one in self._threads or any(one.name.startswith(pool) for pool in self._pools)
        return one in self._tasks

    def _own(self, task: "asyncio.Task[Result]") -> "asyncio.Task[Result]":
        self._tasks.add(task)
        return task

    def _keep_running(
        self, helper: HelperHealth, run: Callable[[HelperHealth], None], interrupt_backoff: threading.Event
    ) -> None:
        while True:
            began = time.monotonic()
            try:
                run(helper)
            except _FATAL as error:
                self.on_fatal(helper.name, error)
            except Exception as error:  # noqa: BLE001  (whatever it is, this one has to go on)
                self._give_credit(helper, began)
                interrupt_backoff.wait(helper.failed(error))
                continue
            except BaseException as error:  # noqa: BLE001  (SystemExit and the like would end this thread alone)
                self.on_fatal(helper.name, error)
            return

    async def _keep_on(self, helper: HelperHealth, run: Callable[[HelperHealth], Awaitable[None]]) -> None:
        while True:
            began = time.monotonic()
            try:
                await run(helper)
            except _FATAL as error:
                self.on_fatal(helper.name, error)
            except Exception as error:  # noqa: BLE001
                self._give_credit(helper, began)
                await asyncio.sleep(helper.failed(error))
                continue
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # Nobody cancelled this task: a library ended what it waited for (grpc.aio says it so of a closed channel).
                self._give_credit(helper, began)
                await asyncio.sleep(helper.failed(error))
                continue
            return

    def _give_credit(self, helper: HelperHealth, began: float) -> None:
        """One that ran for long before it failed did not fail in a row."""
        if time.monotonic() - began > _LONGEST_DELAY_S:
            helper.succeeded()


def describe_error(error: BaseException) -> str:
    """Describe an error in one line. The line has its type, and at most 300 characters of what it says."""
    text = str(error)[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _tell_fatal(name: str, error: BaseException) -> None:
    _log.critical("%s: it has ended for good: %s", name, describe_error(error))
