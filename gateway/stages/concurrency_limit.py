"""Limit the requests in flight in the gateway, at each model and of each caller.

At a full model they wait in its bounded queue. Others are refused: 503, or 429 for a caller's own limit.
"""

import asyncio
import contextlib
import time
from collections import deque
from types import TracebackType

import msgspec

from gateway.core.errors import DeadlineExceeded, GatewayError, Overloaded, TooManyRequests
from gateway.core.exchange import Exchange


class _ModelQueue:
    """Permits for one model. Waiting requests are served in the order they came."""

    __slots__ = ("in_flight", "permit", "waiting")

    def __init__(self, limit: "ConcurrencyLimit") -> None:
        self.permit = Permit(limit, self, None)  # of all callers whose own requests in flight have no limit
        self.in_flight = 0
        self.waiting: deque[asyncio.Future[None]] = deque()


class Permit(msgspec.Struct, frozen=True, eq=False):
    """A permit that is held while a request is at a backend. Leaving the `with` block gives it back."""

    _limit: "ConcurrencyLimit"
    _queue_of_model: _ModelQueue
    _held_for: str | None  # the caller whose requests in flight are counted

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Give the permit back. Call it exactly once. Leaving the `with` block does the same, at more cost."""
        self._limit.release(self._queue_of_model)
        if self._held_for is not None:
            self._limit.release_caller(self._held_for)


class ConcurrencyLimit:
    """Limit requests in flight, in the gateway and at each model.

    The gateway has `in_flight`; a model whose policy has no limit of its own has `model_in_flight`.

    When a model is full, up to `queue_per_model` requests wait for it, `queue_wait_s` seconds at most. All counts are this
    process's own. With `report_only_policy_limits`, the limits of keys and of models' policies only count who exceeds them;
    the gateway's own limits always hold, because they protect the gateway and its backends.
    """

    def __init__(
        self,
        *,
        in_flight: int,
        model_in_flight: int,
        queue_per_model: int,
        queue_wait_s: float,
        report_only_policy_limits: bool = False,
    ) -> None:
        self._in_flight_limit = in_flight
        self._model_limit = model_in_flight
        self._queue_limit = queue_per_model
        self._queue_wait_s = queue_wait_s
        self._queues: dict[str, _ModelQueue] = {}
        self._held: dict[str, int] = {}  # in flight, of callers that have such a limit
        self._report_only_policy_limits = report_only_policy_limits
        self.in_flight = 0
        self.refused = (
            0  # for what a key allows, since the start; including those that report-only mode let pass
        )

    def try_nowait(self, exchange: Exchange) -> Permit | None:
        """Take a permit without waiting; None where none is free. `await` the stage itself to wait for one."""
        model = exchange.model
        if self.in_flight >= self._in_flight_limit:
            raise Overloaded("The gateway is handling as many requests as it can. Try again in a moment.")
        queue = self._queues.get(model.name)
        if queue is None:
            queue = self._queues[model.name] = _ModelQueue(self)
        allowed = exchange.principal.quota.max_in_flight
        held_for = None if allowed is None else self._hold(exchange, allowed)
        limit = model.policy.max_in_flight or self._model_limit
        if queue.in_flight < limit and not queue.waiting:
            queue.in_flight += 1
            self.in_flight += 1
            return queue.permit if held_for is None else Permit(self, queue, held_for)
        if self._report_only_policy_limits and queue.in_flight < self._model_limit and not queue.waiting:
            exchange.report_only_refusals += (Overloaded.code,)
            queue.in_flight += 1
            self.in_flight += 1
            return Permit(self, queue, held_for)
        return None

    async def __call__(self, exchange: Exchange) -> Permit:
        """Wait for a permit, after `try_nowait` had none."""
        name, principal = exchange.model.name, exchange.principal
        queue = self._queues[name]
        held_for = None if principal.quota.max_in_flight is None else principal.id
        try:
            await self._queue(exchange, queue, name)
        except BaseException:
            if held_for is not None:
                self.release_caller(held_for)
            raise
        return Permit(self, queue, held_for)

    def _hold(self, exchange: Exchange, allowed: int) -> str:
        caller = exchange.principal.id
        held = self._held.get(caller, 0)
        if held >= allowed:
            self.refused += 1
            if not self._report_only_policy_limits:
                raise TooManyRequests(f"You have reached your limit of requests in flight ({held}).")
            exchange.report_only_refusals += (TooManyRequests.code,)
        self._held[caller] = held + 1
        return caller

    def release_caller(self, caller: str) -> None:
        held = self._held[caller] - 1
        if held:
            self._held[caller] = held
        else:
            del self._held[caller]

    async def _queue(self, exchange: Exchange, queue: _ModelQueue, model: str) -> None:
        if len(queue.waiting) >= self._queue_limit:
            raise Overloaded(f'The model "{model}" is busy and its queue is full. Try again in a moment.')
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        queue.waiting.append(turn)
        # A waiting request counts as under way: it holds memory and a connection.
        self.in_flight += 1
        began = time.monotonic()
        left_s = exchange.deadline - began
        too_late: GatewayError
        if left_s < self._queue_wait_s:
            too_late = DeadlineExceeded("The time allowed ran out while the request waited for its turn.")
        else:
            too_late = Overloaded(f'The model "{model}" is busy. Try again in a moment.')
        alarm = loop.call_later(min(self._queue_wait_s, left_s), _give_up, turn, too_late)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.release(queue)  # the turn came at the very moment the caller left
            else:
                turn.cancel()
                self.in_flight -= 1
                with contextlib.suppress(ValueError):
                    queue.waiting.remove(turn)
            raise
        finally:
            alarm.cancel()
            exchange.queued_s = time.monotonic() - began

    def in_flight_by_model(self) -> dict[str, float]:
        """Requests in flight, for each model that has any."""
        return {name: float(queue.in_flight) for name, queue in list(self._queues.items()) if queue.in_flight}

    def queued_by_model(self) -> dict[str, float]:
        """Waiting requests, for each model that has any."""
        return {
            name: float(len(queue.waiting)) for name, queue in list(self._queues.items()) if queue.waiting
        }

    def waiting(self, model: str) -> int:
        """How many requests wait for `model` now."""
        queue = self._queues.get(model)
        return len(queue.waiting) if queue is not None else 0

    def release(self, queue: _ModelQueue) -> None:
        self.in_flight -= 1
        while queue.waiting:
            turn = queue.waiting.popleft()
            if not turn.done():
                turn.set_result(None)  # the permit passes on; `in_flight` of the gate stays
                return
        queue.in_flight -= 1


def _give_up(turn: asyncio.Future[None], error: GatewayError) -> None:
    if not turn.done():
        turn.set_exception(error)
