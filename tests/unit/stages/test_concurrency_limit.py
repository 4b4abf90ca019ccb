"""Permits: never more than allowed, first come first served, and none is ever lost."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.errors import DeadlineExceeded, Overloaded, TooManyRequests
from gateway.core.model import Model, Policy
from gateway.core.principal import Principal
from gateway.core.quota import Quota
from gateway.stages.concurrency_limit import ConcurrencyLimit, Permit

ANYBODY = Principal(id="anybody")
FEW = Principal(id="few", quota=Quota(max_in_flight=2))


def exchange(
    name: str = "wine", *, left_s: float = 60.0, max_in_flight: int | None = None, caller: Principal = ANYBODY
) -> Any:
    """What the stage looks at."""
    return SimpleNamespace(
        principal=caller,
        model=Model(name=name, policy=Policy(max_in_flight=max_in_flight)),
        deadline=time.monotonic() + left_s,
        queued_s=0.0,
    )


def limit(
    *, in_flight: int = 100, model_in_flight: int = 1, queue: int = 10, queue_wait_s: float = 60.0
) -> ConcurrencyLimit:
    return ConcurrencyLimit(
        in_flight=in_flight, model_in_flight=model_in_flight, queue_per_model=queue, queue_wait_s=queue_wait_s
    )


async def take(stage: ConcurrencyLimit, asking: Any) -> Permit:
    """A permit as the pipeline takes it: at once where one is free, else by waiting."""
    return stage.try_nowait(asking) or await stage(asking)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_free_permit_is_given_at_once_and_comes_back():
    stage = limit()
    with await take(stage, exchange()):
        assert stage.in_flight == 1
    assert stage.in_flight == 0


async def test_a_permit_comes_back_whatever_happened():
    stage = limit()
    with pytest.raises(ZeroDivisionError), await take(stage, exchange()):
        raise ZeroDivisionError
    with await take(stage, exchange()):
        pass
    assert stage.in_flight == 0


async def test_who_waits_is_served_in_the_order_of_arrival():
    stage = limit()
    served = []

    async def one(number: int) -> None:
        with await take(stage, exchange()):
            served.append(number)
            await asyncio.sleep(0)

    with await take(stage, exchange()):
        waiting = []
        for number in range(5):
            waiting.append(asyncio.create_task(one(number)))
            await settle()
        assert stage.waiting("wine") == 5
        assert served == []
    await asyncio.gather(*waiting)
    assert served == [0, 1, 2, 3, 4]
    assert (stage.in_flight, stage.waiting("wine")) == (0, 0)


async def test_a_newcomer_does_not_overtake_the_queue():
    stage = limit(model_in_flight=1)
    first = await take(stage, exchange())
    waiting = asyncio.create_task(take(stage, exchange()))
    await settle()
    first.__exit__(None, None, None)
    late = asyncio.create_task(take(stage, exchange()))
    await settle()
    assert waiting.done()
    assert not late.done()
    waiting.result().__exit__(None, None, None)
    (await late).__exit__(None, None, None)
    assert stage.in_flight == 0


async def test_a_full_queue_refuses_at_once():
    stage = limit(queue=0)
    with await take(stage, exchange()), pytest.raises(Overloaded, match="its queue is full"):
        await take(stage, exchange())
    assert stage.in_flight == 0


async def test_a_full_gateway_refuses_whatever_the_model():
    stage = limit(in_flight=1)
    with (
        await take(stage, exchange("wine")),
        pytest.raises(Overloaded, match="The gateway is handling as many"),
    ):
        await take(stage, exchange("iris"))


async def test_models_do_not_wait_for_each_other():
    stage = limit()
    with await take(stage, exchange("wine")), await take(stage, exchange("iris")):
        assert stage.in_flight == 2


async def test_a_models_own_policy_wins():
    stage = limit(model_in_flight=1, queue=0)
    with (
        await take(stage, exchange(max_in_flight=2)),
        await take(stage, exchange(max_in_flight=2)),
        pytest.raises(Overloaded),
    ):
        await take(stage, exchange(max_in_flight=2))


async def test_a_callers_own_quota_counts_what_waits_too_and_is_given_back_whatever_happens(
    monkeypatch: pytest.MonkeyPatch,
):
    stage, loop = limit(model_in_flight=1, queue_wait_s=0.01), asyncio.get_running_loop()
    with await take(stage, exchange(caller=FEW)):
        with monkeypatch.context() as time_stands_still:
            now = loop.time()
            time_stands_still.setattr(loop, "time", lambda: now)
            waiting = asyncio.create_task(take(stage, exchange(caller=FEW)))
            await settle()
            with pytest.raises(TooManyRequests, match=r"in flight \(2\)"):
                await take(stage, exchange("iris", caller=FEW))
            with await take(stage, exchange("iris")):
                pass  # others are not held up
        with pytest.raises(Overloaded):
            await waiting
        with await take(stage, exchange("iris", caller=FEW)):
            pass  # who gave up waiting no longer counts
    with await take(stage, exchange(caller=FEW)), await take(stage, exchange("iris", caller=FEW)):
        assert stage.in_flight == 2
    assert stage.in_flight == 0


async def test_who_waits_too_long_is_told_to_come_back():
    stage = limit(queue_wait_s=0.01)
    with await take(stage, exchange()):
        waiting = exchange()
        with pytest.raises(Overloaded, match="is busy"):
            await take(stage, waiting)
        assert waiting.queued_s > 0
    assert (stage.in_flight, stage.waiting("wine")) == (0, 0)


async def test_whose_time_runs_out_is_told_that():
    stage = limit(queue_wait_s=60)
    with await take(stage, exchange()), pytest.raises(DeadlineExceeded):
        await take(stage, exchange(left_s=0.01))
    assert (stage.in_flight, stage.waiting("wine")) == (0, 0)


async def test_a_caller_who_leaves_the_queue_holds_nothing():
    stage = limit()
    with await take(stage, exchange()):
        waiting = asyncio.create_task(take(stage, exchange()))
        await settle()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert stage.waiting("wine") == 0
    assert stage.in_flight == 0


async def test_a_permit_that_comes_at_the_moment_its_caller_leaves_goes_on_to_the_next():
    stage = limit()
    first = await take(stage, exchange())
    leaving, next_one = (
        asyncio.create_task(take(stage, exchange())),
        asyncio.create_task(take(stage, exchange())),
    )
    await settle()
    first.__exit__(None, None, None)  # the turn is given…
    leaving.cancel()  # …before its task could run
    with pytest.raises(asyncio.CancelledError):
        await leaving
    with await next_one:
        assert stage.in_flight == 1
    assert stage.in_flight == 0


@given(
    st.integers(1, 3),
    st.integers(0, 3),
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["serve", "fail", "leave"])), max_size=12),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_in_whatever_order_they_come_and_go_nothing_is_lost_or_given_twice(
    permits: int, queue: int, callers: list[tuple[int, str]]
):
    async def play() -> None:
        stage = limit(model_in_flight=permits, queue=queue)
        inside = 0

        async def call(ticks: int, how: str) -> None:
            nonlocal inside
            try:
                permit = await take(stage, exchange())
            except Overloaded:
                return
            with permit:
                inside += 1
                assert inside <= permits
                try:
                    for _ in range(ticks):
                        await asyncio.sleep(0)
                    if how == "fail":
                        raise ZeroDivisionError
                finally:
                    inside -= 1

        tasks = []
        for ticks, how in callers:
            tasks.append(asyncio.create_task(call(ticks, how)))
            await asyncio.sleep(0)
            if how == "leave":
                tasks[-1].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [result for result in results if isinstance(result, AssertionError)]
        assert (inside, stage.in_flight, stage.waiting("wine")) == (0, 0, 0)
        with await take(stage, exchange()):
            pass

    asyncio.run(play())
