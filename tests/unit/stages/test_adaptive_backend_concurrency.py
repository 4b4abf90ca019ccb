"""Places at a backend: never more than the window, first come first served, what is refused comes first again, none is lost."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import DeadlineExceeded
from gateway.core.exchange import Attempt
from gateway.core.header_classification import CONNECTION, UPGRADE
from gateway.core.model import Backend
from gateway.stages.adaptive_backend_concurrency import (
    ANYWHERE,
    AdaptiveBackendConcurrency,
    ConcurrencyWindow,
)
from tests.patience import patience


def asking(
    *, declared: int | None = 2, left_s: float = 60.0, method: str = "POST", upgrade: bytes | None = None
) -> Any:
    """What the stage looks at."""
    now = time.monotonic()
    read: list[bytes | None] = [None] * 32
    if upgrade is not None:
        read[UPGRADE], read[CONNECTION] = upgrade, b"keep-alive, Upgrade"
    return SimpleNamespace(
        method=method,
        model=SimpleNamespace(name="wine"),
        backend=Backend(version="1", url="http://backend", concurrency=declared),
        head=SimpleNamespace(read=read),
        arrived=now,
        deadline=now + left_s,
        queued_s=0.0,
        attempts=[],
        backend_server_timing=None,
        may_wait=False,
        refused_s=None,
    )


def answered(exchange: Any, *, took_s: float, timing: bytes | None = None) -> None:
    attempt = Attempt(100.0)
    attempt.answered = 100.0 + took_s
    exchange.attempts = [attempt]
    exchange.backend_server_timing = timing


async def enter(stage: AdaptiveBackendConcurrency, exchange: Any) -> Any:
    place = stage.try_nowait(exchange) or await stage(exchange)
    place.__enter__()
    return place


def leave(place: Any) -> None:
    place.__exit__(None, None, None)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_declares_nothing_and_what_is_no_prediction_is_not_counted():
    stage = AdaptiveBackendConcurrency()
    assert stage.try_nowait(asking(declared=None)) is ANYWHERE
    assert stage.try_nowait(asking(declared=1, method="GET", upgrade=b"WebSocket")) is ANYWHERE
    assert stage.window_sizes_by_backend() == {"wine": 1.0}


@pytest.mark.parametrize(("method", "upgrade"), [("POST", b"h2c"), ("GET", b"h2c"), ("POST", b"websocket")])
async def test_an_upgrade_that_is_never_made_is_counted(method: str, upgrade: bytes):
    assert (
        AdaptiveBackendConcurrency().try_nowait(asking(declared=1, method=method, upgrade=upgrade))
        is not ANYWHERE
    )


async def test_as_many_as_declared_are_let_through_and_the_rest_waits_in_order():
    stage = AdaptiveBackendConcurrency()
    first = [await enter(stage, asking()) for _ in range(2)]
    order: list[int] = []

    async def wait(number: int) -> Any:
        place = await enter(stage, asking())
        order.append(number)
        return place

    waiting = [asyncio.create_task(wait(number)) for number in range(3)]
    await settle()
    assert stage.waiting_by_backend() == {"wine": 3.0}
    assert stage.try_nowait(asking()) is None  # nobody overtakes
    for place in first:
        answered(place._exchange, took_s=0.1)
        place._window._held_until = time.monotonic() + 60  # nothing is tried out
        leave(place)
    await settle()
    assert order == [0, 1]
    answered((await waiting[0])._exchange, took_s=0.1)
    leave(await waiting[0])
    await settle()
    assert order == [0, 1, 2]
    for task in waiting[1:]:
        leave(await task)
    assert stage.waiting_by_backend() == {"wine": 0.0}


async def test_workers_share_what_is_declared():
    assert ConcurrencyWindow(8, sharers=4, scales=False).size == 2
    assert ConcurrencyWindow(1, sharers=4, scales=False).size == 1
    assert (
        ConcurrencyWindow(4, sharers=1, scales=True).size == 8
    )  # so that the platform sees a reason for one more instance


async def test_what_was_refused_comes_first_again_and_the_window_closes():
    stage = AdaptiveBackendConcurrency()
    one, other = asking(), asking()
    places = [await enter(stage, exchange) for exchange in (one, other)]
    late = asyncio.create_task(enter(stage, asking()))
    await settle()
    one.refused_s = 1.0
    leave(places[0])
    assert stage.window_sizes_by_backend() == {"wine": 1.0}
    assert stage.should_retry_after_refusal(one)
    assert one.refused_s is None
    assert stage.refusals_by_backend() == {"wine": 1.0}
    again = asyncio.create_task(enter(stage, one))
    await settle()
    answered(other, took_s=0.1)
    places[1]._window.share = 1.0  # so that it opens by no more than the one place
    places[1]._window._held_until = time.monotonic() + 60  # however slow this machine is
    leave(places[1])
    await settle()
    assert again.done()
    assert not late.done()
    answered(one, took_s=0.1)
    leave(await again)
    leave(await late)


async def test_a_backend_that_refuses_everything_is_asked_again_after_the_time_it_names():
    stage = AdaptiveBackendConcurrency()
    exchange = asking(declared=1)
    place = await enter(stage, exchange)
    exchange.refused_s = 0.01
    leave(place)
    assert stage.should_retry_after_refusal(exchange)
    assert stage.try_nowait(exchange) is None
    async with asyncio.timeout(patience(10)):
        leave(await enter(stage, exchange))


async def test_a_backend_that_names_no_time_is_not_asked_without_a_pause():
    stage = AdaptiveBackendConcurrency()
    exchange = asking(declared=1)
    began = time.monotonic()
    for _ in range(4):
        place = await enter(stage, exchange)
        exchange.refused_s = 0.0
        leave(place)
        assert stage.should_retry_after_refusal(exchange)
    assert time.monotonic() - began >= 0.75 * (0.05 + 0.1 + 0.2)


async def test_without_the_time_for_another_try_the_caller_gets_the_refusal():
    stage = AdaptiveBackendConcurrency()
    exchange = asking(left_s=0.5)
    exchange.refused_s = 1.0
    assert not stage.should_retry_after_refusal(exchange)


async def test_who_waits_too_long_is_told_so_and_leaves_nothing():
    stage = AdaptiveBackendConcurrency()
    place = await enter(stage, asking(declared=1))
    with pytest.raises(DeadlineExceeded):
        await stage(asking(declared=1, left_s=0.01))
    assert stage.waiting_by_backend() == {"wine": 0.0}
    leave(place)


def test_the_window_opens_while_answers_come_without_a_wait():
    window = ConcurrencyWindow(2, sharers=1, scales=False)
    for _ in range(6):
        exchange = asking()
        answered(exchange, took_s=0.1)
        window.adjust_to_latency(exchange, now=1.0)
    assert window.size == 8


def test_it_does_not_open_where_answers_wait():
    window = ConcurrencyWindow(2, sharers=1, scales=False)
    for took_s in (0.1, *[0.2] * 20):
        exchange = asking()
        answered(exchange, took_s=took_s)
        window.adjust_to_latency(exchange, now=1.0)
    assert window.size == 3  # for the first answer


def test_the_backends_own_account_tells_long_work_from_a_long_wait():
    works, waits = (ConcurrencyWindow(2, sharers=1, scales=False) for _ in range(2))
    for work_ms, queue_ms in ((10, 0), (500, 0), (90, 0)):
        for window, timing in (
            (works, f"queue;dur={queue_ms}, predict;dur={work_ms}"),
            (waits, f"queue;dur={work_ms - 10}, predict;dur=10"),
        ):
            exchange = asking()
            answered(exchange, took_s=work_ms / 1000 + 0.001, timing=timing.encode())
            window.adjust_to_latency(exchange, now=1.0)
    assert works.size == 5
    assert waits.size == 2  # far too many for work of 10 ms


def test_it_closes_again_where_far_too_many_wait_there_but_not_below_what_is_declared():
    window = ConcurrencyWindow(2, sharers=1, scales=False)
    window.size = 10
    for took_s in (0.1, *[1.0] * 200):
        exchange = asking()
        answered(exchange, took_s=took_s)
        window.adjust_to_latency(exchange, now=1.0)
    assert window.size == 2


class Crowd:
    """Callers who come and go at one backend."""

    def __init__(self, declared: int) -> None:
        self.stage = AdaptiveBackendConcurrency()
        self._declared = declared
        self.there: list[Any] = []
        self.asked: list[asyncio.Task[Any]] = []

    def arrive(self, exchange: Any = None) -> None:
        self.asked.append(asyncio.create_task(enter(self.stage, exchange or asking(declared=self._declared))))

    def give_up(self) -> None:
        if self.asked:
            self.asked[0].cancel()

    def answer(self) -> None:
        if self.there:
            place = self.there.pop(0)
            answered(place._exchange, took_s=0.1)
            leave(place)

    def refuse(self) -> None:
        if self.there:
            place = self.there.pop(0)
            exchange = place._exchange
            exchange.refused_s = 0.0
            leave(place)
            if self.stage.should_retry_after_refusal(exchange):
                self.arrive(exchange)

    async def look(self) -> None:
        """Each place that is taken belongs to somebody; who was let in by a timer may need a moment to notice."""
        async with asyncio.timeout(patience(20)):
            await self._collect()
            while self._taken() != len(self.there):
                await self._collect()

    def _taken(self) -> int:
        return sum(window.in_flight for window in self.stage._models.get("wine", {}).values())

    async def _collect(self) -> None:
        await settle()
        done = [task for task in self.asked if task.done()]
        self.asked = [task for task in self.asked if not task.done()]
        self.there += [task.result() for task in done if not task.cancelled()]


@given(st.lists(st.sampled_from(["arrive", "answer", "refuse", "give_up"]), max_size=60), st.integers(1, 3))
@settings(max_examples=60)
def test_whatever_happens_nobody_is_lost(steps: list[str], declared: int):
    async def play() -> None:
        crowd = Crowd(declared)
        for step in steps:
            getattr(crowd, step)()
            await crowd.look()
        async with asyncio.timeout(patience(20)):
            while crowd.asked or crowd.there:  # all come to their end
                crowd.answer()
                await crowd.look()
        assert crowd.stage.waiting_by_backend().get("wine", 0.0) == 0.0

    asyncio.run(play())


async def test_a_request_that_was_never_attempted_gives_its_place_back():
    """As where no ID token for the backend could be had."""
    stage = AdaptiveBackendConcurrency()
    place = await enter(stage, asking(declared=1))
    waits = asyncio.create_task(enter(stage, asking(declared=1)))
    await settle()
    leave(place)
    async with asyncio.timeout(patience(5)):
        leave(await waits)
