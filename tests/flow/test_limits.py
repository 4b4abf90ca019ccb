"""Limits as callers meet them: how often, how many at once, what they are told, and trying a limit out."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.core.api_keys import digest_key
from gateway.core.model import Policy
from gateway.registry.base import KEYS, Put
from tests.flow.scene import Scene, assert_problem
from tests.flow.scripted import Script
from tests.patience import patience


async def test_a_rate_per_key(scene: Scene):
    backend = await scene.model()
    key = await scene.make_key("*", requests_per_s=0.01, burst=2)
    answers = [await scene.call(key=key) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert_problem(answers[2], 429, "too-many-requests")
    assert answers[0].get("RateLimit-Policy") == '"key-rate";q=2;w=200'
    assert [(answer.get("RateLimit") or "").partition(";t=")[0] for answer in answers] == [
        '"key-rate";r=1', '"key-rate";r=0', '"key-rate";r=0',
    ]  # fmt: skip
    assert 90 <= int(answers[2].get("Retry-After") or 0) <= 100
    assert len(backend.seen) == 2
    answer = await scene.call()  # another key is another account
    assert answer.status == 200
    assert answer.get("RateLimit") is None


@pytest.mark.one_day
async def test_quotas_of_key_and_model(scene: Scene):
    backend = await scene.model(policy=Policy(requests_per_day=3))
    key = await scene.make_key("*", requests_per_month=1)
    assert (await scene.call(key=key)).status == 200
    problem = assert_problem(await scene.call(key=key), 429, "too-many-requests")
    assert "month" in problem["detail"]
    assert (await scene.call()).status == 200
    assert (await scene.call()).status == 200
    problem = assert_problem(await scene.call(), 429, "too-many-requests")
    assert "wine" in problem["detail"]
    assert len(backend.seen) == 3


@pytest.mark.one_day
async def test_what_is_refused_before_uses_nothing_up(scene: Scene):
    await scene.model()
    key = await scene.make_key("beer", "wine", requests_per_day=1)
    assert_problem(await scene.call("POST", "/beer", key=key), 404, "model-not-found")
    assert_problem(await scene.call("PUT", key=key, body=b""), 405, "method-not-allowed")
    assert (await scene.call("GET", key=key)).status == 200
    assert (await scene.call(key=key)).status == 200
    assert_problem(await scene.call(key=key), 429, "too-many-requests")


async def test_requests_in_flight_per_key(scene: Scene):
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request, peer):
        arrived.set()
        await go_on.wait()
        await peer.answer()

    await scene.model(script=slow)
    key = await scene.make_key("*", max_in_flight=1)
    first = asyncio.create_task(scene.call(key=key))
    await arrived.wait()
    problem = assert_problem(await scene.call(key=key), 429, "too-many-requests")
    assert "in flight" in problem["detail"]
    go_on.set()
    assert (await first).status == 200
    assert (await scene.call(key=key)).status == 200
    assert scene.gateway.concurrency_limit._held == {}


@pytest.fixture
async def patient_scene(path: None) -> AsyncIterator[Scene]:
    async with Scene(**{"limits.queue_wait_s": "600"}) as scene:
        yield scene


async def test_a_place_in_the_queue_counts_as_in_flight_and_is_given_back(patient_scene: Scene):
    scene = patient_scene
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request, peer):
        arrived.set()
        await go_on.wait()
        await peer.answer()

    await scene.model(script=slow, policy=Policy(max_in_flight=1))
    key = await scene.make_key("*", max_in_flight=1)
    first = asyncio.create_task(scene.call())
    await arrived.wait()
    waiting = await scene.caller()
    await waiting.send(scene.request(key=key))
    async with asyncio.timeout(patience(20)):
        while not scene.gateway.concurrency_limit.waiting("wine"):
            await asyncio.sleep(0)
    assert_problem(await scene.call(key=key), 429, "too-many-requests")
    waiting.leave()
    async with asyncio.timeout(patience(20)):
        while scene.gateway.concurrency_limit._held:
            await asyncio.sleep(0)
    go_on.set()
    assert (await first).status == 200
    assert (await scene.call(key=key)).status == 200


@pytest.mark.one_day
async def test_a_trial_counts_and_lets_pass():
    async with Scene(**{"limits.report_only": "true"}) as scene:
        await scene.model()
        key = await scene.make_key("*", requests_per_day=1)
        assert [(await scene.call(key=key)).status for _ in range(3)] == [200, 200, 200]
        assert scene.gateway.rate_limit.refused == 2
        told = [line.get("would_refuse") for line in scene.log_lines() if "httpRequest" in line]
        assert told == [None, ["too-many-requests"], ["too-many-requests"]]


@pytest.mark.parametrize(
    ("lost", "statuses"), [("local", [200, 429]), ("admit", [200, 200]), ("refuse", [503, 503])]
)
@pytest.mark.one_day
async def test_a_redis_that_is_away_fails_as_the_settings_say(lost: str, statuses: list[int]):
    flags = {"limits.redis_url": "redis://127.0.0.1:9", "limits.when_redis_is_unavailable": lost}
    async with Scene(**flags) as scene:
        await scene.model()
        key = await scene.make_key("*", requests_per_day=1)
        assert [(await scene.call(key=key)).status for _ in range(2)] == statuses
        assert (await scene.call()).status == 200  # who has no limit does not depend on it


def held(arrived: "asyncio.Queue[None]", go_on: asyncio.Event) -> Script:
    """A backend that reports each request, and answers when it may go on."""

    async def script(request, peer):
        arrived.put_nowait(None)
        await go_on.wait()
        await peer.answer()

    return script


async def test_a_trial_lets_more_be_under_way_than_key_and_policy_allow():
    go_on = asyncio.Event()
    arrived: asyncio.Queue[None] = asyncio.Queue()
    slow = held(arrived, go_on)
    async with Scene(**{"limits.report_only": "true"}) as scene:
        await scene.model(script=slow, policy=Policy(max_in_flight=2))
        key = await scene.make_key("*", max_in_flight=1)
        calls = [asyncio.create_task(scene.call(key=key)) for _ in range(3)]
        async with asyncio.timeout(patience(20)):
            for _ in calls:
                await arrived.get()  # all three are at the backend at once
        go_on.set()
        assert [(await call).status for call in calls] == [200, 200, 200]
        assert scene.gateway.concurrency_limit.refused == 2
        assert scene.gateway.concurrency_limit._held == {}
        assert scene.gateway.concurrency_limit.in_flight == 0
        told = [line.get("would_refuse") for line in scene.log_lines() if "httpRequest" in line]
        assert sorted(told, key=str) == [None, ["too-many-requests", "overloaded"], ["too-many-requests"]]


async def test_a_trial_holds_what_keeps_the_gateway_upright():
    go_on = asyncio.Event()
    arrived: asyncio.Queue[None] = asyncio.Queue()
    slow = held(arrived, go_on)
    flags = {"limits.report_only": "true", "limits.model_in_flight": "2", "limits.queue": "0"}
    async with Scene(**flags) as scene:
        await scene.model(script=slow, policy=Policy(max_in_flight=1))
        calls = [asyncio.create_task(scene.call()) for _ in range(2)]
        async with asyncio.timeout(patience(20)):
            for _ in calls:
                await arrived.get()
        assert_problem(await scene.call(), 503, "overloaded")
        go_on.set()
        assert [(await call).status for call in calls] == [200, 200]


@pytest.mark.one_day
async def test_two_gateways_share_what_a_key_may(redis_url: str):
    flags = {"limits.redis_url": "redis://127.0.0.1", "limits.redis_timeout_s": "20"}
    one, other = Scene(**flags), Scene(**flags)
    for scene in (one, other):
        scene.gateway._redis_limiter._url = redis_url  # type: ignore[union-attr]
    async with one, other:
        await one.model()
        await other.model()
        key = await one.make_key("*", requests_per_day=3)
        body = await one.registry.read(KEYS, digest_key(key))
        assert body is not None
        await other.registry.write(
            Put(kind=KEYS, name=digest_key(key), body=body.body, expected=0), author="test"
        )
        statuses = [(await scene.call(key=key)).status for scene in (one, other, one, other, one)]
        assert statuses == [200, 200, 200, 429, 429]
