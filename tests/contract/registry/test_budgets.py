"""Budgets on each registry that gateways share: several gateways, one budget, and the bound that the page states."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.core.budget import Budget
from gateway.cost.track_budgets import WARNINGS
from gateway.registry.base import Registry
from gateway.registry.open_by_url import open_registry
from tests.unit.cost.fleet import NOON, SECOND, FleetGateway, put_wine, set_budget

REQUEST = SECOND + 0.8  # a second of an instance, and two requests: in millionths


@pytest.fixture(params=["sqlite", "firestore"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "firestore":
        address: str = request.getfixturevalue("firestore")
        return address
    return f"sqlite://{tmp_path}/registry.db"


@pytest.fixture
async def registries(url: str) -> AsyncIterator[list[Registry]]:
    """A connection for each of three gateways."""
    opened = [open_registry(url) for _ in range(3)]
    await put_wine(opened[0])
    yield opened
    for registry in opened:
        await registry.close()


async def test_a_fleet_exceeds_a_budget_by_two_intervals_at_most_and_a_restart_forgets_nothing(
    registries: list[Registry], caplog: pytest.LogCaptureFixture
):
    amount = round(100 * REQUEST)
    await set_budget(registries[0], Budget(scope="team", name="cellar", amount_micros=amount, refuse=402))
    fleet = [await FleetGateway(registry).begin() for registry in registries]
    each = 4  # requests of each gateway in an interval
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            for gateway in fleet:
                gateway.serve(each)
            for gateway in fleet:
                await gateway.interval()
    served = sum(gateway.served for gateway in fleet)
    assert 100 <= served <= 100 + 2 * each * len(fleet)
    assert all(gateway.refused for gateway in fleet)
    # Each threshold is said once, whichever gateway saw it.
    said = [record.getMessage() for record in caplog.records if "the budget of" in record.getMessage()]
    assert [text.split(" has reached ")[1].split(" %")[0] for text in said] == ["50", "80", "100"]

    for gateway in fleet:
        await gateway.reporter.stop()
    again = [
        await FleetGateway(registry, now=gateway.now).begin()
        for registry, gateway in zip(registries, fleet, strict=True)
    ]
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        for gateway in again:
            gateway.serve(5)
            await gateway.interval()
    assert [gateway.served for gateway in again] == [0, 0, 0], "from the first request on"
    assert "the budget of" not in caplog.text, "and nobody says it again"
    assert len(await registries[0].list_ephemeral(WARNINGS)) == 1


async def test_a_gateway_that_is_killed_loses_one_interval(registries: list[Registry]):
    amount = round(10 * REQUEST)
    await set_budget(registries[0], Budget(scope="key", name="ana", amount_micros=amount, refuse=429))
    killed = await FleetGateway(registries[0]).begin()
    killed.serve(6)
    await killed.interval()
    killed.serve(2)  # and it is gone: these two are not written
    another = await FleetGateway(registries[1]).begin()
    assert another.keeper.spent["key:ana"] == pytest.approx(6 * REQUEST, abs=2)
    for _ in range(6):
        another.serve(1)
        await another.interval()
    assert (another.served, another.refused) == (4, 2)


async def test_a_new_period_begins_with_nothing_spent(registries: list[Registry]):
    budget = Budget(scope="model", name="wine", amount_micros=round(2 * REQUEST), period="day", refuse=402)
    await set_budget(registries[0], budget)
    gateway = await FleetGateway(registries[0]).begin()
    gateway.serve(3)
    await gateway.interval()
    gateway.serve(1)
    assert gateway.refused == 1
    gateway.now = NOON + 12 * 3600
    await gateway.interval()
    gateway.serve(1)
    assert (gateway.served, gateway.keeper.spent["model:wine"]) == (4, 0)
