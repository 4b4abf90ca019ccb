"""What `chips cost` must never add up: two currencies, one bill or one store twice, two sizes as one, prices of a day to come."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.cli.cost.environment_ledger import read_ledger
from gateway.core.budget import Budget
from gateway.core.model import Backend, Model, Resources
from gateway.core.model_updates import to_document
from gateway.core.prices import parse_prices, tables_in_currency_at
from gateway.cost.ledger import make_ledger, warm_instances
from gateway.cost.registry_price_tables import read_default_prices, with_older_default_table
from gateway.cost.usage_documents import (
    DailyUsage,
    DailyUsageDocument,
    InstanceSize,
    Usage,
    UsageKey,
    UsageRow,
    usage_kind,
)
from gateway.registry.base import MODELS, PRICES, Change, Put
from gateway.registry.memory import MemoryRegistry
from gateway.registry.sqlite import SqliteRegistry
from gateway.settings import load_settings
from tests.unit.cli.shell import Shell
from tests.unit.cost.fleet import FleetGateway, set_budget
from tests.unit.cost.google_stand_in import BigQuery
from tests.unit.cost.test_billing_export import TABLE, line

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def table(day: str, currency: str = "EUR", factor: float = 1.0) -> dict[str, Any]:
    document: dict[str, Any] = to_document(read_default_prices())
    document["cloud_run"]["cpu_active"] *= factor
    return {**document, "date": day, "currency": currency}


async def _put(path: Path, tables: list[dict[str, Any]], days: tuple[date, ...]) -> None:
    registry = SqliteRegistry(path)
    for body in tables:
        await registry.write(Put(kind=PRICES, name=body["date"], body=body, expected=0), author="x")
    for day in days:
        usage = Usage(requests=10, backend_us=100_000_000, reached=10)
        rows = (UsageRow(model="wine", version="1", caller="ana", team="cellar", usage=usage),)
        body = to_document(DailyUsageDocument(gateway="g", rows=rows))
        await registry.write_ephemeral(usage_kind(day), "g-0", body, expected=0)
    await registry.close()


@pytest.fixture
def shop(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A registry on the 28th, with calls on the 5th and the 27th."""
    monkeypatch.setattr("gateway.cli.cost.environment_ledger.utc_now", lambda: NOW)
    shell.register("wine")
    return shell


def put(shop: Shell, *tables: dict[str, Any], days: tuple[int, ...] = (5, 27)) -> None:
    path = Path(shop.registry.removeprefix("sqlite://"))
    asyncio.run(_put(path, list(tables), tuple(date(2026, 11, day) for day in days)))


def test_a_month_of_two_currencies_is_refused_and_one_of_a_single_currency_is_not(shop: Shell):
    put(shop, table("2026-10-01", "USD"), table("2026-11-20"))
    shop.ok("budget", "set", "5", "--team", "cellar")
    ended = shop("cost")
    assert ended.code == 65
    assert "EUR and USD, which do not add up" in ended.err
    report = shop.ok("cost", "--month", "2026-10", "--json").json()
    assert (report["currency"], report["prices"]) == ("USD", ["2026-10-01"])
    assert report["budgets"] == []
    assert "they are in EUR" in report["problems"][0]
    # Budgets go on, as at the gateways: all of the month counts at the prices in the currency in force.
    told = shop.ok("budget", "list")
    assert "all of it is counted at those in EUR" in told.out + told.err
    ended = shop.ok("budget", "list", "--json").json()[0]
    assert ended["spent_micros"] == 2 * (round(100e6 * (0.000024 + 0.0000025)) + 8)


def test_a_registry_whose_prices_are_in_euros_has_a_report_in_euros(shop: Shell):
    put(shop, table("2026-11-27"))
    report = shop.ok("cost", "--json").json()
    assert (report["currency"], report["prices"]) == ("EUR", ["2026-11-27"])
    assert report["total"]["requests"] == 20
    assert "EUR" in shop.ok("cost").err


def test_prices_of_a_day_to_come_are_not_in_force(shop: Shell):
    put(shop, table("2026-01-01", "USD"), table("2999-01-01", "USD", factor=100))
    told = shop.ok("prices")
    assert "of 2026-01-01" in told.out
    assert "from 2999-01-01 on" in told.err
    plan = shop.ok("plan", "wine", "--rps", "1", "--latency", "1s", "--json").json()
    assert plan["prices_of"] == "2026-01-01"
    assert shop.ok("cost", "--json").json()["prices"] == ["2026-01-01"]


async def test_a_gateways_budgets_add_up_one_currency_only():
    registry = MemoryRegistry()
    for body in (table("2026-11-01", "USD"), table("2026-11-27", "EUR", factor=2)):
        await registry.write(Put(kind=PRICES, name=body["date"], body=body, expected=0), author="x")
    await set_budget(registry, Budget(scope="model", name="wine", amount_micros=10**9))
    gateway = await FleetGateway(registry, now=datetime(2026, 11, 5, 12, tzinfo=UTC).timestamp()).begin()
    gateway.serve(2)
    await gateway.interval()
    in_dollars = gateway.keeper.spent["model:wine"]
    gateway.now = NOW.timestamp()
    gateway.serve(2)
    await gateway.interval()
    in_euros = gateway.keeper.spent["model:wine"]
    # The 5th, too, counts in euros: two seconds of work each day, at twice the price of a processor.
    assert in_euros == 2 * (round(2e6 * (2 * 0.000024 + 0.0000025)) + 2)
    assert in_dollars == round(2e6 * (0.000024 + 0.0000025)) + 2


def test_the_built_in_table_is_left_out_where_prices_are_in_another_currency():
    euros = parse_prices(table("2030-01-01"))
    assert with_older_default_table([euros]) == (euros,)
    dollars = parse_prices(table("2020-01-01", "USD"))
    assert tables_in_currency_at([euros, dollars], date(2026, 1, 1)) == (dollars,)
    assert tables_in_currency_at([euros, dollars], date(2030, 1, 1)) == (euros,)


@pytest.mark.parametrize("currency", ["", "US$", "dollars", "ÜSD", "\u0131qd"])
def test_a_currency_is_three_letters(currency: str):
    with pytest.raises(ValueError, match="not a currency"):
        parse_prices(table("2026-11-30", currency))


def test_a_currency_in_lower_case_is_the_same_one(shop: Shell, tmp_path: Path):
    parsed = parse_prices(table("2026-11-30", "eur"))
    assert parsed == parse_prices(table("2026-11-30", "EUR"))
    declared = {"chips": 1, "prices": {"2026-11-30": table("2026-11-30", "usd")}}
    (tmp_path / "prices.yaml").write_text(yaml.safe_dump(declared))
    shop.ok("import", "prices.yaml", "--yes")
    found = shop.ok("prices", "--json").json()
    assert {one["currency"] for one in found} == {"USD"}
    assert "2026-11-30" in {one["date"] for one in found}


def test_environments_of_one_project_have_one_bill(
    shop: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "environments.toml").write_text(
        f'[dev]\nproject = "lab"\nregistry = "sqlite://{tmp_path}/dev.db"\n'
        f'[qa]\nproject = "lab"\nregistry = "sqlite://{tmp_path}/qa.db"\n'
        f'[prod]\nproject = "shop"\nregistry = "{shop.registry}"\n'
    )
    monkeypatch.setenv("CHIPS_ENVIRONMENTS", str(tmp_path / "environments.toml"))
    monkeypatch.setenv("CHIPS_COST__BILLING_TABLE", TABLE)
    at = NOW.isoformat()
    lines = [line(1.5, at=at, loaded=at), line(0.25, at=at, loaded=at, project="lab")]
    with BigQuery(TABLE, lines).running() as address:
        monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_BIGQUERY", address)
        bill = shop.ok("cost", "--by", "environment", "--json").json()["billed"]
        prod = shop.ok("--env", "prod", "cost", "--json").json()["billed"]
    assert bill["by"] == {"dev, qa": 250_000, "prod": 1_500_000}
    assert bill["total_micros"] == 1_750_000
    assert prod["total_micros"] == 1_500_000


def test_two_names_of_one_environment_are_one_line(
    shop: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    put(shop)
    shop.ok("budget", "set", "1", "--model", "wine")
    (tmp_path / "environments.toml").write_text(
        f'[prod]\nregistry = "{shop.registry}"\n[live]\nregistry = "{shop.registry}"\n'
        f'[eu]\nregistry = "sqlite://{tmp_path}/eu.db"\nfigures = "{shop.registry}"\n'
    )
    monkeypatch.setenv("CHIPS_ENVIRONMENTS", str(tmp_path / "environments.toml"))
    report = shop.ok("cost", "--by", "environment", "--json").json()
    assert {one["name"]: one["requests"] for one in report["lines"]} == {"prod, live": 20, "eu": 20}
    assert [one["environment"] for one in report["budgets"]] == ["prod, live"]
    assert report["warnings"] == [
        "eu: its calls are counted for prod, live as well: both have one store of figures"
    ]


def test_a_day_on_which_a_version_was_resized_is_priced_by_both_sizes():
    def change(hour: int, cpu: float) -> Change:
        backend = Backend(
            version="1", url="http://a", resources=Resources(cpu=cpu, memory_gib=1, min_instances=1)
        )
        body = to_document(Model(name="wine", backends=(backend,), traffic={"1": 100}))
        at = datetime(2026, 11, 5, hour, tzinfo=UTC).isoformat()
        return Change(
            generation=hour,
            revision=hour,
            kind=MODELS,
            name="wine",
            action="update",
            before=None,
            after=body,
            author="x",
            reason="",
            at=at,
        )

    day = date(2026, 11, 5)
    warm = warm_instances([change(0, 8), change(23, 1)], [day], NOW)
    assert sorted((kept.size.cpu, kept.seconds) for kept in warm) == [(1.0, 3600.0), (8.0, 23 * 3600.0)]
    busy = Usage(requests=1, backend_us=1_800_000_000, reached=1)
    large = InstanceSize(cpu=8, memory_gib=1, declared=True)
    rows = [DailyUsage(day, UsageKey("wine", "1", "ana", ""), large, busy)]
    prices = read_default_prices()
    idle = sum(entry.cost.idle for entry in make_ledger(rows, warm, [prices]))
    run = prices.cloud_run
    expected = sum(
        seconds * (cpu * run.cpu_idle + run.memory_gib_idle)
        for cpu, seconds in ((8, 23 * 3600 - 1800), (1, 3600))
    )
    assert idle == pytest.approx(expected * 1e6, abs=2)


def test_a_budget_of_a_team_that_nobody_is_in_is_set_with_a_warning(shell: Shell):
    shell.register("wine")
    shell.ok("keys", "create", "app", "--team", "cellar")
    ended = shell.ok("budget", "set", "5", "--team", "celar")
    assert "no key in the registry" in ended.err
    assert "did you mean cellar?" in ended.err
    assert shell.ok("budget", "set", "5", "--team", "celar", "--json").json()["warning"]
    assert "no key" not in shell.ok("budget", "set", "5", "--team", "cellar", "--note", "wine bar").err
    assert "wine bar" in shell.ok("budget", "list").out


def test_the_key_that_replaces_another_one_has_the_same_budget(shell: Shell):
    old = shell.ok("keys", "create", "app", "--json").json()["id"]
    shell.ok("budget", "set", "5", "--key", old, "--refuse", "402")
    new = shell.ok("keys", "rotate", old, "--json").json()["id"]
    found = {one["name"]: one for one in shell.ok("budget", "list", "--json").json()}
    assert set(found) == {old, new}
    assert (found[new]["amount_micros"], found[new]["refuse"]) == (5_000_000, 402)


def test_tomorrows_table_does_not_change_what_today_is_priced_by(shop: Shell):
    tomorrow = (NOW + timedelta(days=1)).date().isoformat()
    put(shop, table("2026-11-01", "USD"), table(tomorrow, "USD", factor=100))
    assert shop.ok("cost", "--json").json()["prices"] == ["2026-11-01"]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"registry": "firestore://my-shop/chips"}, 1),
        ({"registry": "firestore://my-shop/chips", "rollouts.figures": "firestore://my-shop/figures"}, 0),
        ({}, 0),
    ],
)
async def test_no_usage_at_all_is_told_where_the_store_of_figures_is_not_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: dict[str, str], told: int
):
    """There gateways may only read the registry, so nothing is not what the calls cost."""
    settings = load_settings(flags={"registry": f"sqlite://{tmp_path}/r.db"} | flags, environ={})
    figures = MemoryRegistry()
    monkeypatch.setattr("gateway.cli.support.open_figures_store.open_registry", lambda _: figures)
    ledger = await read_ledger(MemoryRegistry(), settings, "2026-11")
    assert len(ledger.warnings) == told
    assert all("rollouts.figures" in warning for warning in ledger.warnings)
