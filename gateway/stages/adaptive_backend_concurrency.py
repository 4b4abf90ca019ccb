"""Limits the requests in flight at each backend, by a window that its answers open and close.

The limit is what its instances can run at once; further requests wait in order of arrival. docs/adr on declared concurrency
says why it is this way. The window of a backend is how many of a model's requests may be there at once. It begins with the
concurrency that the backend declares, opens while answers come without a wait and others want in, and closes when the
backend refuses (429, or 503 with Retry-After). A refused request was not begun: it waits again, before all others.
"""

import asyncio
import contextlib
import math
import time
from collections import Counter, deque
from collections.abc import Callable
from types import TracebackType
from typing import Final
from urllib.parse import urlsplit

from gateway.core.errors import DeadlineExceeded
from gateway.core.exchange import Exchange
from gateway.core.header_classification import asks_for_websocket
from gateway.core.model import Backend
from gateway.core.per_process_random import random_between
from gateway.telemetry.metrics import parse_server_timing

_WINDOWS: Final = 16  # of one model: as many backends are remembered
_LARGEST: Final = 4096.0
_SLACK_S: Final = 0.002  # what the loops of two processes may add to an answer without any queue
_SATURATED: Final = 0.5  # the share of its own work that a request may wait at the backend
_OVERFULL: Final = 4.0  # times that: more are there than there is any use for
_HOLD_S: Final = 2.0  # after a refusal: how long the window does not open
_PAUSE_S: Final = 0.05  # where the backend names no time and takes nothing: the first one, then twice as long
_LONGEST_PAUSE_S: Final = 1.0
_TRY_S: Final = 0.5  # where backends scale: how often the window opens while somebody waits
_LEFT_S: Final = 0.05  # with less time than that, a refused request is not sent again


class _Waiter:
    __slots__ = ("arrived", "turn")

    def __init__(self, arrived: float, turn: "asyncio.Future[None]") -> None:
        self.arrived = arrived
        self.turn = turn


class ConcurrencyWindow:
    """The adaptive limit of concurrent requests to one backend.

    It is for one model, and knows the window's size, the requests in flight and the waiting queue.
    """

    __slots__ = (
        "_base_outside_s",
        "_held_until",
        "_scales",
        "_slow_start",
        "_timer",
        "closed",
        "closings",
        "declared",
        "in_flight",
        "share",
        "size",
        "waiting",
    )

    def __init__(self, declared: int, *, sharers: int, scales: bool) -> None:
        self.declared = declared
        self.share = max(1.0, declared / sharers)
        self.size = self.share * 2 if scales else self.share
        self.in_flight = 0
        self.closings = 0  # one after another, because nothing was taken
        self.waiting: deque[_Waiter] = deque()
        self._scales = scales
        self._slow_start = True
        self._held_until = 0.0
        self.closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._base_outside_s = math.inf  # the least that answers took beyond the backend's own work

    def enqueue(self, arrived: float, turn: "asyncio.Future[None]") -> _Waiter:
        """Add a request to the waiting queue.

        The order is that of arrival; a request that the backend has sent back keeps its place.
        """
        waiter, waiting = _Waiter(arrived, turn), self.waiting
        place = len(waiting)
        while place and waiting[place - 1].arrived > arrived:
            place -= 1
        waiting.insert(place, waiter)
        if self._scales and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_TRY_S, self._try)
        return waiter

    def release(self) -> None:
        self.in_flight -= 1
        if self.waiting:
            self.admit_waiting()

    def admit_waiting(self) -> None:
        waiting = self.waiting
        while waiting and self.in_flight < self.size and not self.closed:
            turn = waiting.popleft().turn
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)

    # -- learning

    def adjust_to_latency(self, exchange: Exchange, now: float) -> None:
        """Grow or shrink the window by how long a response took. Called while requests wait, or while the window is smaller than declared."""
        attempt = exchange.attempts[-1] if exchange.attempts else None
        if attempt is None or attempt.answered is None:
            return  # it failed, which says nothing about room
        work_s = _work_s(exchange.backend_server_timing)
        outside_s = max(0.0, attempt.answered - attempt.began - work_s)
        base_s = self._base_outside_s = min(self._base_outside_s, outside_s)
        allowed_s = max(_SLACK_S, _SATURATED * (work_s or base_s))
        waited_s = outside_s - base_s
        if self.size < self.share:
            self.size = min(self.share, self.size + 1)
        elif waited_s <= allowed_s:
            if now >= self._held_until:
                self.size = min(_LARGEST, self.size + (1 if self._slow_start else self.share / self.size))
        else:
            self._slow_start = False
            if waited_s > _OVERFULL * allowed_s:
                self.size = max(self.share, self.size - self.share / self.size)

    def shrink_to_in_flight(self, retry_after_s: float, now: float) -> None:
        """Shrink the window to the requests in flight, because the backend refused one more.

        With none in flight, close it for a while.
        """
        self._slow_start = False
        self._held_until = now + max(_HOLD_S, retry_after_s)
        self.size = min(self.size, float(self.in_flight))
        if self.size < 1:  # nobody of ours is there whose end would tell that there is room
            self.size = 1.0
            self.closed = True
            pause_s = max(retry_after_s, min(_LONGEST_PAUSE_S, _PAUSE_S * 2**self.closings))
            self.closings = min(self.closings + 1, 16)
            asyncio.get_running_loop().call_later(pause_s * random_between(0.75, 1.25), self._reopen)

    def _reopen(self) -> None:
        self.closed = False
        self.admit_waiting()

    def _try(self) -> None:
        """More instances start where requests are seen, so some are let through to be seen."""
        self._timer = None
        if not self.waiting:
            return
        if time.monotonic() >= self._held_until:
            self.size = min(_LARGEST, self.size + max(self.share, self.size / 2))
            self.admit_waiting()
        self._timer = asyncio.get_running_loop().call_later(_TRY_S, self._try)


class BackendSlot:
    """A request's slot at a backend. The request holds it while it is at the backend; leaving the `with` gives it back."""

    __slots__ = ("_exchange", "_window")

    def __init__(self, window: ConcurrencyWindow, exchange: Exchange) -> None:
        self._window = window
        self._exchange = exchange

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        window, exchange = self._window, self._exchange
        refused_s = exchange.refused_s
        if refused_s is not None:
            window.in_flight -= 1
            window.shrink_to_in_flight(refused_s, time.monotonic())
            window.admit_waiting()
            return
        window.closings = 0
        if kind is None and (window.waiting or window.size < window.share):
            window.adjust_to_latency(exchange, time.monotonic())
        window.release()


class _UnlimitedSlot:
    """The slot of a request that is not counted."""

    def __enter__(self) -> None: ...

    def __exit__(self, *exc: object) -> None: ...


ANYWHERE: Final = _UnlimitedSlot()


def is_autoscaled(backend: Backend, *, everywhere: bool) -> bool:
    """Whether more requests start more instances of the backend.

    They do on Cloud Run, or, with `everywhere`, at any address.
    """
    return everywhere or (urlsplit(backend.url).hostname or "").endswith(".run.app")


class AdaptiveBackendConcurrency:
    """Limits the concurrent requests to each backend, by a window that its answers open and close.

    A request gets one of its backend's slots, or waits for one. A backend that declares no concurrency has no such limit,
    only `ConcurrencyLimit`. `sharers`: gateway processes here that share the backends. `scales`: whether more instances of
    a backend start where more requests come. A WebSocket is not counted: it is no prediction, and may last for hours.
    """

    def __init__(self, *, sharers: int = 1, scales: Callable[[Backend], bool] = lambda _: False) -> None:
        self._sharers = sharers
        self._scales = scales
        self._models: dict[str, dict[str, ConcurrencyWindow]] = {}
        self._refusals = Counter[str]()

    def try_nowait(self, exchange: Exchange) -> "BackendSlot | _UnlimitedSlot | None":
        """Take a slot if one is free, without waiting. None: `await` the stage itself to wait for one."""
        backend = exchange.backend
        declared = backend.concurrency
        if declared is None:
            return ANYWHERE
        try:
            window = self._models[exchange.model.name][backend.url]
        except KeyError:
            window = self._open_window(exchange.model.name, backend, declared)
        if window.declared != declared:
            window = self._open_window(exchange.model.name, backend, declared)
        if asks_for_websocket(exchange.method, exchange.head.read):  # it may last for hours
            return ANYWHERE
        exchange.may_wait = True
        if window.in_flight < window.size and not window.waiting and not window.closed:
            window.in_flight += 1
            return BackendSlot(window, exchange)
        return None

    async def __call__(self, exchange: Exchange) -> BackendSlot:
        """Wait for a place, after `try_nowait` had none. Raises DeadlineExceeded."""
        window = self._models[exchange.model.name][exchange.backend.url]
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        began = time.monotonic()
        waiter = window.enqueue(exchange.arrived, turn)
        late = DeadlineExceeded("The time allowed ran out while the request waited for its turn.")
        alarm = loop.call_later(max(0.0, exchange.deadline - began), _give_up, turn, late)
        window.admit_waiting()
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                window.release()  # the turn came at the very moment the caller left
            else:
                turn.cancel()
                with contextlib.suppress(ValueError):
                    window.waiting.remove(waiter)
            raise
        finally:
            alarm.cancel()
            exchange.queued_s += time.monotonic() - began
        return BackendSlot(window, exchange)

    def should_retry_after_refusal(self, exchange: Exchange) -> bool:
        """Whether a request that the backend refused is sent again, to the same backend.

        It is where its deadline allows another wait for a slot; otherwise its caller gets the refusal. Counts the refusal,
        and clears `exchange.refused_s`.
        """
        self._refusals[exchange.model.name] += 1
        retry_after_s, exchange.refused_s = exchange.refused_s, None
        return exchange.deadline - time.monotonic() > max(_LEFT_S, retry_after_s or 0.0)

    def _open_window(self, model: str, backend: Backend, declared: int) -> ConcurrencyWindow:
        windows = self._models.setdefault(model, {})
        old = windows.get(backend.url)
        window = ConcurrencyWindow(declared, sharers=self._sharers, scales=self._scales(backend))
        if old is not None:  # those who are there, or wait, stay: the places are what changed
            old.declared, old.share, old.size = declared, window.share, window.size
            old.admit_waiting()
            return old
        if len(windows) >= _WINDOWS:  # backends come and go
            for url in [url for url, idle in windows.items() if not idle.in_flight and not idle.waiting]:
                del windows[url]
        windows[backend.url] = window
        return window

    # -- figures, by model

    def waiting_by_backend(self) -> dict[str, float]:
        return self._sum(lambda window: len(window.waiting))

    def window_sizes_by_backend(self) -> dict[str, float]:
        return self._sum(lambda window: math.floor(window.size))

    def refusals_by_backend(self) -> dict[str, float]:
        return {model: float(count) for model, count in self._refusals.items()}

    def _sum(self, figure: Callable[[ConcurrencyWindow], float]) -> dict[str, float]:
        return {
            model: float(sum(figure(window) for window in list(windows.values())))
            for model, windows in list(self._models.items())
        }


def _work_s(timing: bytes | None) -> float:
    """What the backend itself took for a request, without the wait for its turn there."""
    if timing is None:
        return 0.0
    return sum(phase.duration_s for phase in parse_server_timing(timing) if phase.name != "queue")


def _give_up(turn: "asyncio.Future[None]", error: DeadlineExceeded) -> None:
    if not turn.done():
        turn.set_exception(error)
