"""A coroutine that runs without a task."""

import asyncio
from typing import Any

import pytest
from chips_backend.eager_runner import EagerRunner


class Scene:
    def __init__(self) -> None:
        self.ended: list[Any] = []
        self.runner: EagerRunner[Any] = EagerRunner(asyncio.get_running_loop(), self.ended.append)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def at_once() -> int:
    return 1


async def test_what_waits_for_nothing_has_ended_when_start_returns():
    scene = Scene()
    scene.runner.start(at_once())
    scene.runner.start(at_once())
    assert scene.ended == [1, 1]


async def test_it_goes_on_when_what_it_waits_for_is_done():
    scene = Scene()
    first, second = (asyncio.get_running_loop().create_future() for _ in range(2))

    async def waits() -> Any:
        await asyncio.sleep(0)
        one = await first
        try:
            await second
        except ValueError as error:
            return one, str(error)

    scene.runner.start(waits())
    await settled()
    assert scene.ended == []
    first.set_result(1)
    await settled()
    second.set_exception(ValueError("two"))
    await settled()
    assert scene.ended == [(1, "two")]


@pytest.mark.parametrize("is_done", [False, True])
async def test_it_is_cancelled_where_it_waits(is_done):
    """Also where what it waits for is done, and it has not gone on yet."""
    scene = Scene()
    future = asyncio.get_running_loop().create_future()
    seen = []

    async def waits() -> None:
        try:
            await future
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    scene.runner.start(waits())
    if is_done:
        future.set_result(1)
    scene.runner.cancel()
    await settled()
    assert (scene.ended, seen) == ([None], ["cancelled"])
    scene.runner.cancel()  # nothing runs: the next one is not meant
    scene.runner.start(at_once())
    assert scene.ended == [None, 1]


async def test_an_error_ends_it_and_reaches_who_calls():
    scene = Scene()

    async def fails() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        scene.runner.start(fails())
    assert scene.ended == [None]
