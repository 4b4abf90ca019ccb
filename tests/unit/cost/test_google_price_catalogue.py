"""Prices from Google's catalogue: paged, tiered, in its units; what is not understood leaves the table as it was."""

from collections.abc import Callable
from typing import Any

import pytest

from gateway.core.prices import prices_at
from gateway.cost.google_price_catalogue import CatalogueError, read_catalogue
from gateway.cost.registry_price_tables import read_default_prices
from tests.unit.cli.shell import Shell
from tests.unit.cost.google_stand_in import Catalogue, catalogue, sku

BEFORE = read_default_prices()
RUN = "152E-C115-5142"


def read(stand_in: Catalogue, region: str = "europe-west1", currency: str = "USD") -> Any:
    with stand_in.api() as api:
        return read_catalogue(api, BEFORE, region=region, currency=currency, day="2026-12-01")


def test_prices_are_taken_from_all_pages_in_units_of_the_table():
    stand_in = Catalogue()
    found = read(stand_in)
    run = found.cloud_run
    assert (found.date, found.region) == ("2026-12-01", "europe-west1")
    assert run.cpu_active == pytest.approx(0.000025, rel=1e-9)
    assert run.memory_gib_active == pytest.approx(0.009 / 3600, rel=1e-9), "a price by the GiB and hour"
    assert (run.cpu_idle, run.memory_gib_idle) == (0.0000025, 0.0000025)
    assert (run.cpu_always, run.memory_gib_always) == (0.000018, 0.000002)
    assert run.per_million_requests == pytest.approx(0.4)
    assert (run.free_requests, run.free_cpu_s, run.free_memory_gib_s) == (2_000_000, 180_000, 360_000)
    assert (found.logging.gib, found.logging.free_gib) == (0.51, 50)
    assert found.firestore == BEFORE.firestore
    assert [query.get("pageToken") for _, path, query in stand_in.asked if RUN in path] == [
        None,
        "5",
        "10",
        "15",
    ]
    assert all(query["currencyCode"] == "USD" for _, _, query in stand_in.asked)


def test_another_region_has_its_own_prices():
    with pytest.raises(CatalogueError, match="in mars-north1 should be one SKU, and is: none"):
        read(Catalogue(), "mars-north1")
    assert read(Catalogue(), "europe-west3").cloud_run.cpu_active == pytest.approx(0.000034)


def _change(pick: str, change: Callable[[dict[str, Any]], Any]) -> Catalogue:
    skus = catalogue()
    for one in skus[RUN]:
        if one["description"] == pick and one["category"]["usageType"] == "OnDemand":
            change(one)
    return Catalogue(skus)


def _expression(one: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = one["pricingInfo"][-1]["pricingExpression"]
    return found


@pytest.mark.parametrize(
    ("stand_in", "reason"),
    [
        (
            _change("Requests", lambda one: one.update(description="Demands")),
            "should be one SKU, and is: none",
        ),
        (_change("Requests", lambda one: one.update(pricingInfo=[])), "has no price"),
        (
            _change("Requests", lambda one: _expression(one).update(baseUnit="h")),
            "priced by 'h', not by 'count'",
        ),
        (_change("Requests", lambda one: _expression(one).update(tieredRates=[])), "costs nothing"),
        (_change("Requests", lambda one: _expression(one).update(baseUnitConversionFactor=0)), "priced by"),
        (
            _change(
                "Requests",
                lambda one: _expression(one)["tieredRates"][0]["unitPrice"].update(currencyCode="EUR"),
            ),
            "priced in 'EUR', not in USD",
        ),
        (
            _change(
                "Requests", lambda one: _expression(one)["tieredRates"][1]["unitPrice"].update(units="x")
            ),
            "is no amount",
        ),
        (
            Catalogue(
                {**catalogue(), RUN: [*catalogue()[RUN], sku("Requests", ["global"], 500, "count", "count")]}
            ),
            "should be one SKU, and is: ",
        ),
    ],
)
def test_what_is_not_understood_is_an_error(stand_in: Catalogue, reason: str):
    with pytest.raises(CatalogueError, match=reason):
        read(stand_in)


@pytest.mark.parametrize(
    "broken",
    [
        (403, {"error": {"code": 403, "message": "not enabled"}}),
        (500, b"oops"),
        (200, []),
        (200, {"skus": 5}),
    ],
)
@pytest.mark.parametrize("number", [0, 2])
def test_a_failure_keeps_the_last_good_table(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, broken: tuple[int, Any], number: int
):
    stand_in = Catalogue()
    with stand_in.running() as address:
        monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDBILLING", address)
        shell.ok("prices", "update", "--by", "ana")
        before = shell.ok("prices", "--json").json()
        stand_in.broken = {len(stand_in.asked) + number: broken}
        ended = shell("prices", "update")
        assert ended.code == 69
        assert "stays in force" in ended.err
        assert shell.ok("prices", "--json").json() == before


@pytest.mark.one_day
def test_the_command_writes_a_table_of_today_once(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    with Catalogue().running() as address:
        monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDBILLING", address)
        planned = shell.ok("prices", "update", "--dry-run", "--json").json()
        assert planned["written"] is False
        assert "cloud_run.cpu_active: 2.4e-05 → 2.5e-05" in planned["changes"]
        assert len(shell.ok("prices", "--json").json()) == 1
        assert shell.ok("prices", "update", "--currency", "usd", "--json").json()["written"] is True
        assert shell.ok("prices", "update", "--json").json()["written"] is False
    tables = shell.ok("prices", "--json").json()
    assert [table["cloud_run"]["cpu_active"] for table in tables] == [0.000024, 0.000025]
    assert "cpu_active 0.000025" in shell.ok("prices").out
    (change,) = shell.ok("history", "--kind", "prices", "--json").json()
    assert change["reason"] == "chips prices update"
    shell.register("wine")
    assert (
        shell.ok("plan", "wine", "--rps", "1", "--latency", "1s", "--json").json()["prices_of"]
        == tables[1]["date"]
    )


def test_each_day_has_the_table_that_was_in_force():
    from datetime import date

    import msgspec

    later = msgspec.structs.replace(BEFORE, date="2026-12-10")
    tables = (later, BEFORE)
    assert prices_at(tables, date(2020, 1, 1)) is BEFORE
    assert prices_at(tables, date(2026, 12, 9)) is BEFORE
    assert prices_at(tables, date(2026, 12, 10)) is later
