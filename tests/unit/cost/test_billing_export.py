"""Google's bill: the query as BigQuery would run it, on the export's schema, and what `chips cost` makes of it."""

from datetime import datetime
from typing import Any

import pytest
import sqlglot

from gateway.cost.billing_export import QUERY, BilledAmount, BillingError, read_billing, version_as_label
from gateway.cost.usage_documents import month_days
from tests.unit.cli.shell import Shell
from tests.unit.cost.google_stand_in import BigQuery

TABLE = "billing-admin.export.gcp_billing_export_v1_0123AB_CD"
MONTH = month_days("2026-11")


def line(
    cost: float, *, at: str = "2026-11-15T10:00:00+00:00", model: str = "wine", **more: Any
) -> dict[str, Any]:
    """One line of the export."""
    labels = [{"key": "chips-model", "value": model}, {"key": "chips-version", "value": "1"}] if model else []
    return {
        "_PARTITIONTIME": more.get("loaded", "2026-11-16T00:00:00+00:00"),
        "usage_start_time": at,
        "service": {"id": "152E-C115-5142", "description": more.get("service", "Cloud Run")},
        "sku": {"id": "1", "description": "Services CPU (Request-based billing)"},
        "project": {"id": more.get("project", "shop"), "number": "1", "name": "Shop"},
        "labels": [{"key": "team", "value": "x"}, *labels],
        "cost": cost,
        "currency": "USD",
        "credits": [
            {"name": "free", "amount": amount, "full_name": "free", "id": "f", "type": "FREE_TIER"}
            for amount in more.get("credits", ())
        ],
    }


LINES = [
    line(1.25),
    line(0.1, credits=(-0.05, -0.03)),
    line(0.2, at="2026-11-30T23:59:59+00:00", loaded="2026-12-03T00:00:00+00:00"),
    line(0.4, at="2026-11-01T00:00:00+00:00", loaded="2026-11-01T00:00:00+00:00"),
    line(7, at="2026-12-01T00:00:00+00:00", loaded="2026-12-01T00:00:00+00:00"),
    line(8, at="2026-10-31T23:00:00+00:00"),
    line(9, project="another"),
    line(0.000001, model="beer"),
    line(2.5, model="", service="Networking"),
    line(0.5, model=""),
]


def test_a_month_of_one_project_by_label_and_service():
    stand_in = BigQuery(TABLE, LINES)
    with stand_in.api() as api:
        found = read_billing(api, TABLE, project="shop", month=MONTH)
    assert found == [
        BilledAmount("", "", "Cloud Run", "USD", 500_000, 0),
        BilledAmount("", "", "Networking", "USD", 2_500_000, 0),
        BilledAmount("beer", "1", "Cloud Run", "USD", 1, 0),
        BilledAmount("wine", "1", "Cloud Run", "USD", 1_950_000, -80_000),
    ]
    assert [method for method, _, _ in stand_in.asked] == ["POST", "GET", "GET"]


def test_no_usage_is_no_line():
    with BigQuery(TABLE, []).api() as api:
        assert read_billing(api, TABLE, project="shop", month=MONTH) == []


def test_the_query_is_one_statement_of_googlesql_that_only_reads():
    (statement,) = sqlglot.parse(QUERY.replace("{table}", TABLE), read="bigquery")
    assert statement is not None
    assert statement.key == "select"
    assert {one.name for one in statement.find_all(sqlglot.exp.Parameter)} == {"start", "finish", "project"}


@pytest.mark.parametrize("table", ["export.t", "p.d.t` WHERE 1=1 --", "p.d.t; DROP", "", "p.d.*"])
def test_a_name_that_is_no_table_is_never_sent(table: str):
    stand_in = BigQuery(TABLE, [])
    with stand_in.api() as api, pytest.raises(BillingError, match="is not a table"):
        read_billing(api, table, project="shop", month=MONTH)
    assert not stand_in.asked


class Failing(BigQuery):
    answers: tuple[int, Any] = (200, {})

    def answer(self, *_: Any) -> tuple[int, Any]:
        return self.answers


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((403, {"error": {"message": "Access Denied"}}), "403: Access Denied"),
        ((200, {"jobReference": {"jobId": "1"}, "errors": [{"reason": "invalidQuery"}]}), "the query failed"),
        (
            (200, {"jobComplete": True, "jobReference": {}, "rows": [{"f": [{"v": "1"}]}]}),
            "not as documented",
        ),
        ((200, {}), "not as documented"),
        ((200, b"<html>"), "cannot be asked"),
    ],
)
def test_an_answer_that_is_no_result_is_an_error(answer: Any, reason: str):
    stand_in = Failing(TABLE, [])
    stand_in.answers = answer
    with stand_in.api() as api, pytest.raises(BillingError, match=reason):
        read_billing(api, TABLE, project="shop", month=MONTH)


def test_versions_as_labels():
    assert version_as_label("2.1-RC1") == "2_1-rc1"
    assert len(version_as_label("x" * 99)) == 63


NOW = "2026-11-28T12:00:00+00:00"


@pytest.fixture
def billed(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    now = datetime.fromisoformat(NOW)
    monkeypatch.setattr("gateway.cli.cost.environment_ledger.utc_now", lambda: now)
    shell.register("wine")
    monkeypatch.setenv("CHIPS_COST__BILLING_TABLE", TABLE)
    monkeypatch.setenv("CHIPS_COST__BILLING_PROJECT", "shop")
    return shell


@pytest.mark.parametrize("by", ["model", "version", "team"])
def test_the_report_and_its_rest_are_the_bill(billed: Shell, monkeypatch: pytest.MonkeyPatch, by: str):
    lines = [line(1.5, at=NOW, loaded=NOW), line(0.25, at=NOW, loaded=NOW, model="")]
    with BigQuery(TABLE, lines).running() as address:
        monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_BIGQUERY", address)
        report = billed.ok("cost", "--by", by, "--json").json()
        shown = billed.ok("cost").out
    bill = report["billed"]
    assert bill["total_micros"] == 1_750_000 == sum(bill["by"].values())
    assert bill["rest_micros"] + report["total"]["micros"]["total"] == bill["total_micros"]
    assert {"model": "wine", "version": "wine@1", "team": "(Cloud Run)"}[by] in bill["by"]
    assert "unexplained" in shown


def test_a_list_of_budgets_asks_for_no_bill(billed: Shell, monkeypatch: pytest.MonkeyPatch):
    billed.ok("budget", "set", "1", "--model", "wine")
    stand_in = Failing(TABLE, [])
    stand_in.answers = (403, {"error": {"message": "Access Denied"}})
    with stand_in.running() as address:
        monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_BIGQUERY", address)
        assert "Access Denied" in billed.ok("cost").out
        assert "Access Denied" not in billed.ok("budget", "list").out


def test_a_bill_in_another_currency_is_not_compared(billed: Shell, monkeypatch: pytest.MonkeyPatch):
    stand_in = BigQuery(TABLE, [{**line(1.5, at=NOW, loaded=NOW), "currency": "EUR"}])
    with stand_in.running() as address:
        monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_BIGQUERY", address)
        report = billed.ok("cost", "--json").json()
    assert report["billed"] is None
    assert report["problems"] == ["the bill: it is in EUR, and the prices are in USD"]


def test_a_bill_that_cannot_be_read_is_said_and_the_lines_stay(
    billed: Shell, monkeypatch: pytest.MonkeyPatch
):
    stand_in = Failing(TABLE, [])
    stand_in.answers = (403, {"error": {"message": "Access Denied"}})
    with stand_in.running() as address:
        monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_BIGQUERY", address)
        report = billed.ok("cost", "--json").json()
    assert report["billed"] is None
    assert "Access Denied" in report["problems"][0]
