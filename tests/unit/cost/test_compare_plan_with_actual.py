"""A saved plan next to what came: the reasons add up to the difference, exactly."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cost.compare_plan_with_actual import SavedPlan, compare_plan
from gateway.cost.estimate import MONTH_S
from gateway.cost.ledger import make_ledger
from gateway.cost.registry_price_tables import read_default_prices
from gateway.cost.usage_documents import DailyUsage, InstanceSize, Usage, UsageKey
from tests.unit.cli.shell import Shell

PRICES = read_default_prices()
PLAN = SavedPlan(
    model="wine",
    rps=1,
    latency_s=0.1,
    response_bytes=1000,
    busy_share=1,
    concurrency=1,
    cpu=1,
    memory_gib=1,
    min_instances=0,
)


def entries(requests: int, backend_us: int, bytes_out: int, size: InstanceSize):
    usage = Usage(requests=requests, backend_us=backend_us, bytes_out=bytes_out, reached=requests)
    rows = [DailyUsage(date(2026, 11, 28), UsageKey("wine", "1", "ana", ""), size, usage)]
    return make_ledger(rows, [], (PRICES,))


@given(
    requests=st.integers(0, 10**9),
    backend_us=st.integers(0, 10**13),
    bytes_out=st.integers(0, 10**13),
    concurrency=st.integers(1, 80),
    elapsed_s=st.floats(1, MONTH_S),
)
def test_the_reasons_add_up(
    requests: int, backend_us: int, bytes_out: int, concurrency: int, elapsed_s: float
):
    size = InstanceSize(cpu=2, memory_gib=4, concurrency=concurrency)
    found = compare_plan(PLAN, entries(requests, backend_us, bytes_out, size), PRICES, elapsed_s)
    assert found.planned + sum(step.micros for step in found.steps) == found.actual


def test_what_came_as_planned_differs_by_the_spread_alone():
    requests = round(MONTH_S)
    came = entries(requests, requests * 100_000, requests * 1000, InstanceSize(declared=True))
    found = compare_plan(PLAN, came, PRICES, MONTH_S)
    *others, spread = found.steps
    assert [step.micros for step in others] == [0, 0, 0, 0]
    assert spread.micros == found.actual - found.planned


def test_each_reason_has_its_own_step():
    requests = round(2 * MONTH_S)
    came = entries(requests, requests * 50_000, requests * 1000, InstanceSize(cpu=2, declared=True))
    rate, latency, answers, size, _ = compare_plan(PLAN, came, PRICES, MONTH_S).steps
    assert rate.micros > 0
    assert "2 requests a second came, 1 were planned" in rate.why
    assert latency.micros < 0
    assert "the backend took 50 ms, 100 ms were planned" in latency.why
    assert answers.micros == 0
    assert size.micros > 0


def test_no_calls_at_all():
    found = compare_plan(PLAN, [], PRICES, 3600)
    assert found.actual == 0
    assert found.planned == -sum(step.micros for step in found.steps)
    assert "0 requests a second came" in found.steps[0].why


@pytest.mark.one_day
def test_the_commands(shell: Shell):
    assert shell("plan", "wine", "--rps", "1", "--latency", "1s", "--save").code == 65
    shell.register("wine")
    shell.ok("plan", "wine", "--rps", "1", "--latency", "1s", "--save")
    shell.ok("plan", "wine", "--rps", "2", "--latency", "1s", "--save", "--by", "bea")
    report = shell.ok("cost", "--json").json()
    (plan,) = report["plans"]
    assert plan["planned_micros"] > 0
    assert plan["planned_micros"] + sum(one["micros"] for one in plan["difference"]) == plan["actual_micros"]
    assert "were planned until now" in shell.ok("cost").out
    assert [one["author"] for one in shell.ok("history", "--kind", "plans", "--json").json()] == [
        "bea",
        "ana",
    ]


@pytest.mark.parametrize("month", ["2020-01", "2999-01"])
def test_a_month_without_a_day_until_now(shell: Shell, month: str):
    shell.register("wine")
    shell.ok("plan", "wine", "--rps", "1", "--latency", "1s", "--save")
    shell.ok("cost", "--month", month)
