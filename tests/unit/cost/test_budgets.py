"""The keeper of budgets: what counts for which, what a change of a budget does, and a store that is away."""

from datetime import date

import pytest

from gateway.core.budget import Budget, parse_budget, period_days, period_end, reached_threshold
from gateway.core.model_updates import to_document
from gateway.core.principal import Principal
from gateway.cost.budgets import BudgetKeeper
from gateway.registry.base import Unavailable
from gateway.registry.memory import MemoryRegistry
from gateway.registry.snapshot import compile_snapshot
from tests.unit.cost.fleet import NOON, FleetGateway, put_wine, remove_budget, set_budget

CHEAP = Budget(scope="model", name="wine", amount_micros=1, refuse=402)


@pytest.fixture
async def registry() -> MemoryRegistry:
    registry = MemoryRegistry()
    await put_wine(registry)
    return registry


@pytest.mark.parametrize(
    ("scope", "name", "counts"),
    [
        ("model", "wine", True),
        ("model", "beer", False),
        ("key", "ana", True),
        ("key", "cellar", False),
        ("team", "cellar", True),
        ("team", "ana", False),
    ],
)
async def test_what_counts_for_which_budget(registry: MemoryRegistry, scope, name, counts):
    budget = Budget(scope=scope, name=name, amount_micros=1, refuse=402)
    await set_budget(registry, budget)
    gateway = await FleetGateway(registry).begin()
    gateway.serve()
    await gateway.interval()
    assert bool(gateway.keeper.spent[budget.id]) is counts
    assert bool(gateway.keeper.exhausted) is counts


async def test_a_budget_that_only_warns_refuses_nothing(
    registry: MemoryRegistry, caplog: pytest.LogCaptureFixture
):
    await set_budget(registry, Budget(scope="model", name="wine", amount_micros=1))
    gateway = await FleetGateway(registry).begin()
    gateway.serve()
    await gateway.interval()
    gateway.serve()
    assert (gateway.served, gateway.refused) == (2, 0)
    assert "has reached 100 %" in caplog.text
    assert gateway.keeper.gauges()["chips_budget_spent_ratio"]["model:wine"] > 1


async def test_a_budget_that_is_raised_or_removed_lets_calls_in_again(registry: MemoryRegistry):
    await set_budget(registry, CHEAP)
    gateway = await FleetGateway(registry).begin()
    gateway.serve()
    await gateway.interval()
    assert gateway.keeper.exhausted
    await set_budget(registry, Budget(scope="model", name="wine", amount_micros=10**9, refuse=402))
    await gateway.begin()
    assert not gateway.keeper.exhausted
    await set_budget(registry, CHEAP)
    await gateway.begin()
    assert gateway.keeper.exhausted
    await remove_budget(registry, CHEAP)
    gateway.keeper.follow(compile_snapshot(await registry.load()))
    assert not gateway.keeper.exhausted
    assert gateway.keeper.gauges() == {}


class Away(MemoryRegistry):
    away = False

    async def list_ephemeral(self, kind):
        if self.away:
            raise Unavailable("not now")
        return await super().list_ephemeral(kind)

    async def write_ephemeral(self, *arguments, **fields):
        if self.away:
            raise Unavailable("not now")
        return await super().write_ephemeral(*arguments, **fields)


async def test_while_the_store_is_away_each_gateway_counts_its_own_and_the_last_of_the_others(
    registry: MemoryRegistry,
):
    store = Away()
    await set_budget(registry, Budget(scope="model", name="wine", amount_micros=100 * 27, refuse=402))
    first, second = [await FleetGateway(registry, store=store).begin() for _ in range(2)]
    first.serve(40)
    await first.interval()
    await second.interval()
    store.away = True
    second.serve(50)
    await second.interval()
    assert not second.keeper.exhausted
    second.serve(20)
    await second.interval()
    assert second.keeper.exhausted, "40 of the first, 70 of its own"
    store.away = False
    await second.interval()
    await first.interval()
    assert first.keeper.exhausted
    assert first.keeper.spent == second.keeper.spent


async def test_a_store_that_is_away_at_the_start_refuses_nothing_and_says_so(
    registry: MemoryRegistry, caplog: pytest.LogCaptureFixture
):
    store = Away()
    store.away = True
    await set_budget(registry, CHEAP)
    gateway = await FleetGateway(registry, store=store).begin()
    assert not gateway.keeper.exhausted
    assert "budgets are not known yet" in caplog.text


async def test_past_days_are_read_until_they_are_settled_and_then_never_again(registry: MemoryRegistry):
    read: list[str] = []

    class Noting(MemoryRegistry):
        async def list_ephemeral(self, kind):
            read.append(kind)
            return await super().list_ephemeral(kind)

    store = Noting()
    await set_budget(registry, Budget(scope="model", name="wine", amount_micros=10**9))
    gateway = FleetGateway(registry, store=store)
    for _ in range(2):  # 28 and 29 November
        gateway.serve(2)
        await gateway.reporter.write()
        gateway.now += 86_400
    gateway.serve(1)
    await gateway.begin()
    spent = gateway.keeper.spent["model:wine"]
    assert spent == pytest.approx(5 * 27.3, abs=3)
    read.clear()
    await gateway.interval()
    assert set(read) == {"usage-2026-11-30"}
    assert gateway.keeper.spent["model:wine"] == spent


def test_which_callers_are_counted_separately():
    keeper = BudgetKeeper(MemoryRegistry(), FleetGateway(MemoryRegistry()).reporter)
    anybody = Principal(id="x", team="t")
    assert not keeper.has_budget_for(anybody)
    keeper._separate = frozenset({("key", "k"), ("team", "t")})
    assert keeper.has_budget_for(anybody)
    assert keeper.has_budget_for(Principal(id="k"))
    assert not keeper.has_budget_for(Principal(id="t"))


@pytest.mark.parametrize(
    ("spent", "level"), [(0, 0), (49, 0), (50, 50), (79, 50), (80, 80), (99, 80), (100, 100), (500, 100)]
)
def test_thresholds(spent: int, level: int):
    assert reached_threshold(spent, 100) == level


def test_periods():
    assert period_days("day", date(2026, 11, 28)) == [date(2026, 11, 28)]
    assert len(period_days("month", date(2026, 11, 28))) == 28
    assert period_end("day", date(2026, 11, 28)) == NOON + 12 * 3600
    assert period_end("month", date(2026, 12, 31)) == period_end("day", date(2026, 12, 31))


@pytest.mark.parametrize(
    "change", [{"amount_micros": 0}, {"amount_micros": -5}, {"refuse": 403}, {"scope": "moon"}, {"name": ""}]
)
def test_a_budget_that_cannot_be_right(change):
    with pytest.raises(ValueError, match=r".+"):
        parse_budget(to_document(CHEAP) | change)
