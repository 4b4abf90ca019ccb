"""The settings of `auth`: mistakes are told before a socket opens, and a kind of one's own takes its place in the chain."""

import json
from typing import Any

import pytest

from gateway.auth import authenticator_plugins
from gateway.auth.base import Authentication, Authenticator
from gateway.core.errors import Unauthenticated
from gateway.core.header_classification import RequestHead, register_credential_field
from gateway.core.principal import Principal
from gateway.settings import SettingsError, load_settings
from tests.flow.scene import Scene, assert_problem

GOOD: dict[str, Any] = {
    "name": "acme",
    "issuer": ["https://issuer.example"],
    "jwks": "https://issuer.example/keys",
    "audience": ["us"],
    "subjects": ["*"],
}


def problems(**flags: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(flags=flags, environ={})
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"audience": []}, "no audience"),
        ({"subjects": []}, "no subjects"),
        ({"issuer": []}, "no issuer"),
        ({"models": []}, "no models"),
        ({"jwks": "http://issuer.example/keys"}, "https://"),
        ({"jwks": "file:///etc/keys"}, "https://"),
        ({"name": "Acme Inc"}, "name"),
        ({"header": "X-Token\r\n"}, "header"),
        ({"algorithms": []}, "no algorithm"),
        ({"algorithms": ["HS256"]}, "HS256"),
        ({"algorithms": ["none"]}, "none"),
        ({"skew_s": 9999}, "clocks"),
        ({"verbs": ["drink"]}, "drink"),
        ({"audiences": ["us"]}, "audiences"),
        ({"preset": "service-account", "issuer": ["a", "b"]}, "service account"),
        ({"jwks": "", "issuer": ["acme"]}, "(jwks)"),
        ({"jwks": "", "issuer": ["http://issuer.example"]}, "(jwks)"),
        ({"jwks": "", "issuer": ["https://issuer.example?x=y"]}, "(jwks)"),
        ({"jwks": "", "issuer": ["https://a.example", "https://b.example"]}, "(jwks)"),
        ({"groups": [""]}, "group"),
        ({"networks": ["192.0.2.7/24"]}, "host bits"),
        ({"requests_per_s": 0}, "rate"),
        ({"burst": 5}, "burst"),
        ({"max_in_flight": 0}, "in flight"),
        ({"requests_per_day": -1}, "per day"),
    ],
)
def test_an_issuer_that_would_let_in_too_many_is_refused(change: dict[str, Any], why: str):
    load_settings(flags={"auth.issuers": json.dumps([GOOD])}, environ={})
    assert why in problems(**{"auth.issuers": json.dumps([{**GOOD, **change}])})


def test_certificates_need_somebody_who_is_believed():
    entry = json.dumps([{"name": "mesh", "subjects": ["*"]}])
    assert "trusted_proxies" in problems(**{"auth.certificates": entry})
    load_settings(flags={"auth.certificates": entry, "edge.trusted_proxies": "10.0.0.0/8"}, environ={})
    wrong = json.dumps([{"name": "mesh", "subjects": ["*"], "networks": ["everywhere"]}])
    assert "everywhere" in problems(**{"auth.certificates": wrong, "edge.trusted_proxies": "10.0.0.0/8"})


def test_an_issuer_may_say_itself_where_its_keys_are():
    entry = {name: value for name, value in GOOD.items() if name != "jwks"}
    load_settings(flags={"auth.issuers": json.dumps([entry])}, environ={})


@pytest.mark.parametrize(
    "origin", ["app.example.com", "https://app.example.com/", "null", "https://*.example.com"]
)
def test_what_is_no_origin(origin: str):
    load_settings(flags={"edge.cors_origins": "https://app.example.com,*"}, environ={})
    assert "edge.cors_origins" in problems(**{"edge.cors_origins": f"https://a.example,{origin}"})


def test_a_chain_is_checked():
    assert "did you mean api-key" in problems(**{"auth.chain": "api-keys"})
    assert "twice" in problems(**{"auth.chain": "token,token"})
    assert "not both" in problems(**{"edge.trusted_hops": "1", "edge.trusted_proxies": "10.0.0.0/8"})
    assert "redis://" in problems(**{"limits.redis_url": "http://127.0.0.1"})


class Badges(Authenticator):
    """A plug-in: `X-Badge: <name>`, where "eve" is known to be stolen."""

    def __init__(self) -> None:
        self._field = register_credential_field("x-badge")

    async def __call__(self, head: RequestHead) -> Authentication | None:
        badge = head.read[self._field]
        if badge is None:
            return None
        if badge == b"eve":
            raise Unauthenticated("This badge was stolen.")
        return Authentication(Principal(id="badge:ana", models=("wine",)), consumed_authorization=False)


async def test_a_kind_of_ones_own(monkeypatch: pytest.MonkeyPatch):
    class Found:
        def load(self) -> type[Badges]:
            return Badges

    monkeypatch.setattr(authenticator_plugins, "_plug_ins", lambda: {"badge": Found()})
    async with Scene(**{"auth.chain": "badge,api-key"}) as scene:
        backend = await scene.model()
        await scene.model("beer")
        assert (await scene.call(key=None, fields=[("X-Badge", "ana")])).status == 200
        assert backend.seen[0].get("X-Chips-Caller") == "badge:ana"
        assert backend.seen[0].get("X-Badge") is None
        assert (await scene.call()).status == 200
        assert_problem(
            await scene.call("POST", "/beer", key=None, fields=[("X-Badge", "ana")]), 403, "forbidden"
        )
        # What is bad for the first must not fall through to the second.
        assert_problem(await scene.call(fields=[("X-Badge", "eve")]), 401, "unauthenticated")
        twice = [("X-Badge", "ana"), ("X-Badge", "eve")]
        assert_problem(await scene.call(key=None, fields=twice), 400, "bad-request")
