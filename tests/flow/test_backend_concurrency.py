"""A backend that declares its concurrency gets no more than it runs; the rest wait at the gateway, and all get their answer."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from gateway.core.model import Backend, Policy
from tests.flow.scene import Scene, assert_problem
from tests.flow.scripted import Message, Peer, ScriptedBackend

MANY = 200
BUSY = [("Retry-After", "1"), ("Content-Type", "application/problem+json")]


class Instances:
    """What runs `slots` requests at once. Beyond that it lets `queue` wait and refuses the others."""

    def __init__(self, slots: int, *, queue: int = 0, status: int = 503, work_s: float = 0.005) -> None:
        self._slots = asyncio.Semaphore(slots)
        self._room = slots + queue
        self._work_s = work_s
        self.status = status
        self.fields = BUSY
        self.present = self.most = self.refused = 0
        self.scored: list[str] = []

    async def script(self, request: Message, peer: Peer) -> None:
        if self.present >= self._room:
            self.refused += 1
            await peer.answer(self.status, b'{"code": "overloaded"}', self.fields)
            return
        self.present += 1
        self.most = max(self.most, self.present)
        try:
            async with self._slots:
                await asyncio.sleep(self._work_s)
            self.scored.append(request.target)
            await peer.answer(200, b'{"predictions": []}')
        finally:
            self.present -= 1


async def declared(scene: Scene, script: Any, concurrency: int | None = 2, **changes: Any) -> ScriptedBackend:
    backend = await scene.model(script=script)
    (model,) = [entry.model for entry in scene.gateway.mirror.snapshot.entries.values()]  # type: ignore[union-attr]
    await scene.put_model(
        type(model)(
            name="wine",
            backends=(Backend(version="1", url=backend.url, concurrency=concurrency),),
            traffic={"1": 100},
            **changes,
        )
    )
    return backend


async def call_all(scene: Scene, count: int = MANY) -> Counter[int]:
    answers = await asyncio.gather(*(scene.call(target=f"/wine/{number}") for number in range(count)))
    return Counter(answer.status for answer in answers)


@pytest.mark.parametrize("status", [503, 429])
async def test_all_are_answered_by_a_backend_that_refuses_what_it_cannot_run(status: int):
    async with Scene() as scene:
        instances = Instances(2, status=status)
        await declared(scene, instances.script)
        assert await call_all(scene) == {200: MANY}
        assert len(set(instances.scored)) == len(instances.scored) == MANY  # each once
        assert instances.most <= 2
        assert instances.refused < MANY / 2  # only when it is tried out whether there is more room
        assert scene.gateway.concurrency_limit.in_flight == 0


async def test_an_upgrade_that_is_never_made_does_not_jump_the_queue():
    """curl --http2 and Java's HttpClient offer h2c with each request to an http:// address."""
    offer = [
        ("Connection", "Upgrade, HTTP2-Settings"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
    ]
    async with Scene() as scene:
        instances = Instances(2)
        await declared(scene, instances.script)
        body = None if scene.path == "plain" else b"{}"  # the plain path takes no body with such an offer
        calls = (scene.call(target=f"/wine/{n}", body=body, fields=offer) for n in range(60))
        answers = await asyncio.gather(*calls)
        assert Counter(answer.status for answer in answers) == {200: 60}
        assert instances.most <= 2


async def test_a_backend_with_a_queue_of_its_own_is_not_filled_up():
    async with Scene() as scene:
        instances = Instances(2, queue=32, work_s=0.02)
        await declared(scene, instances.script)
        assert await call_all(scene, 100) == {200: 100}
        assert instances.refused == 0
        assert instances.most <= 16


async def test_more_instances_than_one_are_found_out():
    async with Scene() as scene:
        instances = Instances(16, work_s=0.02)
        await declared(scene, instances.script)
        assert await call_all(scene, 150) == {200: 150}
        assert instances.most > 4


async def test_they_are_served_in_the_order_they_came():
    release = asyncio.Event()
    seen: list[str] = []

    async def script(request: Message, peer: Peer) -> None:
        seen.append(request.target)
        await release.wait()
        await peer.answer(200, b"{}")

    async with Scene() as scene:
        await declared(scene, script, concurrency=1)
        calls = []
        for number in range(8):
            calls.append(asyncio.create_task(scene.call(target=f"/wine/{number}")))
            while scene.gateway.concurrency_limit.in_flight <= number:
                await asyncio.sleep(0)
        assert len(seen) <= 1
        release.set()
        assert {answer.status for answer in await asyncio.gather(*calls)} == {200}
        # Those who are there at once come by connections of their own, so they may change places.
        assert all(abs(place - int(target[1:])) <= 3 for place, target in enumerate(seen)), seen


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (503, []),
        (503, [("Retry-After", "60")]),
        (503, [("Retry-After", "soon")]),
        (429, [("Retry-After", "3600")]),
    ],
    ids=["503 that says nothing", "a minute", "not a number", "an hour"],
)
async def test_other_answers_are_the_callers(status: int, fields: list[tuple[str, str]]):
    """A 503 without Retry-After may come after the work began; a long wait is the caller's to decide about."""
    async with Scene() as scene:
        instances = Instances(0, status=status)
        instances.fields = fields
        backend = await declared(scene, instances.script)
        answer = await scene.call()
        assert (answer.status, answer.body) == (status, b'{"code": "overloaded"}')
        assert len(backend.seen) == 1


async def test_whose_time_is_shorter_than_the_backend_asks_for_gets_the_refusal():
    async with Scene() as scene:
        instances = Instances(0)
        instances.fields = [("Retry-After", "5")]
        backend = await declared(scene, instances.script)
        answer = await scene.call(fields=[("X-Request-Timeout", "4900")])
        assert (answer.status, answer.body, answer.get("Retry-After")) == (
            503,
            b'{"code": "overloaded"}',
            "5",
        )
        assert len(backend.seen) == 1
        assert scene.gateway.concurrency_limit.in_flight == 0


async def test_who_waits_until_the_deadline_is_told_so():
    forever = asyncio.Event()

    async def never(_: Message, peer: Peer) -> None:
        await forever.wait()
        peer.abort()

    async with Scene() as scene:
        backend = await declared(scene, never, concurrency=1)
        first = await scene.caller()
        await first.send(scene.request())
        while not backend.seen:
            await asyncio.sleep(0)
        answer = await scene.call(fields=[("X-Request-Timeout", "200")])
        assert_problem(answer, 504, "deadline-exceeded")
        assert len(backend.seen) == 1
        first.leave()
        forever.set()


async def test_a_body_that_flowed_cannot_be_sent_again():
    async with Scene() as scene:
        backend = await declared(scene, Instances(0).script)
        caller = await scene.caller()
        whole = scene.request(body=b"x" * 400_000)
        await caller.send(whole[:300_000])
        while not backend.connections:
            await asyncio.sleep(0)
        await caller.send(whole[300_000:])
        assert (await caller.answer()).status == 503
        assert len(backend.seen) == 1


async def test_a_caller_who_leaves_while_waiting_holds_nothing():
    async with Scene() as scene:
        instances = Instances(1, work_s=0.05)
        await declared(scene, instances.script, concurrency=1)
        leaving = [await scene.caller() for _ in range(20)]
        for caller in leaving:
            await caller.send(scene.request())
        while scene.gateway.concurrency_limit.in_flight < 20:
            await asyncio.sleep(0)
        for caller in leaving:
            caller.leave()
        assert (await scene.call()).status == 200
        while scene.gateway.concurrency_limit.in_flight:
            await asyncio.sleep(0.01)
        assert not any(scene.gateway.adaptive_backend_concurrency.waiting_by_backend().values())


async def test_versions_do_not_wait_for_each_other():
    forever = asyncio.Event()

    async def never(_: Message, peer: Peer) -> None:
        await forever.wait()
        peer.abort()

    async with Scene() as scene:
        stuck = await scene.model("other", never)
        free = await scene.model(
            backends=(Backend(version="1", url=stuck.url, concurrency=1),), script=Instances(1).script
        )
        await scene.put_model(
            type(scene.gateway.mirror.snapshot.entries["wine"].model)(  # type: ignore[union-attr]
                name="wine",
                backends=(
                    Backend(version="1", url=stuck.url, concurrency=1),
                    Backend(version="2", url=free.url, concurrency=1),
                ),
                traffic={"1": 50, "2": 50},
            )
        )
        waiting = [await scene.caller() for _ in range(3)]
        for caller in waiting:
            await caller.send(scene.request(target="/v2/models/wine/versions/1/infer"))
        while scene.gateway.concurrency_limit.in_flight < 3:
            await asyncio.sleep(0)
        assert [(await scene.call(target="/v2/models/wine/versions/2/infer")).status for _ in range(5)] == [
            200
        ] * 5
        for caller in waiting:
            caller.leave()
        forever.set()


async def test_a_backend_that_declares_nothing_is_left_as_it_is():
    async with Scene() as scene:
        backend = await declared(scene, Instances(0).script, concurrency=None)
        assert (await scene.call()).status == 503
        assert len(backend.seen) == 1


async def test_the_models_own_cap_stays():
    async with Scene(**{"limits.queue_wait_s": "30"}) as scene:
        instances = Instances(16, work_s=0.01)
        await declared(scene, instances.script, concurrency=16, policy=Policy(max_in_flight=3))
        assert await call_all(scene, 60) == {200: 60}
        assert instances.most <= 3


async def test_what_is_learnt_is_told():
    async with Scene() as scene:
        await declared(scene, Instances(1).script, concurrency=1)
        assert await call_all(scene, 20) == {200: 20}
        state = scene.gateway.telemetry.metrics.live_state()
        assert state.gauges["chips_model_window_requests"]["wine"] >= 1
        assert state.gauges["chips_model_queued_requests"] == {}
        assert set(state.counters["chips_backend_refusals_total"]) <= {"wine"}
