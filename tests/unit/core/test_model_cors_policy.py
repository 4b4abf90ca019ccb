"""CORS rules: what they allow is what aiohttp-cors allows with the same options, and a cache is never misled."""

from dataclasses import dataclass

import aiohttp_cors
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.core.model_cors_policy import CorsPolicy, CorsRule, cors_problems

APP = "https://app.example.com"
TAKES = frozenset({"GET", "HEAD", "POST"})


def test_a_rule_has_the_fields_and_defaults_of_resource_options():
    ours = {name: getattr(CorsRule(), name) for name in CorsRule.__struct_fields__}
    assert set(ours) == set(aiohttp_cors.ResourceOptions._fields)
    theirs = aiohttp_cors.ResourceOptions()._asdict()
    assert {name: tuple(v) if isinstance(v, frozenset) else v for name, v in theirs.items()} == ours


@dataclass
class Asked:
    origin: str
    method: str
    headers: str


rules = st.builds(
    CorsRule,
    allow_credentials=st.booleans(),
    allow_headers=st.sampled_from(["*", (), ("X-Api-Key",), ("x-api-key", "content-type")]),
    expose_headers=st.sampled_from([(), ("X-A",)]),
    max_age=st.sampled_from([None, 0, 600]),
    allow_methods=st.sampled_from([None, "*", ("POST",), ("GET", "POST")]),
)
asked = st.builds(
    Asked,
    st.sampled_from(
        [
            APP,
            "https://evil.example",
            "https://app.example.com.evil.example",
            "null",
            "HTTPS://app.example.com",
        ]
    ),
    st.sampled_from(["GET", "POST", "DELETE", "post"]),
    st.sampled_from(["", "X-Api-Key", "x-api-key, Content-Type", "x-evil"]),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rule=rules, origin=st.sampled_from([APP, "*"]), asked=asked)
def test_a_preflight_is_allowed_where_aiohttp_cors_allows_it(rule: CorsRule, origin: str, asked: Asked):
    import asyncio

    if origin == "*" and rule.allow_credentials:
        return  # we refuse that combination
    theirs = asyncio.run(_aiohttp_cors(rule, origin, asked))
    ours = CorsPolicy({origin: rule.options()}).preflight_fields(
        asked.origin.encode(), asked.method, asked.headers, TAKES
    )
    assert (ours is not None) is (theirs is not None)
    if ours is None or theirs is None:
        return
    fields = {name.decode(): value.decode() for name, value in ours}
    assert fields.pop("Vary") == "Origin"
    assert fields.pop("Access-Control-Allow-Origin") in {theirs.pop("Access-Control-Allow-Origin"), "*"}
    lower = {name: value.lower().replace(", ", ",") for name, value in fields.items()}
    listed = {name: ",".join(sorted(value.split(","))) for name, value in lower.items()}
    expected = {name: ",".join(sorted(value.lower().split(","))) for name, value in theirs.items()}
    expected = {name: value for name, value in expected.items() if value}
    assert listed == expected


async def _aiohttp_cors(rule: CorsRule, origin: str, asked: Asked) -> dict[str, str] | None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    cors = aiohttp_cors.setup(app)
    options = rule.options()
    resource = cors.add(app.router.add_resource("/wine"))
    for method in sorted(TAKES):
        if options.is_method_allowed(method) or rule.allow_methods is None:
            cors.add(resource.add_route(method, answer), {origin: options})
    headers = {"Origin": asked.origin, "Access-Control-Request-Method": asked.method}
    if asked.headers:
        headers["Access-Control-Request-Headers"] = asked.headers
    async with TestClient(TestServer(app)) as client, client.options("/wine", headers=headers) as response:
        if response.status != 200:
            return None
        return {n: v for n, v in response.headers.items() if n.startswith("Access-Control-")}


@pytest.mark.parametrize("origin", [None, APP.encode(), b"https://evil.example", b"null", b"\xff"])
def test_every_answer_varies_by_origin(origin):
    lines = CorsPolicy({APP: CorsRule().options()}).vary_and_cors_lines(origin).split(b"\r\n")[:-1]
    fields = dict(line.split(b": ", 1) for line in lines)
    assert fields[b"Vary"] == b"Origin"
    assert (b"Access-Control-Allow-Origin" in fields) is (origin == APP.encode())


@pytest.mark.parametrize(
    ("origin", "rule"),
    [
        ("*", CorsRule(allow_credentials=True)),
        (APP, CorsRule(allow_credentials=True, expose_headers="*")),
        ("null", CorsRule()),
        ("https://*.example.com", CorsRule()),
        ("https://app.example.com/", CorsRule()),
        ("https://app.example.com:443", CorsRule()),
        ("HTTPS://App.example.com", CorsRule()),
        ("app.example.com", CorsRule()),
        ("https://a b", CorsRule()),
        (APP, CorsRule(max_age=-1)),
        (APP, CorsRule(allow_headers=("X\r\nSet-Cookie: a",))),
        (APP, CorsRule(expose_headers=("",))),
    ],
)
def test_what_no_rule_may_say(origin, rule):
    assert cors_problems({origin: rule})


def test_what_is_asked_for_cannot_write_the_answer():
    cors = CorsPolicy({APP: CorsRule(allow_headers="*").options()})
    assert cors.preflight_fields(APP.encode(), "GET", "a\r\nX: b", TAKES) is None
    assert cors.preflight_fields(APP.encode(), "G\r\n", "", TAKES) is None
