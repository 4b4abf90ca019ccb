"""Stand-ins for two APIs of Google, held to their published descriptions (discovery documents): a catalogue of prices, and BigQuery.

BigQuery runs the query it is sent: sqlglot reads it as GoogleSQL and writes it for DuckDB, on a table with the export's schema.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from zlib import crc32

from gateway.cost.google_api import GoogleApi

# cloud.google.com/billing/docs/how-to/export-data-bigquery-tables/standard-usage, as far as it is queried or near it
EXPORT_SCHEMA = """
  _PARTITIONTIME TIMESTAMPTZ, billing_account_id VARCHAR, service STRUCT(id VARCHAR, description VARCHAR),
  sku STRUCT(id VARCHAR, description VARCHAR), usage_start_time TIMESTAMPTZ, usage_end_time TIMESTAMPTZ,
  project STRUCT(id VARCHAR, number VARCHAR, name VARCHAR),
  labels STRUCT(key VARCHAR, value VARCHAR)[], system_labels STRUCT(key VARCHAR, value VARCHAR)[],
  location STRUCT(location VARCHAR, country VARCHAR, region VARCHAR, zone VARCHAR), export_time TIMESTAMPTZ,
  cost DOUBLE, currency VARCHAR, currency_conversion_rate DOUBLE,
  usage STRUCT(amount DOUBLE, unit VARCHAR, amount_in_pricing_units DOUBLE, pricing_unit VARCHAR),
  credits STRUCT(name VARCHAR, amount DOUBLE, full_name VARCHAR, id VARCHAR, type VARCHAR)[],
  invoice STRUCT(month VARCHAR, publisher_type VARCHAR), cost_type VARCHAR
"""
_JSON_TYPES: dict[str, Any] = {"string": str, "boolean": bool, "integer": int, "number": (int, float)}


def _description(api: str) -> Any:
    path = files("googleapiclient") / "discovery_cache" / "documents" / f"{api}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def assert_described(api: str, schema: str, value: Any) -> None:
    """`value` has no field, and no type of a field, that the API's description does not have."""
    schemas = _description(api)["schemas"]

    def check(described: Any, found: Any, where: str) -> None:
        described = schemas[described["$ref"]] if "$ref" in described else described
        if described.get("type") == "array":
            assert isinstance(found, list), where
            for each in found:
                check(described["items"], each, where)
        elif "properties" in described:
            for name, inner in found.items():
                assert name in described["properties"], f"{where}.{name}"
                check(described["properties"][name], inner, f"{where}.{name}")
        elif described.get("type") in _JSON_TYPES:
            assert isinstance(found, _JSON_TYPES[described["type"]]), f"{where}: {found!r}"

    check({"$ref": schema}, value, schema)


class StandIn:
    """`answer(method, path, query, body)` returns a status and a JSON document; `asked` are the requests."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str]]] = []

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        raise NotImplementedError

    @contextmanager
    def running(self) -> Iterator[str]:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                parts = urlsplit(self.path)
                query = dict(parse_qsl(parts.query))
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                stand_in.asked.append((self.command, parts.path, query))
                status, document = stand_in.answer(self.command, parts.path, query, body)
                content = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = _serve  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_address[1]}"
            finally:
                server.shutdown()
                thread.join()

    @contextmanager
    def api(self) -> Iterator[GoogleApi]:
        with self.running() as address:
            api = GoogleApi(address)
            try:
                yield api
            finally:
                api.close()


def sku(
    description: str,
    regions: list[str],
    nanos: int,
    usage_unit: str = "s",
    base_unit: str = "s",
    factor: float = 1.0,
    free: float = 0.0,
    usage_type: str = "OnDemand",
) -> dict[str, Any]:
    """One SKU as the catalogue has it: a first tier that is free, where there is one."""
    rates = [{"startUsageAmount": free, "unitPrice": {"currencyCode": "USD", "units": "0", "nanos": nanos}}]
    if free:
        zero = {"startUsageAmount": 0, "unitPrice": {"currencyCode": "USD", "units": "0", "nanos": 0}}
        rates.insert(0, zero)
    return {
        "name": "services/1/skus/2",
        "skuId": f"{crc32(repr((description, regions, usage_type)).encode()):010d}",
        "description": description,
        "category": {
            "serviceDisplayName": "Cloud Run",
            "resourceFamily": "Compute",
            "resourceGroup": "Compute",
            "usageType": usage_type,
        },
        "serviceRegions": regions,
        "serviceProviderName": "Google",
        "pricingInfo": [
            {
                "effectiveTime": "2026-11-30T00:00:00Z",
                "summary": "",
                "currencyConversionRate": 1,
                "pricingExpression": {
                    "usageUnit": usage_unit,
                    "baseUnit": base_unit,
                    "baseUnitConversionFactor": factor,
                    "displayQuantity": 1,
                    "tieredRates": rates,
                },
            }
        ],
    }


GIB = 1024.0**3
HOUR_GIB = 3600 * GIB
ONE, TWO = ["europe-west1", "us-central1"], ["asia-east2", "europe-west3"]


def catalogue() -> dict[str, list[dict[str, Any]]]:
    """SKUs by service, with those that are easily taken for another."""
    request, least = "(Request-based billing)", "Services Min Instance"
    run = [
        sku(f"Services CPU {request}", ONE, 25_000, free=180_000),
        sku(f"Services CPU Tier 2 {request}", TWO, 34_000),
        sku(f"Services CPU {request}", ONE, 20_000, usage_type="Commit1Yr"),
        sku(f"Services Memory {request}", ONE, 9_000_000, "GiBy.h", "By.s", HOUR_GIB, 100),
        sku(f"Services Memory Tier 2 {request}", TWO, 3_500, "GiBy.s", "By.s", GIB),
        sku(f"{least} CPU {request}", ONE, 2_500),
        sku(f"{least} CPU Tier 2 {request}", TWO, 3_500),
        sku(f"{least} Memory {request}", ONE, 2_500, "GiBy.s", "By.s", GIB),
        sku(f"{least} Memory Tier 2 {request}", TWO, 3_500, "GiBy.s", "By.s", GIB),
        sku("Services CPU (Instance-based billing) in europe-west1", ["europe-west1"], 18_000),
        sku("Services CPU (Instance-based billing) in us-central1", ["us-central1"], 19_000),
        sku("Services CPU Tier 2 (Instance-based billing) in europe-west3", ["europe-west3"], 25_000),
        sku(
            "Services Memory (Instance-based billing) in europe-west1",
            ["europe-west1"],
            2_000,
            "GiBy.s",
            "By.s",
            GIB,
        ),
        sku(
            "Services Memory (Instance-based billing) in europe-west3",
            ["europe-west3"],
            2_800,
            "GiBy.s",
            "By.s",
            GIB,
        ),
        sku("Jobs CPU in europe-west1", ["europe-west1"], 18_000),
        sku("Requests", ["global"], 400, "count", "count", 1.0, 2_000_000),
    ]
    logging = [
        sku("Log Storage cost", ["global"], 510_000_000, "GiBy", "By", GIB, 50),
        sku("Log Retention cost", ["global"], 10_000_000, "GiBy.mo", "By.s", GIB * 2_592_000),
    ]
    return {"152E-C115-5142": run, "5490-F7B7-8DF6": logging}


class Catalogue(StandIn):
    """`GET /v1/services/{id}/skus`, five SKUs a page. `broken` replaces an answer, by its number from 0 on."""

    def __init__(self, skus: dict[str, list[dict[str, Any]]] | None = None) -> None:
        super().__init__()
        self.skus = skus or catalogue()
        self.broken: dict[int, tuple[int, Any]] = {}

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        parameters = _description("cloudbilling.v1")["resources"]["services"]["resources"]["skus"]
        assert set(query) <= set(parameters["methods"]["list"]["parameters"])
        assert (method, body) == ("GET", None)
        if len(self.asked) - 1 in self.broken:
            return self.broken[len(self.asked) - 1]
        service = path.removeprefix("/v1/services/").removesuffix("/skus")
        begin = int(query.get("pageToken", "0"))
        page: dict[str, Any] = {"skus": self.skus[service][begin : begin + 5]}
        page["nextPageToken"] = str(begin + 5) if begin + 5 < len(self.skus[service]) else ""
        assert_described("cloudbilling.v1", "ListSkusResponse", page)
        return 200, page


class BigQuery(StandIn):
    """`POST …/queries` and `GET …/queries/{job}`: the first answer is never complete, and pages have two rows."""

    def __init__(self, table: str, lines: list[dict[str, Any]]) -> None:
        import duckdb

        super().__init__()
        self.database = duckdb.connect()
        project, dataset, name = table.split(".")
        self.database.execute("SET TimeZone = 'UTC'")
        self.database.execute(f"ATTACH ':memory:' AS \"{project}\"")
        self.database.execute(f'CREATE SCHEMA "{project}"."{dataset}"')
        place = f'"{project}"."{dataset}"."{name}"'
        self.database.execute(f"CREATE TABLE {place} ({EXPORT_SCHEMA})")
        for line in lines:
            names = ", ".join(line)
            values = ", ".join("?" for _ in line)
            statement = f"INSERT INTO {place} ({names}) VALUES ({values})"  # noqa: S608
            self.database.execute(statement, list(line.values()))
        self.rows: list[Any] = []
        self.queries: list[str] = []

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        job = {"projectId": "billing-admin", "jobId": "job_1", "location": "EU"}
        if method == "POST":
            assert path == "/bigquery/v2/projects/billing-admin/queries"
            assert_described("bigquery.v2", "QueryRequest", body)
            self.rows = self._run(body)
            answer: dict[str, Any] = {
                "kind": "bigquery#queryResponse",
                "jobReference": job,
                "jobComplete": False,
            }
            assert_described("bigquery.v2", "QueryResponse", answer)
            return 200, answer
        assert (path, query["location"]) == ("/bigquery/v2/projects/billing-admin/queries/job_1", "EU")
        begin = int(query.get("pageToken", "0"))
        page = self.rows[begin : begin + 2]
        answer = {
            "jobReference": job,
            "jobComplete": True,
            "totalRows": str(len(self.rows)),
            "rows": [{"f": [{"v": None if value is None else str(value)} for value in row]} for row in page],
        }
        if not page:
            del answer["rows"]
        if begin + 2 < len(self.rows):
            answer["pageToken"] = str(begin + 2)
        assert_described("bigquery.v2", "GetQueryResultsResponse", answer)
        return 200, answer

    def _run(self, body: Any) -> list[Any]:
        import sqlglot

        self.queries.append(body["query"])
        (statement,) = sqlglot.transpile(body["query"], read="bigquery", write="duckdb")
        statement = statement.replace("AS DECIMAL)", "AS DECIMAL(38, 9))")  # which GoogleSQL's NUMERIC is
        values = {one["name"]: one["parameterValue"]["value"] for one in body["queryParameters"]}
        kinds = {one["name"]: one["parameterType"]["type"] for one in body["queryParameters"]}
        for name, kind in kinds.items():
            if kind == "TIMESTAMP":
                statement = statement.replace(f"${name}", f"CAST(${name} AS TIMESTAMPTZ)")
        return self.database.execute(statement, values).fetchall()
