"""The keeper of budgets: what counts for which, what a change of a budget does, and a store that is away."""

from datetime import date

import pytest

from gateway.core.budget import Budget, Period, parse_budget, period_days, period_end, reached_threshold
from gateway.core.model_updates import to_document
from gateway.core.prices import parse_prices
from gateway.core.principal import Principal
from gateway.cost.ledger import request_cost
from gateway.cost.registry_price_tables import read_default_prices, with_older_default_table
from gateway.cost.track_budgets import WARNINGS, BudgetKeeper, spending_by_budget
from gateway.cost.usage_documents import DailyUsage, Usage, UsageKey
from gateway.registry.base import Unavailable
from gateway.registry.memory import MemoryRegistry
from gateway.registry.snapshot import compile_snapshot
from gateway.telemetry.metrics import OTHER, RequestMetrics
from gateway.usage_from_metrics import usage_from_metrics
from tests.unit.cost.fleet import NOON, SIZE, FleetGateway, put_wine, remove_budget, set_budget
from tests.unit.telemetry.exchanges import make_exchange

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
    gateway.keeper.follow(compile_snapshot(await registry.load_mirrored()))
    assert not gateway.keeper.exhausted
    assert gateway.keeper.gauges() == {}


@pytest.mark.parametrize(
    ("changed", "refuses"),
    [
        (None, 0),
        (Budget(scope="model", name="wine", amount_micros=10**9, refuse=402), 0),
        (Budget(scope="model", name="wine", amount_micros=1), 0),
        (Budget(scope="model", name="wine", amount_micros=1, refuse=402, period="day"), 0),
        (Budget(scope="model", name="wine", amount_micros=2, refuse=429), 429),
    ],
)
async def test_calls_are_let_in_as_soon_as_a_change_allows_it(
    registry: MemoryRegistry, changed: Budget | None, refuses: int
):
    await set_budget(registry, Budget(scope="team", name="cellar", amount_micros=1, refuse=402))
    await set_budget(registry, CHEAP)
    gateway = await FleetGateway(registry).begin()
    gateway.serve()
    await gateway.interval()
    assert len(gateway.keeper.exhausted) == 2
    await (remove_budget(registry, CHEAP) if changed is None else set_budget(registry, changed))
    gateway.keeper.follow(compile_snapshot(await registry.load_mirrored()))
    found = gateway.keeper.exhausted.get(("model", "wine"))
    assert (found.budget.refuse if found is not None else 0) == refuses
    assert ("team", "cellar") in gateway.keeper.exhausted


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
    gateway = FleetGateway(registry, store=store)
    gateway.keeper.follow(compile_snapshot(await registry.load_mirrored()))
    await gateway.keeper.start()
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
    assert keeper.overflow_caller_labels(anybody) == (OTHER, "")
    keeper._ids = frozenset({"key:k", "team:t"})
    assert keeper.overflow_caller_labels(Principal(id="k", team="t")) == ("k", "t")
    assert keeper.overflow_caller_labels(Principal(id="t")) == (OTHER, "")
    assert keeper.overflow_caller_labels(anybody) == (f"{OTHER} (t)", "t")


def test_a_team_with_a_budget_takes_bounded_memory_however_many_callers_it_has():
    keeper = BudgetKeeper(MemoryRegistry(), FleetGateway(MemoryRegistry()).reporter)
    keeper._ids = frozenset({"team:t"})
    metrics = RequestMetrics(limit=5)
    metrics.overflow_caller_labels = keeper.overflow_caller_labels
    for number in range(100):
        exchange = make_exchange()
        exchange.principal = Principal(id=f"sso:{number}", team="t" if number % 2 else "")
        metrics.observe(exchange, 200)
    totals = usage_from_metrics(metrics)
    assert len(totals) <= 5 + 2
    assert sum(usage.requests for key, usage in totals.items() if key.team == "t") == 50
    assert len(metrics.live_state().labels) == 5


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


def test_requests_that_reach_no_backend_use_up_no_budget():
    """Anybody may send them, and could close a model for those who may call it."""
    prices, day = read_default_prices(), date(2026, 11, 28)
    budgets = [
        CHEAP,
        Budget(scope="team", name="cellar", amount_micros=1),
        Budget(scope="key", name="eve", amount_micros=1),
    ]
    refused = Usage(requests=10**9, refused=10**9, bytes_out=10**12)
    strangers = DailyUsage(day, UsageKey("wine", "1", "", ""), SIZE, refused)
    forbidden = DailyUsage(day, UsageKey("wine", "1", "eve", "cellar"), SIZE, refused)
    assert set(spending_by_budget(budgets, [strangers, forbidden], prices).values()) == {0}
    answered = Usage(requests=3, backend_us=3_000_000, bytes_out=900, reached=3)
    served = DailyUsage(day, UsageKey("wine", "1", "ana", "cellar"), SIZE, answered)
    limited = served._replace(usage=answered + Usage(requests=10**6, refused=10**6))
    spent = spending_by_budget(budgets, [strangers, forbidden, limited], prices)
    cost = request_cost(SIZE, answered, prices).total
    assert spent == {"model:wine": cost, "team:cellar": cost, "key:eve": 0}
    assert spent == spending_by_budget(budgets, [served], prices)


def test_a_refused_request_costs_one_fee_and_one_at_a_backend_costs_two():
    usage = Usage(requests=1_000_000, refused=999_999, backend_us=1, reached=1)
    fee = read_default_prices().cloud_run.per_million_requests * 1e6
    assert request_cost(SIZE, usage, read_default_prices()).requests == pytest.approx(fee, rel=1e-5)


async def test_a_day_that_could_not_be_read_after_its_end_is_not_settled(registry: MemoryRegistry):
    store = Away()
    await set_budget(registry, Budget(scope="model", name="wine", amount_micros=10**9))
    first, second = [await FleetGateway(registry, store=store).begin() for _ in range(2)]
    first.serve(10)
    await second.interval()
    await first.interval()
    store.away = True
    second.now += 86_400
    await second.interval()
    assert second.keeper.spent["model:wine"] == 0
    store.away = False
    await second.interval()
    assert second.keeper.spent["model:wine"] == pytest.approx(10 * 27.3, abs=3)


async def test_what_another_gateway_writes_when_the_store_is_back_is_counted(registry: MemoryRegistry):
    store = Away()
    await set_budget(registry, Budget(scope="model", name="wine", amount_micros=10**9))
    first, second = [await FleetGateway(registry, store=store).begin() for _ in range(2)]
    first.serve(10)
    first.reporter.collect_new_usage()
    store.away = True
    for gateway in (first, second):
        gateway.now += 86_400
        await gateway.interval()
    store.away = False
    await second.interval()
    await first.interval()
    await second.interval()
    assert second.keeper.spent["model:wine"] == pytest.approx(10 * 27.3, abs=3)
    second.now += 3600
    await second.interval()
    assert not second.keeper._documents.keys() - {date(2026, 11, 29)}, "now it is settled"


async def test_a_budget_that_is_changed_warns_again_and_only_once(
    registry: MemoryRegistry, caplog: pytest.LogCaptureFixture
):
    gateways = [FleetGateway(registry), FleetGateway(registry)]
    changes: list[tuple[int, Period, int]] = [
        (1, "day", 100),
        (100, "day", 50),
        (100, "month", 50),
        (1, "month", 100),
    ]
    for amount, period, level in changes:
        await set_budget(registry, Budget(scope="model", name="wine", amount_micros=amount, period=period))
        caplog.clear()
        for gateway in gateways:
            await gateway.begin()
            if not gateway.served:
                gateway.serve()
            await gateway.interval()
            await gateway.interval()
        assert caplog.text.count("has reached") == 1, caplog.text
        assert f"has reached {level} %" in caplog.text


@pytest.mark.parametrize(
    "note",
    [
        {"since": "2026-11-01", "period": "month", "amount_micros": 1, "level": "high"},
        {"since": "2026-11-01", "period": "month", "amount_micros": 1},
        {},
    ],
)
async def test_a_note_of_a_warning_may_hold_anything(
    registry: MemoryRegistry, caplog: pytest.LogCaptureFixture, note
):
    await registry.write_ephemeral(WARNINGS, "model:wine", note, expected=0)
    await set_budget(registry, Budget(scope="model", name="wine", amount_micros=1))
    gateway = await FleetGateway(registry).begin()
    gateway.serve()
    await gateway.interval()
    assert "has reached 100 %" in caplog.text


def test_prices_that_somebody_chose_are_not_replaced_by_those_of_a_new_version_of_chips():
    default = read_default_prices()
    older = parse_prices(to_document(default) | {"date": "2020-01-01", "region": "asia-south1"})
    newer = parse_prices(to_document(default) | {"date": "2030-01-01"})
    assert with_older_default_table([newer, older]) == (older, newer)
    assert with_older_default_table([newer]) == (default, newer)
    assert with_older_default_table([]) == (default,)


@pytest.mark.parametrize("day", ["20261130", "2026-W48-1", "2026-11-31", ""])
def test_the_date_of_prices_is_written_in_one_way(day: str):
    with pytest.raises(ValueError, match=r".+"):
        parse_prices(to_document(read_default_prices()) | {"date": day})
