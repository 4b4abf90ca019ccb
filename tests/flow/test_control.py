"""What operators and callers are told by the gateway itself, over the wire."""

import asyncio
import json
import time
from pathlib import Path

import msgspec
import pytest

from gateway.core.api_keys import key_id
from gateway.core.model import Backend, Model, Policy, parse_model
from gateway.registry.base import KEYS, MODELS
from tests.console.stage import Stage, staged
from tests.flow.scene import assert_problem
from tests.patience import eventually, patience

OPERATORS_PAGES = (
    *("metrics", "models", "models/wine", "overview", "requests", "callers", "history", "events"),
    "cards?model=wine",
)


@pytest.fixture
async def stage(tmp_path):
    async with staged(tmp_path) as stage:
        yield stage


async def get(stage: Stage, path: str, key: str | None = ""):
    return await stage.call("GET", path, key=stage.operator if key == "" else key)


@pytest.mark.parametrize("page", [*OPERATORS_PAGES, "requests/some-id"])
async def test_operators_pages_are_for_operators(stage: Stage, page: str):
    assert_problem(await get(stage, f"/-/{page}", key=None), 401, "unauthenticated")
    assert_problem(await get(stage, f"/-/{page}", key=stage.key), 403, "forbidden")
    assert_problem(await get(stage, f"/-/{page}", key="chips_wrong"), 401, "unauthenticated")


async def test_metrics_over_the_wire(stage: Stage):
    await stage.call("POST", "/wine")
    await stage.call("POST", "/nobody")
    await get(stage, "/-/metrics", key=None)
    answer = await get(stage, "/-/metrics")
    assert answer.status == 200
    text = answer.body.decode()
    assert 'chips_requests_total{model="wine",version="' in text
    assert 'chips_requests_total{model="",version="",status="404"} 1' in text
    assert 'chips_requests_total{model="",version="own-pages",status="401"} 1' in text
    assert 'chips_objective_latency_seconds{model="wine"} 0.05' in text
    assert "chips_registry_generation" in text


async def test_a_request_is_told_in_full(stage: Stage):
    answer = await stage.call("POST", "/wine", fields=[("X-Request-Id", "order-66")])
    one = await stage.kept("order-66")
    assert one["trace_id"] == answer.get("X-Trace-Id")
    assert (one["status"], one["model"], one["method"], one["path"]) == (200, "wine", "POST", "/wine")
    assert one["artifact_digest"].startswith("sha256:")
    names = [span["name"] for span in one["spans"]]
    assert names[0] == "POST /wine"
    assert "attempt 1" in names
    assert "backend predict" in names
    (backend,) = (seen for b in stage.backends for seen in b.seen)
    assert (backend.get("traceparent") or "").split("-")[2] == one["attempts"][0]["span_id"]
    by_trace = await stage.kept(one["trace_id"])
    assert by_trace == one


async def test_a_failure_is_kept_though_nothing_else_would_keep_it(tmp_path):
    async with staged(tmp_path, **{"trace.recent_per_s": "0", "trace.ratio": "0"}) as stage:
        await stage.put(
            Model(name="away", backends=(stage_backend("http://127.0.0.1:1"),), traffic={"1": 100}), "test"
        )
        good = await stage.call("POST", "/wine")
        bad = await stage.call("POST", "/away")
        assert bad.status == 502
        one = await stage.kept(bad.get("X-Request-Id"))
        assert (one["kept"], one["error"], one["side"]) == ("failed", "upstream-unreachable", "backend")
        (attempt,) = (span for span in one["spans"] if span["name"] == "attempt 1")
        assert attempt["error"] == "upstream-unreachable"
        assert (await get(stage, f"/-/requests/{good.get('X-Request-Id')}")).status == 404
        listed = (await get(stage, "/-/requests?kind=failed&model=away")).json()
        assert [r["request_id"] for r in listed["requests"]] == [bad.get("X-Request-Id")]


def stage_backend(url: str):
    return Backend(version="1", url=url)


async def test_who_may_operate_a_model_may_ask_for_a_trace(tmp_path):
    async with staged(tmp_path, **{"trace.recent_per_s": "0", "trace.ratio": "0"}) as stage:
        asked = [("X-Chips-Trace", "1")]
        mine = await stage.call("POST", "/wine", key=stage.operator, fields=asked)
        await stage.call("POST", "/wine", key=stage.key, fields=asked)
        one = await stage.kept(mine.get("X-Request-Id"))
        assert one["kept"] == "asked"
        flags = [(s.get("traceparent") or "")[-2:] for b in stage.backends for s in b.seen]
        assert sorted(flags) == ["00", "01"]
        assert all(s.get("X-Chips-Trace") is None for b in stage.backends for s in b.seen)


async def test_a_list_is_asked_for_in_words_that_exist(stage: Stage):
    assert_problem(await get(stage, "/-/requests?kind=bed"), 400, "bad-request")
    assert_problem(await get(stage, "/-/requests?modell=wine"), 400, "bad-request")
    assert_problem(await get(stage, "/-/requests?limit=many"), 400, "bad-request")
    assert_problem(await get(stage, "/-/models/nobody"), 404, "not-found")


async def test_the_board(stage: Stage):
    for _ in range(5):
        await stage.call("POST", "/wine")
    board = (await get(stage, "/-/models")).json()
    (wine,) = (model for model in board["models"] if model["name"] == "wine")
    assert wine["requests"] == 5
    assert [v["version"] for v in wine["versions"]] == ["1", "2", "3"]
    assert board["registry"]["connected"] is True
    detail = (await get(stage, "/-/models/wine")).json()
    assert sum(sum(v["statuses"].values()) for v in detail["versions"]) == 5
    (caller,) = (await get(stage, "/-/callers")).json()["callers"]
    assert caller["label"] == detail["callers"][0]["label"] == "test"
    assert caller["models"]["wine"]["requests"] == 5


async def test_a_page_of_models(stage: Stage):
    page = (await get(stage, "/-/models?find=demand&sort=name&limit=1&skip=1&window=1h")).json()
    assert [model["name"] for model in page["models"]] == ["demand-south"]
    assert (page["found"], page["listed"], page["window"]) == (2, 4, "1h")
    assert_problem(await get(stage, "/-/models?sort=colour"), 400, "bad-request")
    for path in (
        "/-/models?window=2h",
        "/-/overview?window=",
        "/-/events?window=1",
        "/-/models/wine?window=x",
    ):
        assert_problem(await get(stage, path), 400, "bad-request")


async def overview(stage: Stage, window: str = "10s"):
    return (await get(stage, f"/-/overview?window={window}")).json()


async def test_what_is_wrong_with_whose_it_is_and_since_when(stage: Stage):
    began = time.time()
    away = Model(
        name="away", owner="ben", backends=(stage_backend("http://127.0.0.1:1"),), traffic={"1": 100}
    )
    await stage.put(away, "a model whose backend is away")
    for _ in range(5):
        await stage.call("POST", "/away")
        await stage.call("POST", "/demand-north")
    await stage.call("POST", "/nobody")
    # Of the gateway's own pages nothing counts, not even a refusal: a page asks without a key first.
    assert (await get(stage, "/-/overview", key=None)).status == 401
    assert (await get(stage, "/-/nothing", key=None)).status == 404

    async def found():
        document = await overview(stage, "1h")
        return document if document["issues"] and document["gateway"]["requests"] == 11 else None

    document = await eventually(found)
    (issue,) = document["issues"]
    assert (issue["kind"], issue["side"], issue["model"], issue["version"]) == (
        "unreachable",
        "backend",
        "away",
        "1",
    )
    assert (issue["requests"], issue["bad"], issue["share"], issue["owner"]) == (5, 5, 1.0, "ben")
    assert issue["codes"] == {"upstream-unreachable": 5}
    assert issue["shift"] is None
    assert began - 10 < issue["since"] <= time.time()
    assert document["gateway"]["failing"] == {"gateway": 0, "backend": 5, "caller": 1}
    assert document["window_ends"] % 5 == 0
    assert document["window_s"] < 3600, "there are no figures from before"


async def test_without_a_store_there_are_figures_all_the_same(tmp_path):
    async with staged(tmp_path, **{"trace.store": "off"}) as stage:
        await stage.call("POST", "/demand-north")

        async def found():
            return (await overview(stage, "1h"))["gateway"]["requests"] or None

        assert await eventually(found) == 1
        figures = Path(stage.gateway.telemetry.figures.path or "")
        assert figures.stat().st_mode & 0o077 == 0
    assert not figures.parent.exists()


async def test_no_route_of_operators_changes_anything(stage: Stage):
    before = (await stage.registry.load_mirrored()).generation
    for page in (*OPERATORS_PAGES, "requests/some-id", "console/", "docs/", "openapi.json", "metrics"):
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            answer = await stage.call(method, f"/-/{page}", key=stage.operator)
            assert_problem(answer, 405, "method-not-allowed")
    assert (await stage.registry.load_mirrored()).generation == before


async def test_requests_are_filtered_and_paged(stage: Stage):
    for _ in range(3):
        await stage.call("POST", "/demand-north")
    last = await stage.call("GET", "/-/nothing", key=None)
    await stage.kept((await stage.call("POST", "/demand-north")).get("X-Request-Id"))

    async def listed(query: str):
        return (await get(stage, f"/-/requests?{query}")).json()

    first = await listed("model=demand-north&limit=3&caller=test&status=2xx&version=2026.11")
    assert (len(first["requests"]), first["found"]) == (3, 4)
    assert {one["caller_label"] for one in first["requests"]} == {"test"}
    rest = await listed(f"model=demand-north&limit=3&before={first['next']['before']}")
    assert len({one["number"] for one in (*first["requests"], *rest["requests"])}) == 4
    assert rest["next"] is None
    slowest = await listed("kind=slowest&limit=3&model=demand-north")
    assert (await listed(f"kind=slowest&limit=3&skip={slowest['next']['skip']}&model=demand-north"))[
        "next"
    ] is None
    assert (await listed("side=backend"))["found"] == 0
    assert last.status == 404
    assert (await listed("text=" + "x" * 50))["found"] == 0
    for query in ("status=teapot", "status=9xx", "side=theirs", "since=today", "limit=-1"):
        assert_problem(await get(stage, f"/-/requests?{query}"), 400, "bad-request")


async def test_the_history_has_differences_and_no_digest_of_a_key(stage: Stage):
    wine = await stage.registry.read(MODELS, "wine")
    assert wine is not None
    model = parse_model(wine.body)
    await stage.put(msgspec.structs.replace(model, traffic={"1": 80, "2": 20, "3": 0}), "version 3 is slow")
    answer = await get(stage, "/-/history")
    newest = answer.json()["changes"][0]
    assert (newest["kind"], newest["name"], newest["action"], newest["revision"]) == (
        "models",
        "wine",
        "update",
        2,
    )
    assert newest["differences"] == [
        {"path": "traffic.1", "before": 70, "after": 80},
        {"path": "traffic.3", "before": 10, "after": 0},
    ]
    for document in await stage.registry.list(KEYS):
        assert document.name not in answer.body.decode()
        assert key_id(document.name) in answer.body.decode()
    only = (await get(stage, "/-/history?kind=keys&limit=1")).json()
    assert (len(only["changes"]), only["more"]) == (1, True)
    assert_problem(await get(stage, "/-/history?kind=key-uses"), 400, "bad-request")


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("text/*", "application/json"),
        ("application/json", "application/json"),
        ("application/json, text/html", "application/json"),
        ("application/json;q=0.9, text/html;q=0.8", "application/json"),
        ("text/html;q=0", "application/json"),
        ("text/html;q=x", "application/json"),
        ("text/html", "text/html; charset=utf-8"),
        ("TEXT/HTML", "text/html; charset=utf-8"),
        (BROWSER, "text/html; charset=utf-8"),
    ],
)
async def test_a_browser_gets_a_page_and_every_other_program_json(
    stage: Stage, accept: str | None, kind: str
):
    answer = await stage.call("GET", "/", key=None, fields=[("Accept", accept)] if accept else [])
    assert (answer.status, answer.get("Content-Type"), answer.get("Vary")) == (200, kind, "Accept")
    if kind == "application/json":
        assert answer.json()["name"] == "CHIPS"
    else:
        assert "default-src 'none'" in (answer.get("Content-Security-Policy") or "")


async def test_the_history_says_who_and_why(stage: Stage):
    changes = (await get(stage, "/-/history?model=wine")).json()["changes"]
    assert [(c["author"], c["reason"]) for c in changes] == [("ana", "send a tenth to version 3")]


async def test_events_arrive_as_they_happen(stage: Stage):
    caller = await stage.caller()
    await caller.send(stage.request("GET", "/-/events", key=stage.operator))
    head = await caller.reader.readuntil(b"\r\n\r\n")
    assert b"text/event-stream" in head
    async with asyncio.timeout(patience(30)):
        while not (await caller.reader.readline()).startswith(b"event: board"):
            pass
        sent = await stage.call("POST", "/wine")
        while not (await caller.reader.readline()).startswith(b"event: requests"):
            pass
        data = await caller.reader.readline()
    told = json.loads(data.removeprefix(b"data: "))
    assert [one["request_id"] for one in told] == [sent.get("X-Request-Id")]


async def test_whoever_watches_does_not_hold_up_a_stop(tmp_path):
    async with staged(tmp_path, **{"server.stop_grace_s": "500"}) as stage:
        caller = await stage.caller()
        await caller.send(stage.request("GET", "/-/events", key=stage.operator))
        await caller.reader.readuntil(b": watching")
        async with asyncio.timeout(patience(60)):
            await stage.gateway.stop()
            await caller.ended()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/-/console/", "text/html"),
        ("/-/docs/", "text/html"),
        ("/-/console/console.js", "text/javascript"),
        ("/-/console/console.css", "text/css"),
        ("/-/docs/docs.js", "text/javascript"),
        ("/-/console/vendor/preact.mjs", "text/javascript"),
    ],
)
async def test_the_consoles_files_need_no_key_and_reach_nowhere(stage: Stage, path: str, kind: str):
    answer = await get(stage, path, key=None)
    assert answer.status == 200
    assert (answer.get("Content-Type") or "").startswith(kind)
    policy = answer.get("Content-Security-Policy") or ""
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert b"https://" not in answer.body.replace(b"http://www.w3.org", b"")
    again = await stage.call("GET", path, key=None, fields=[("If-None-Match", answer.get("ETag") or "")])
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/-/console/nothing.js",
        "/-/console/__init__.py",
        "/-/console/a/b",
        "/-/console/vendor/",
        "/-/console/vendor/preact.LICENSE",
        "/-/nothing",
    ],
)
async def test_there_is_nothing_else(stage: Stage, path: str):
    assert_problem(await get(stage, path), 404, "not-found")


async def test_the_console_has_one_address(stage: Stage):
    answer = await get(stage, "/-/console", key=None)
    assert (answer.status, answer.get("Location")) == (308, "/-/console/")


async def test_openapi_lists_what_this_caller_may_call(stage: Stage):
    await stage.put(
        Model(
            name="open",
            policy=Policy(access="public"),
            backends=(stage_backend("http://127.0.0.1:1"),),
            traffic={"1": 100},
        ),
        "public",
    )
    document = (await get(stage, "/-/openapi.json", key=None)).json()
    assert list(document["paths"]) == ["/open"]
    document = (await get(stage, "/-/openapi.json", key=await stage.make_key("wine"))).json()
    assert set(document["paths"]) == {"/open", "/wine"}
    only = (await get(stage, "/-/openapi.json?model=open", key=await stage.make_key("wine"))).json()
    assert set(only["paths"]) == {"/open"}
    assert (await get(stage, "/-/openapi.json?model=wine", key=None)).json()["paths"] == {}
    instance = document["components"]["schemas"]["wine.instance"]["anyOf"][0]
    assert set(instance["properties"]) == {"alcohol", "malic_acid", "ash", "magnesium"}


async def test_without_a_store_the_rest_works(tmp_path):
    async with staged(tmp_path, **{"trace.store": "off"}) as stage:
        assert (await get(stage, "/-/requests")).json()["requests"] == []
        assert_problem(await get(stage, "/-/requests/x"), 404, "not-found")
        assert (await get(stage, "/-/models")).status == 200
