"""The closed form: its limits, its directions, and one figure worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cost.estimate import MONTH_S, InstanceSettings, TrafficLoad, estimate_cost
from gateway.cost.registry_price_tables import read_default_prices
from tests.unit.cli.shell import Shell

PRICES = read_default_prices()
ONE = InstanceSettings(concurrency=1, cpu=1, memory_gib=1)

rates = st.floats(0.001, 500)
latencies = st.floats(0.001, 5)


def part(name: str, load: TrafficLoad, deployment: InstanceSettings) -> float:
    return next(p.amount for p in estimate_cost(load, deployment, PRICES).parts if p.name == name)


def test_nobody_calls_and_nothing_is_kept_costs_the_artifact_alone():
    found = estimate_cost(TrafficLoad(rps=0, latency_s=1), ONE, PRICES)
    assert found.instances == 0
    assert {p.name for p in found.parts if p.amount} == {"artifact"}


def test_one_warm_instance_that_nobody_calls_costs_its_idle_price():
    run = PRICES.cloud_run
    deployment = ONE._replace(min_instances=1)
    expected = MONTH_S * (run.cpu_idle + run.memory_gib_idle)
    assert part("kept warm", TrafficLoad(rps=0, latency_s=1), deployment) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rps", "concurrency", "busy"),
    [
        # 100 ms each. One at a time never overlaps, so each second of work is billed: 0.6 of the month.
        (6, 1, 0.6),
        # 1.2 under way in one instance of two: none is there for 1 / (1 + 1.2 + 1.2² / 2 / (1 - 1.2 / 2)) = 25 % of the month.
        (12, 2, 0.75),
        # 12 under way in 20 instances of one: as many seconds as of work.
        (120, 1, 12.0),
        # So many at once that none waits for another: 1 - e^-0.6 = 45.1 %.
        (6, 80, 0.45119),
    ],
)
def test_a_full_month_by_hand(rps: float, concurrency: int, busy: float):
    run = PRICES.cloud_run
    expected = MONTH_S * busy * (run.cpu_active + run.memory_gib_active)
    deployment = ONE._replace(concurrency=concurrency)
    assert part("computing", TrafficLoad(rps=rps, latency_s=0.1), deployment) == pytest.approx(
        expected, rel=1e-4
    )


@given(rates, latencies)
def test_computing_is_bounded_by_one_request_at_a_time_and_by_all_instances_always(
    rps: float, latency_s: float
):
    load = TrafficLoad(rps=rps, latency_s=latency_s)
    found = estimate_cost(load, ONE, PRICES)
    rate = PRICES.cloud_run.cpu_active + PRICES.cloud_run.memory_gib_active
    cost = part("computing", load, ONE)
    assert cost <= found.instances * MONTH_S * rate * (1 + 1e-9)
    assert cost <= rps * latency_s * MONTH_S * rate * (1 + 1e-9), (
        "requests that overlap in an instance share it"
    )


@given(rates, latencies, st.integers(1, 80))
def test_more_at_once_never_costs_more(rps: float, latency_s: float, concurrency: int):
    load = TrafficLoad(rps=rps, latency_s=latency_s)
    more = ONE._replace(concurrency=concurrency + 1)
    assert part("computing", load, more) <= part("computing", load, ONE._replace(concurrency=concurrency)) * (
        1 + 1e-9
    )


@given(rates, latencies)
def test_twice_the_calls_never_cost_less(rps: float, latency_s: float):
    once = estimate_cost(TrafficLoad(rps=rps, latency_s=latency_s), ONE, PRICES).total
    assert estimate_cost(TrafficLoad(rps=2 * rps, latency_s=latency_s), ONE, PRICES).total >= once


def test_the_command(tmp_path, monkeypatch, capsys):
    shell = Shell(tmp_path, monkeypatch, capsys)
    shell.register("wine", "1", "--concurrency", "4")
    found = shell.ok("plan", "wine", "--rps", "5", "--latency", "40ms", "--json").json()
    assert found["concurrency"] == 4
    assert found["total"] == pytest.approx(sum(found["parts"].values()), abs=0.01)
    assert "a month" in shell.ok("plan", "wine", "--rps", "5", "--latency", "40ms").out
    assert shell.ok("plan", "new", "--rps", "1", "--latency", "1s", "--json").json()["concurrency"] == 1
    for wrong, code in (
        (("--rps", "1", "--latency", "40"), 64),
        (("--rps", "1", "--latency", "1s", "--memory", "big"), 64),
        (("--rps", "inf", "--latency", "1s"), 64),
        (("--rps", "1", "--latency", "1s", "--memory", "0", "--save"), 65),
        (("--rps", "1", "--latency", "1s", "--memory", "99999Gi", "--save"), 65),
    ):
        assert shell("plan", "wine", *wrong).code == code
