"""Webhooks of rollouts: each step at least once, in order, under the same id, also when a controller dies in between."""

import asyncio
import contextlib
import itertools
from collections import Counter
from typing import Any

import msgspec
import pytest

from gateway.core.rollout_document import candidate_stable_split
from gateway.registry.base import Registry, Unavailable
from gateway.rollout.controller import RolloutController
from gateway.rollout.decision import abort
from gateway.rollout.step_webhook_delivery import DELIVERIES
from tests.unit.rollout.fleet import PLAN, Clock, Scene, rollout_of, tally, wine

HOOK = msgspec.structs.replace(PLAN, webhook="https://example.com/hook")


class Receiver:
    """Takes what is posted, unless `away`; then the sender is told so after each attempt."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, Any]]] = []
        self.away = False

    async def post(self, url: str, secret: str, identity: str, message: dict[str, Any]) -> bool:
        assert (url, secret) == ("https://example.com/hook", "s3cret")
        if not self.away:
            self.got.append((identity, message))
        return not self.away

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(identity, message["state"]) for identity, message in self.got]


@pytest.fixture
def scene(clock: Clock) -> Scene:
    return Scene(clock)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Receiver:
    receiver = Receiver()
    monkeypatch.setattr("gateway.rollout.webhook.post_webhook_with_retries", receiver.post)
    return receiver


async def _delivered(controller: RolloutController) -> None:
    while controller._webhooks._running:
        await asyncio.gather(*controller._webhooks._running.values(), return_exceptions=True)
        await asyncio.sleep(0)


async def test_each_step_is_told_once_with_its_evidence(
    scene: Scene, receiver: Receiver, caplog: pytest.LogCaptureFixture
):
    await scene.begin(HOOK)
    controller = scene.controller(secret="s3cret")
    await scene.turn(controller)
    await _delivered(controller)
    await scene.serve(controller, windows=1, errors=100)
    await _delivered(controller)
    for _ in range(3):
        await scene.turn(controller)
        await _delivered(controller)
    assert receiver.told == [("r1-1", "running"), ("r1-2", "returned")]
    message = receiver.got[1][1]
    assert (message["model"], message["version"], message["percent"], message["generation"]) == (
        "wine",
        "4",
        0,
        3,
    )
    assert message["evidence"]["errors"]["finding"] == "worse"
    assert "s3cret" not in caplog.text
    assert controller._webhooks.rollouts_with_due_webhooks([await scene.rollout()]) == []


async def test_without_a_secret_no_webhook_is_told_and_nothing_is_held_up(
    scene: Scene, receiver: Receiver, caplog: pytest.LogCaptureFixture
):
    await scene.begin(HOOK)
    controller = scene.controller()
    await scene.turn(controller)
    await scene.turn(controller)
    assert "set rollouts.webhook_secret_file" in caplog.text
    assert await scene.traffic() == {"3": 95, "4": 5}
    assert receiver.told == []


async def test_a_receiver_that_is_away_holds_nothing_up_and_gets_all_in_order_later(
    scene: Scene, receiver: Receiver
):
    await scene.begin(HOOK)
    receiver.away = True
    controller = scene.controller(secret="s3cret")
    await scene.turn(controller)
    await _delivered(controller)
    await scene.serve(controller, windows=1, errors=100)
    assert (await scene.rollout()).state == "returned"
    receiver.away = False
    await scene.turn(controller, seconds=10.0)
    await _delivered(controller)
    assert receiver.told == [], "not again at once"
    await scene.turn(controller, seconds=20.0)
    await _delivered(controller)
    assert receiver.told == [("r1-1", "running"), ("r1-2", "returned")]


async def test_what_a_person_did_is_told_as_well(scene: Scene, receiver: Receiver):
    await scene.begin(HOOK)
    controller = scene.controller(secret="s3cret")
    await scene.turn(controller)
    await _delivered(controller)
    rollout = await scene.rollout()
    await scene.write(abort(rollout, await scene.model(), "not today"), 2)
    await scene.turn(controller)
    await _delivered(controller)
    assert receiver.told == [("r1-1", "running"), ("r1-2", "aborted")]


async def test_what_is_left_of_an_earlier_rollout_is_told_before_the_next_one(
    scene: Scene, receiver: Receiver
):
    await scene.begin(HOOK)
    receiver.away = True
    controller = scene.controller(secret="s3cret")
    await scene.turn(controller)
    await scene.serve(controller, windows=1, errors=100)
    await _delivered(controller)
    receiver.away = False
    await scene.write(rollout_of(plan=HOOK, id="r2"), 3)
    other = scene.controller(secret="s3cret")
    await scene.turn(other)
    await scene.turn(other, seconds=11.0)
    await _delivered(other)
    await scene.turn(other)
    await _delivered(other)
    assert receiver.told == [("r1-1", "running"), ("r1-2", "returned"), ("r2-1", "running")]


async def test_a_webhook_that_was_mistyped_does_not_hold_up_the_one_of_the_next_rollout(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    told = []

    async def post(url: str, secret: str, identity: str, message: dict[str, Any]) -> bool:
        if url == "https://example.com/hook":
            told.append((identity, message["state"]))
        return url == "https://example.com/hook"

    monkeypatch.setattr("gateway.rollout.webhook.post_webhook_with_retries", post)
    await scene.begin(msgspec.structs.replace(PLAN, webhook="https://example.org/hook"))
    controller = scene.controller(secret="s3cret")
    await scene.turn(controller)
    await _delivered(controller)
    rollout = await scene.rollout()
    await scene.write(abort(rollout, await scene.model(), "a typing mistake"), 2)
    await scene.put(wine())
    await scene.write(rollout_of(plan=HOOK, id="r2"), 3)
    for _ in range(4):
        await scene.turn(controller, seconds=31.0)
        await _delivered(controller)
    assert told == [("r2-1", "running")]
    assert "told to nobody" in caplog.text


async def test_a_rollout_that_ended_in_a_registry_that_was_copied_is_not_told_again(
    scene: Scene, receiver: Receiver
):
    rollout = rollout_of(plan=HOOK)
    ended = abort(
        msgspec.structs.replace(rollout, position=0, traffic=candidate_stable_split(rollout, 5)),
        None,
        "long ago",
    )
    await scene.begin(HOOK)
    await scene.write(ended, 1)
    controller = scene.controller(secret="s3cret")
    await scene.turn(controller)
    await _delivered(controller)
    assert receiver.told == []
    assert await scene.registry.list_ephemeral(DELIVERIES) == ()


class Dying:
    """A registry whose user is gone after so many operations: before the last one takes effect, or after."""

    def __init__(self, registry: Registry, operations: int, *, after: bool) -> None:
        self._registry = registry
        self._left = operations
        self._after = after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._registry, name)

        async def call(*arguments: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left < 0 or (self._left == 0 and not self._after):
                raise Unavailable("dead")
            found = await method(*arguments, **options)
            if self._left == 0:
                raise Unavailable("dead")
            return found

        return call


@pytest.mark.parametrize("after", [False, True], ids=["before it takes effect", "after"])
async def test_controllers_die_at_each_operation_of_a_whole_rollout(
    scene: Scene, receiver: Receiver, after: bool
):
    """The first one at its first operation, the next one at its second, and so on, until the rollout is over and told.

    Each step is taken once and told at least once, in order; nothing is counted twice.
    """
    await scene.begin(HOOK)
    rollout = await scene.rollout()
    for number in itertools.count(1):
        controller = scene.controller(Dying(scene.registry, number, after=after), secret="s3cret")
        for seconds in (0.5, 11.0, 16.0, 16.0, 16.0, 16.0):
            rollout = await scene.rollout()
            if rollout.active:
                await scene.gateway.report(max(rollout.position, 0), candidate=tally(100), stable=tally(900))
            with contextlib.suppress(Unavailable):
                await scene.turn(controller, seconds=seconds)
            await _delivered(controller)
        rollout = await scene.rollout()
        if not rollout.active and not controller._webhooks.rollouts_with_due_webhooks([rollout]):
            break
        assert number < 60
    assert [step.percent for step in rollout.steps] == [5, 25, 100]
    assert rollout.state == "succeeded"
    told = Counter(identity for identity, _ in receiver.told)
    assert set(told) == {"r1-1", "r1-2", "r1-3"}
    assert [identity for identity, _ in receiver.told] == sorted(identity for identity, _ in receiver.told)
    requests = rollout.steps[-1].evidence["errors"]["candidate"][0]
    assert requests <= 100 * len(scene.gateway.windows)
