"""A lease: one holder, another one when it is gone, whatever the clocks say."""

import pytest

from gateway.registry.base import Registry, Unavailable
from gateway.rollout.lease import Lease
from tests.unit.rollout.fleet import Clock, shared_registry


def _lease(registry: Registry, holder: str, clock: Clock) -> Lease:
    return Lease(registry, "rollouts", holder, ttl_s=10.0, clock=clock)


async def test_one_of_two_holds_it(clock: Clock):
    registry = shared_registry()
    a, b = _lease(registry, "a", clock), _lease(registry, "b", clock)
    assert await a.acquire_or_renew()
    assert a.is_held
    assert not await b.acquire_or_renew()
    assert not b.is_held


async def test_a_holder_that_is_gone_is_replaced_and_one_that_renews_is_not(clock: Clock):
    registry = shared_registry()
    a, b = _lease(registry, "a", clock), _lease(registry, "b", clock)
    await a.acquire_or_renew()
    for _ in range(10):
        clock.now += 4
        assert await a.acquire_or_renew()
        assert not await b.acquire_or_renew()
    clock.now += 9.9
    assert not await b.acquire_or_renew()
    clock.now += 0.2
    assert await b.acquire_or_renew()
    assert b.is_held
    assert not a.is_held
    assert not await a.acquire_or_renew()


async def test_a_holder_that_could_not_renew_stops_acting_before_another_can_take_over(clock: Clock):
    registry = shared_registry()
    a, b = _lease(registry, "a", clock), _lease(registry, "b", clock)
    await a.acquire_or_renew()
    await b.acquire_or_renew()
    clock.now += 5.0
    assert not a.is_held
    assert not await b.acquire_or_renew()


async def test_clocks_of_different_machines_are_never_compared():
    registry = shared_registry()
    early, late = Clock(), Clock()
    late.now += 1_000_000
    a, b = _lease(registry, "a", early), _lease(registry, "b", late)
    await a.acquire_or_renew()
    assert not await b.acquire_or_renew()
    early.now += 4
    late.now += 4
    assert await a.acquire_or_renew()
    late.now += 8
    assert not await b.acquire_or_renew()  # the last renewal was seen just now


async def test_a_lease_that_is_given_back_is_taken_at_once(clock: Clock):
    registry = shared_registry()
    a, b = _lease(registry, "a", clock), _lease(registry, "b", clock)
    await a.acquire_or_renew()
    await a.release()
    assert not a.is_held
    assert await b.acquire_or_renew()
    assert not await a.acquire_or_renew()
    await a.release()  # not its to give
    assert b.is_held


async def test_a_registry_that_is_away_gives_no_lease(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    registry = shared_registry()
    a = _lease(registry, "a", clock)
    await a.acquire_or_renew()

    async def away(*_: object, **__: object) -> object:
        raise Unavailable("away")

    monkeypatch.setattr(registry, "list_ephemeral", away)
    clock.now += 3
    with pytest.raises(Unavailable):
        await a.acquire_or_renew()
    clock.now += 3
    assert not a.is_held
