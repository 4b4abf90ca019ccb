"""`chips cost`, `chips budget`, `chips prices`: what they print adds up, and what they refuse."""

import asyncio
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.core.model_updates import to_document
from gateway.cost.ledger import IDLE
from gateway.cost.usage_documents import DailyUsageDocument, InstanceSize, Usage, UsageRow, usage_kind
from gateway.registry.base import BUDGETS, PRICES, Put
from gateway.registry.sqlite import SqliteRegistry
from tests.unit.cli.shell import Shell

MICROS = ("allocated", "kept_warm", "requests", "egress")


def write(path: Path, day: date, *rows: UsageRow, name: str = "g-0") -> None:
    async def work() -> None:
        registry = SqliteRegistry(path)
        body = to_document(DailyUsageDocument(gateway="g", rows=rows))
        await registry.write_ephemeral(usage_kind(day), name, body, expected=0)
        await registry.close()

    asyncio.run(work())


def row(model: str, caller: str, requests: int, seconds: float, team: str = "", **more: Any) -> UsageRow:
    usage = Usage(
        requests=requests, backend_us=round(seconds * 1e6), bytes_out=requests * 1000, reached=requests
    )
    return UsageRow(model=model, version="1", caller=caller, team=team, usage=usage, **more)


@pytest.fixture
def today(monkeypatch: pytest.MonkeyPatch) -> date:
    """One time for the whole test, however long it takes."""
    now = datetime.now(UTC) + timedelta(minutes=1)
    monkeypatch.setattr("gateway.cli.cost.environment_ledger.utc_now", lambda: now)
    return now.date()


@pytest.fixture
def used(shell: Shell, tmp_path: Path, today: date) -> Shell:
    shell.register("wine", "1", "--cpu", "2", "--memory", "4Gi", "--concurrency", "4", "--min-instances", "1")
    shell.register("beer")
    big = InstanceSize(cpu=2, memory_gib=4, concurrency=4, declared=True)
    write(
        tmp_path / "registry.db",
        today,
        row("wine", "ana", 1000, 333.3333333, "cellar", size=big),
        row("wine", "bea", 7, 1.234567, "bar", size=big),
        row("beer", "bea", 13, 0.1, "bar"),
    )
    write(tmp_path / "registry.db", today, row("wine", "ana", 500, 10, "cellar", size=big), name="h-0")
    return shell


@pytest.mark.parametrize("by", ["model", "version", "caller", "team", "day"])
def test_the_lines_add_up_to_the_same_total_whatever_they_are(used: Shell, by: str):
    report = used.ok("cost", "--by", by, "--json").json()
    total = report["total"]
    for field in ("requests", "refused", "failed", "bytes_in", "bytes_out"):
        assert sum(line[field] for line in report["lines"]) == total[field]
    for amount in total["micros"]:
        assert sum(line["micros"][amount] for line in report["lines"]) == total["micros"][amount]
    for line in [*report["lines"], total]:
        assert sum(line["micros"][amount] for amount in MICROS) == line["micros"]["total"]
        assert line["micros"]["used"] <= line["micros"]["allocated"]
    assert total["requests"] == 1520
    assert total["allocated_s"] == pytest.approx(344.667900, abs=1e-5)


def test_amounts_by_hand(used: Shell):
    lines = {line["name"]: line for line in used.ok("cost", "--by", "caller", "--json").json()["lines"]}
    per_s = 2 * 0.000024 + 4 * 0.0000025
    ana = lines["ana"]
    assert ana["micros"]["allocated"] == pytest.approx(343.3333333 * per_s * 1e6, abs=1)
    assert ana["micros"]["used"] == pytest.approx(343.3333333 * per_s * 1e6 / 4, abs=1)
    assert ana["micros"]["requests"] == 1500 * 2 * 0.4
    assert ana["micros"]["egress"] == round(1_500_000 / 1024**3 * 0.12 * 1e6)
    assert IDLE in lines


def test_people_read_a_table(used: Shell):
    ended = used.ok("cost")
    assert "total" in ended.out
    assert "beer@1 declares no size" in ended.out
    assert "list prices of" in ended.err


def test_budgets_are_set_listed_and_removed(used: Shell):
    key = used.ok("keys", "create", "app", "--team", "cellar", "--json").json()["id"]
    for words in (
        ("--model", "wine"),
        ("--team", "cellar", "--refuse", "402"),
        ("--key", key, "--period", "day"),
    ):
        used.ok("budget", "set", "0.02", *words)
    found = {one["scope"]: one for one in used.ok("budget", "list", "--json").json()}
    assert (found["key"]["name"], found["key"]["spent_micros"]) == (key, 0)
    assert found["team"]["refuse"] == 402
    team = next(
        line for line in used.ok("cost", "--by", "team", "--json").json()["lines"] if line["name"] == "cellar"
    )
    assert found["team"]["spent_micros"] == team["micros"]["total"]
    assert used.ok("budget", "set", "0.02", "--model", "wine", "--json").json()["changed"] is False
    assert "team cellar" in used.ok("cost").out
    used.ok("budget", "remove", "--team", "cellar", "--reason", "enough")
    assert used("budget", "remove", "--team", "cellar").code == 65
    changes = used.ok("history", "--kind", "budgets", "--json").json()
    assert (changes[0]["name"], changes[0]["action"]) == ("team:cellar", "delete")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("1",), 64),
        (("1", "--model", "wine", "--team", "x"), 64),
        (("much", "--model", "wine"), 64),
        (("0.0000001", "--model", "wine"), 64),
        (("NaN", "--model", "wine"), 64),
        (("0", "--model", "wine"), 65),
        (("-1", "--model", "wine"), 64),
        (("1e9999999", "--model", "wine"), 64),
        (("1e900000", "--model", "wine"), 65),
        (("1000000001", "--model", "wine"), 65),
        (("Infinity", "--model", "wine"), 64),
        (("1", "--model", "whine"), 65),
        (("1", "--team", "Not A Team"), 65),
        (("1", "--key", "0123456789ab"), 65),
    ],
)
def test_a_budget_that_could_count_nothing_is_refused(used: Shell, words: tuple[str, ...], code: int):
    assert used("budget", "set", *words).code == code
    assert used.ok("budget", "list", "--json").json() == []


def test_a_month_that_is_none(shell: Shell):
    for month in ("2026-13", "9999-12", "0000-01"):
        assert shell("cost", "--month", month).code == 64
    assert shell.ok("cost", "--month", "2020-01", "--json").json()["total"]["requests"] == 0


def test_environments_are_lines_of_one_report(
    used: Shell, today: date, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    other = tmp_path / "other.db"
    write(other, today, row("wine", "ana", 5, 1))
    (tmp_path / "environments.toml").write_text(
        f'[one]\nregistry = "{used.registry}"\n[two]\nregistry = "sqlite://{other}"\n'
        f'[three]\nregistry = "sqlite://{tmp_path}/elsewhere.db"\nfigures = "sqlite://{other}"\n'
        '[four]\nartifacts = "x"\n'
    )
    monkeypatch.setenv("CHIPS_ENVIRONMENTS", str(tmp_path / "environments.toml"))
    report = used.ok("cost", "--by", "environment", "--json").json()
    assert {line["name"]: line["requests"] for line in report["lines"]} == {"one": 1520, "two": 5, "three": 5}
    assert report["total"]["requests"] == 1530


def test_a_damaged_document_is_said_and_the_rest_is_counted(used: Shell, today: date, tmp_path: Path):
    async def damage() -> None:
        registry = SqliteRegistry(tmp_path / "registry.db")
        await registry.write_ephemeral(usage_kind(today), "x-0", {"rows": "none"}, expected=0)
        await registry.write(
            Put(kind=BUDGETS, name="model:wine", body={"scope": "moon"}, expected=0),
            Put(kind=PRICES, name="2026-11-29", body={"date": "2026-11-29"}, expected=0),
            author="somebody",
        )
        await registry.close()

    asyncio.run(damage())
    report = json.loads(used.ok("cost", "--json").out)
    assert report["total"]["requests"] == 1520
    assert len(report["problems"]) == 3
    assert used.ok("cost").out.count("not counted") == 3
    assert "2026-11-29" in used.ok("prices").out
