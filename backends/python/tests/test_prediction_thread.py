"""One thread that predicts: in order, off the event loop, and never gone."""

import asyncio
import threading

import pytest
from chips_backend.prediction_thread import PredictionThread


@pytest.fixture
async def thread():
    made = PredictionThread()
    yield made
    made.stop()


async def test_calls_run_one_after_the_other_in_one_thread(thread):
    seen: list[tuple[int, int]] = []

    def call(number: int) -> int:
        seen.append((number, threading.get_ident()))
        return number * 2

    assert await asyncio.gather(*(thread.submit(call, number) for number in range(20))) == [
        number * 2 for number in range(20)
    ]
    assert [number for number, _ in seen] == list(range(20))
    assert len({ident for _, ident in seen} - {threading.get_ident()}) == 1


@pytest.mark.parametrize("raised", [ValueError, StopIteration, SystemExit, KeyboardInterrupt, GeneratorExit])
async def test_what_is_raised_reaches_who_asked_and_the_thread_goes_on(thread, raised):
    def fails() -> None:
        raise raised("why")

    with pytest.raises(RuntimeError, match=f"{raised.__name__}: why"):
        await thread.submit(fails)
    assert await thread.submit(int, "7") == 7


async def test_who_has_left_is_not_told(thread):
    gate = threading.Event()
    left = thread.submit(gate.wait)
    left.cancel()
    gate.set()
    assert await thread.submit(int, "7") == 7
    assert left.cancelled()


async def test_a_result_for_a_loop_that_is_closed_is_dropped():
    gate, thread = threading.Event(), PredictionThread()
    left: list[asyncio.Future[bool]] = []

    async def ask() -> None:
        left.append(thread.submit(gate.wait))

    await asyncio.to_thread(lambda: asyncio.run(ask()))
    gate.set()
    assert await thread.submit(int, "7") == 7
    await asyncio.to_thread(thread.stop)


def test_one_that_was_never_used_stops_at_once():
    PredictionThread().stop()


async def test_the_thread_ends_with_what_it_belongs_to():
    thread = PredictionThread()
    running = await thread.submit(threading.current_thread)
    del thread
    await asyncio.to_thread(running.join)
    assert not running.is_alive()
