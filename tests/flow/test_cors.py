"""A page in a browser calls a model: preflight without a key, answers that a cache keeps apart."""

import pytest

from gateway.core.model import Policy
from gateway.core.model_cors_policy import CorsRule
from tests.flow.scene import Scene, assert_problem

APP, EVIL = "https://app.example.com", "https://evil.example"
RULE = CorsRule(allow_headers=("x-api-key", "content-type"), allow_credentials=True, max_age=600)


def asks(
    origin: str, method: str = "POST", headers: str = "content-type, x-api-key"
) -> list[tuple[str, str]]:
    return [
        ("Origin", origin),
        ("Access-Control-Request-Method", method),
        ("Access-Control-Request-Headers", headers),
    ]


async def test_a_preflight_needs_no_key_and_reaches_no_backend(scene: Scene):
    backend = await scene.model(policy=Policy(cors={APP: RULE}))
    answer = await scene.call("OPTIONS", key=None, body=None, fields=asks(APP))
    assert answer.status == 204
    assert answer.get("Access-Control-Allow-Origin") == APP
    assert answer.get("Access-Control-Allow-Credentials") == "true"
    assert answer.get("Access-Control-Allow-Methods") == "POST"
    assert answer.get("Access-Control-Allow-Headers") == "content-type, x-api-key"
    assert answer.get("Access-Control-Max-Age") == "600"
    assert answer.get("Vary") == "Origin"
    assert backend.seen == []


@pytest.mark.parametrize(
    "fields",
    [
        asks(EVIL),
        asks("null"),
        asks(APP + ".evil.example"),
        asks(APP, method="DELETE"),
        asks(APP, method="TRACE"),
        asks(APP, headers="x-evil"),
        asks(APP, headers="content-type, x\x01"),
    ],
)
async def test_a_preflight_that_is_not_allowed(scene: Scene, fields):
    backend = await scene.model(policy=Policy(cors={APP: RULE}))
    answer = await scene.call("OPTIONS", key=None, body=None, fields=fields)
    assert answer.status in {400, 403}
    assert answer.get("Access-Control-Allow-Origin") is None
    if answer.status == 403:
        assert answer.get("Vary") == "Origin"
    assert backend.seen == []


async def test_the_answer_too_says_who_may_read_it_whatever_the_backend_says(scene: Scene):
    async def generous(request, peer):
        fields = [
            ("Access-Control-Allow-Origin", "*"),
            ("Access-Control-Allow-Credentials", "true"),
            ("Vary", "X"),
        ]
        await peer.answer(200, b"{}", fields)

    await scene.model(policy=Policy(cors={APP: RULE}), script=generous)
    for key, status in (("", 200), (None, 401)):  # a page must be able to read why it failed
        answer = await scene.call(key=key, fields=[("Origin", APP)])
        assert answer.status == status
        assert answer.all("Access-Control-Allow-Origin") == [APP]
        assert answer.all("Access-Control-Allow-Credentials") == ["true"]
        assert "Origin" in answer.all("Vary")
        stranger = await scene.call(key=key, fields=[("Origin", EVIL)])
        assert stranger.all("Access-Control-Allow-Origin") == []
        assert stranger.all("Access-Control-Allow-Credentials") == []
        assert "Origin" in stranger.all("Vary")
    assert "Origin" in (await scene.call()).all("Vary")


async def test_a_model_without_rules_is_closed_to_pages(scene: Scene):
    backend = await scene.model()
    assert_problem(await scene.call("OPTIONS", key=None, body=None, fields=asks(APP)), 401, "unauthenticated")
    assert_problem(await scene.call("OPTIONS", body=None, fields=asks(APP)), 405, "method-not-allowed")
    assert (await scene.call(fields=[("Origin", APP)])).all("Access-Control-Allow-Origin") == []
    assert len(backend.seen) == 1


async def test_any_origin_gets_no_credentials(scene: Scene):
    await scene.model(policy=Policy(cors={"*": CorsRule(allow_headers="*")}))
    answer = await scene.call(fields=[("Origin", EVIL)])
    assert answer.get("Access-Control-Allow-Origin") == "*"
    assert answer.get("Access-Control-Allow-Credentials") is None
    assert answer.get("Vary") == "Origin"


SHARED = ("/", "/v2", "/-/live", "/-/ready", "/-/jwks.json", "/-/openapi.json", "/-/docs", "/-/docs/")


async def test_without_origins_no_page_reads_the_gateways_own_routes(scene: Scene):
    for path in SHARED:
        answer = await scene.call("GET", path, fields=[("Origin", APP)])
        assert answer.status in {200, 308}
        assert not [name for name, _ in answer.fields if name.lower().startswith("access-control-")]
        assert_problem(
            await scene.call("OPTIONS", path, key=None, body=None, fields=asks(APP, "GET", "x-api-key")),
            405,
            "method-not-allowed",
        )


async def test_aiohttp_cors_serves_the_fixed_routes():
    async with Scene(**{"edge.cors_origins": APP}) as scene:
        await scene.model()
        for path in SHARED:
            answer = await scene.call(
                "OPTIONS", path, key=None, body=None, fields=asks(APP, "GET", "x-api-key, authorization")
            )
            assert answer.status == 204, path
            assert answer.all("Access-Control-Allow-Origin") == [APP]
            assert answer.get("Access-Control-Allow-Methods") == "GET"
            allowed = (answer.get("Access-Control-Allow-Headers") or "").lower().split(",")
            assert sorted(allowed) == ["authorization", "x-api-key"]
            assert answer.get("Access-Control-Max-Age") == "600"
            assert answer.get("Access-Control-Allow-Credentials") is None
            assert answer.all("Vary") == ["Origin"]
            answer = await scene.call("GET", path, fields=[("Origin", APP)])
            assert answer.all("Access-Control-Allow-Origin") == [APP]
            assert "X-Request-Id" in (answer.get("Access-Control-Expose-Headers") or "").split(",")
            assert answer.all("Vary") == ["Origin", *(["Accept"] if path == "/" else [])]
        assert (await scene.call("GET", "/", fields=[("Origin", APP)])).json()["models"]


async def test_a_page_must_be_able_to_read_why_its_key_was_refused():
    async with Scene(**{"edge.cors_origins": APP}) as scene:
        answer = await scene.call("GET", "/", key="chips_x", fields=[("Origin", APP)])
        assert_problem(answer, 401, "unauthenticated")
        assert answer.all("Access-Control-Allow-Origin") == [APP]


@pytest.mark.parametrize(
    "fields",
    [
        asks(EVIL, "GET", "x-api-key"),
        asks("null", "GET", "x-api-key"),
        asks(APP, "POST", "x-api-key"),
        asks(APP, "get", "x-api-key"),
        asks(APP, "GET", "x-evil"),
        asks(APP.upper(), "GET", "x-api-key"),
        [("Access-Control-Request-Method", "GET")],
    ],
)
async def test_a_preflight_of_the_fixed_routes_that_is_not_allowed(fields):
    async with Scene(**{"edge.cors_origins": APP}) as scene:
        answer = await scene.call("OPTIONS", "/", key=None, body=None, fields=fields)
        assert_problem(answer, 403, "forbidden")
        assert not [name for name, _ in answer.fields if name.lower().startswith("access-control-")]
        assert answer.all("Vary") == ["Origin"]


async def test_of_the_fixed_routes_strangers_and_operators_pages_are_shared_with_nobody():
    async with Scene(**{"edge.cors_origins": APP}) as scene:
        operator = await scene.make_key("*", verbs=("operate",))
        for path in (
            "/-/metrics",
            "/-/models",
            "/-/requests",
            "/-/console/",
            "/-/nothing",
            "/-/docs/docs.js",
        ):
            answer = await scene.call("GET", path, key=operator, fields=[("Origin", APP)])
            assert answer.all("Access-Control-Allow-Origin") == []
            answer = await scene.call("OPTIONS", path, body=None, fields=asks(APP, "GET", ""))
            assert answer.status == 405
        answer = await scene.call("GET", "/", fields=[("Origin", EVIL)])
        assert answer.status == 200
        assert answer.all("Access-Control-Allow-Origin") == []
        assert answer.all("Vary") == ["Origin", "Accept"]
        assert (await scene.call("GET", "/")).all("Vary") == ["Origin", "Accept"]


async def test_any_page_may_read_the_fixed_routes_where_the_setting_says_so():
    async with Scene(**{"edge.cors_origins": "*"}) as scene:
        answer = await scene.call("GET", "/-/openapi.json", fields=[("Origin", EVIL)])
        assert answer.get("Access-Control-Allow-Origin") in {EVIL, "*"}
        assert answer.get("Access-Control-Allow-Credentials") is None
        assert answer.all("Vary") == ["Origin"]
