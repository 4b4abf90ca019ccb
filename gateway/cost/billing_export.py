"""What Google billed in a month, from its billing export.

It is the standard usage export of Cloud Billing in BigQuery. Source of the schema:
cloud.google.com/billing/docs/how-to/export-data-bigquery-tables/standard-usage. Backends are known by the labels that
`chips deploy` gives them. The export is partitioned by the time of its loading, which no usage precedes.
"""

import re
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple

from gateway.core.budget import MICRO
from gateway.cost.google_api import GoogleApi, GoogleApiError

ADDRESS: Final = "https://bigquery.googleapis.com"
MODEL_LABEL: Final = "chips-model"
VERSION_LABEL: Final = "chips-version"
_TABLE: Final = re.compile(r"([a-z0-9:.-]+)\.([A-Za-z0-9_]+)\.([A-Za-z0-9_-]+)")
_PAGES: Final = 1000
_WAIT_MS: Final = 30_000
_MAX_BYTES: Final = 200 * 1024**3  # what one query may read; a month of an export is far below

QUERY: Final = """
WITH lines AS (
  SELECT
    IFNULL((SELECT MAX(label.value) FROM UNNEST(labels) AS label WHERE label.key = 'chips-model'), '') AS model_label,
    IFNULL((SELECT MAX(label.value) FROM UNNEST(labels) AS label WHERE label.key = 'chips-version'), '') AS version_label,
    service.description AS service_name,
    currency AS currency_code,
    CAST(cost AS NUMERIC) AS amount,
    IFNULL((SELECT SUM(CAST(credit.amount AS NUMERIC)) FROM UNNEST(credits) AS credit), 0) AS credit
  FROM `{table}`
  WHERE _PARTITIONTIME >= @start
    AND usage_start_time >= @start
    AND usage_start_time < @finish
    AND project.id = @project
)
SELECT model_label, version_label, service_name, currency_code, SUM(amount) AS cost, SUM(credit) AS credits
FROM lines
GROUP BY model_label, version_label, service_name, currency_code
ORDER BY model_label, version_label, service_name, currency_code
"""


class BillingError(Exception):
    """The billing export cannot be read. It cannot be queried, or is not as documented; the text is for an operator."""


class BilledAmount(NamedTuple):
    """What one cloud service was billed for one version of a model. Model and version are empty where no label names them."""

    model: str
    version: str
    service: str
    currency: str
    cost: int  # millionths
    credits: int  # millionths, negative

    @property
    def net(self) -> int:
        return self.cost + self.credits


def version_as_label(text: str) -> str:
    """A version as the value of a Google Cloud label. A label has lower-case letters, digits, - and _, at most 63."""
    return re.sub(r"[^a-z0-9_-]", "_", text.lower())[:63]


def read_billing(api: GoogleApi, table: str, *, project: str, month: list[date]) -> list[BilledAmount]:
    """Read what a project was billed in a month. `month` is a list of its days. Raises BillingError."""
    found = _TABLE.fullmatch(table)
    if found is None:
        raise BillingError(f"{table[:100]!r} is not a table: PROJECT.DATASET.TABLE")
    body = {
        "query": QUERY.replace("{table}", table),
        "useLegacySql": False,
        "parameterMode": "NAMED",
        "maximumBytesBilled": str(_MAX_BYTES),
        "timeoutMs": _WAIT_MS,
        "queryParameters": [
            _parameter("start", "TIMESTAMP", f"{month[0].isoformat()} 00:00:00+00:00"),
            _parameter(
                "finish", "TIMESTAMP", f"{(month[-1] + timedelta(days=1)).isoformat()} 00:00:00+00:00"
            ),
            _parameter("project", "STRING", project or found[1]),
        ],
    }
    try:
        return [_billed(row) for row in _rows(api, found[1], body)]
    except GoogleApiError as error:
        raise BillingError(str(error)) from None
    except (KeyError, TypeError, IndexError, ValueError, AttributeError, InvalidOperation) as error:
        raise BillingError(f"BigQuery's answer is not as documented: {error!r}") from None


def _parameter(name: str, kind: str, value: str) -> dict[str, Any]:
    return {"name": name, "parameterType": {"type": kind}, "parameterValue": {"value": value}}


def _rows(api: GoogleApi, project: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """All rows of the query's result: a query that takes long is waited for, page by page."""
    answer = api.post(f"bigquery/v2/projects/{project}/queries", body)
    rows: list[dict[str, Any]] = []
    for _ in range(_PAGES):
        if answer.get("errors") and not answer.get("jobComplete"):
            raise BillingError(f"the query failed: {str(answer['errors'])[:300]}")
        query = {"timeoutMs": str(_WAIT_MS), "location": str(answer["jobReference"].get("location", ""))}
        if answer.get("jobComplete"):
            rows += answer.get("rows", [])
            if not answer.get("pageToken"):
                return rows
            query["pageToken"] = answer["pageToken"]
        job = answer["jobReference"]["jobId"]
        answer = api.get(f"bigquery/v2/projects/{project}/queries/{job}", query)
    raise BillingError("the query does not come to its end")


def _billed(row: dict[str, Any]) -> BilledAmount:
    model, version, service, currency, cost, reduction = (field["v"] for field in row["f"])
    return BilledAmount(
        model or "", version or "", service or "", currency or "", _micros(cost), _micros(reduction)
    )


def _micros(text: str | None) -> int:
    return round(Decimal(text or 0) * MICRO)
