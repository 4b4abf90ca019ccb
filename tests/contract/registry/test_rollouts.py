"""A rollout on each registry that is shared by processes: steps, returns, a lease, and two that would act at once."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.core.version_evidence import CANARY
from gateway.registry.base import MODELS, ROLLOUTS
from gateway.registry.evidence_records import read_evidence
from gateway.registry.open_by_url import open_registry
from gateway.rollout.lease import LEASE, Lease
from gateway.rollout.request_count_reporter import FIGURES
from tests.unit.rollout.fleet import Clock, Scene


@pytest.fixture(params=["sqlite", "firestore"])
async def scene(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scene]:
    if request.param == "firestore":
        url = request.getfixturevalue("firestore")
    else:
        url = f"sqlite://{tmp_path}/registry.db"
    registry = open_registry(url)
    yield Scene(Clock(), registry)
    await registry.close()


async def test_a_good_version_goes_to_100_percent_and_a_second_controller_takes_over(scene: Scene):
    await scene.begin()
    first, second = scene.controller(), scene.controller()
    await scene.turn(first, second)
    await scene.serve(first, windows=3)
    await scene.turn(second)  # sees the lease, and that nobody renews it from here on
    await scene.turn(second, seconds=11.0)
    await scene.serve(second, windows=40)
    rollout = await scene.rollout()
    assert rollout.state == "succeeded"
    assert await scene.traffic() == {"3": 0, "4": 100}
    assert [step.percent for step in rollout.steps] == [5, 25, 100]
    assert first.steps["wine"] + second.steps["wine"] == 3
    record = await read_evidence(scene.registry, "wine", "4", CANARY)
    assert record is not None
    assert record.passed
    newest = {change.kind: change.generation for change in reversed(await scene.registry.history())}
    assert newest[MODELS] == newest[ROLLOUTS]
    assert await scene.registry.list_ephemeral(FIGURES) == ()


async def test_a_version_that_fails_returns(scene: Scene):
    await scene.begin()
    controller = scene.controller()
    await scene.turn(controller)
    await scene.serve(controller, windows=2, errors=30)
    assert (await scene.rollout()).state == "returned"
    assert await scene.traffic() == {"3": 100, "4": 0}


async def test_a_lease_has_one_holder(scene: Scene):
    leases = [Lease(scene.registry, LEASE, name, clock=scene.clock) for name in ("a", "b", "c")]
    assert [await lease.acquire_or_renew() for lease in leases] == [True, False, False]
    scene.clock.now += 11
    taken = [await lease.acquire_or_renew() for lease in leases[1:]]
    assert taken == [True, False]
    assert not await leases[0].acquire_or_renew()
