"""Callers with signed tokens: let in, remembered, put out again; and an issuer that is away."""

import json
import time
from typing import Any

import pytest
from aiohttp import web

from gateway.core.model import Policy
from tests.flow.issuer import AUDIENCE, KeyServer, setting, signer
from tests.flow.scene import Scene, assert_problem


def bearer(token: str) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {token}")]


async def test_a_token_opens_what_its_entry_says_and_stays_here():
    both = KeyServer(signer(), signer("e1", "ES256"))
    async with both as keys, Scene(**{"auth.issuers": setting(keys.url)}) as scene:
        backend = await scene.model()
        await scene.model("beer")
        for token in (signer().token(), signer("e1", "ES256").token(sub="bot-7", aud=["x", AUDIENCE])):
            assert (await scene.call(key=None, fields=bearer(token))).status == 200
            assert backend.seen[-1].get("Authorization") is None
            assert_problem(
                await scene.call("POST", "/beer", key=None, fields=bearer(token)), 403, "forbidden"
            )
        assert [seen.get("X-Chips-Caller") for seen in backend.seen] == ["acme:ana", "acme:bot-7"]
        assert keys.asked == 1
        assert not any(token.rpartition(".")[2] in json.dumps(line) for line in scene.log_lines())


async def test_a_remembered_token_needs_no_issuer_and_ends_with_its_key():
    async with KeyServer(signer()) as keys, Scene(**{"auth.issuers": setting(keys.url)}) as scene:
        await scene.model()
        token = signer().token()
        assert (await scene.call(key=None, fields=bearer(token))).status == 200
        tokens = next(iter(scene.gateway._chain._authenticators[1:]))
        (known,) = tokens._keys.values()  # type: ignore[attr-defined]
        assert (await scene.call(key=None, fields=bearer(token))).status == 200
        known.keys = {}  # the issuer has withdrawn the key
        assert_problem(await scene.call(key=None, fields=bearer(token)), 503, "issuer-unavailable")
        known.keys = {"other": None}
        assert_problem(await scene.call(key=None, fields=bearer(token)), 401, "unauthenticated")


async def test_what_a_token_may_pass_through():
    """A token that is meant for the backend goes on, where another credential lets the caller in."""
    async with KeyServer(signer()) as keys, Scene(**{"auth.issuers": setting(keys.url)}) as scene:
        backend = await scene.model()
        ours, theirs = signer().token(), signer().token(aud="https://backend.example")
        for token, goes_on in ((ours, False), (theirs, True), ("opaque", True)):
            assert (await scene.call(fields=bearer(token))).status == 200
            assert (backend.seen[-1].get("Authorization") is not None) is goes_on


async def test_a_bad_token_is_refused_also_where_none_is_needed():
    async with KeyServer(signer()) as keys, Scene(**{"auth.issuers": setting(keys.url)}) as scene:
        backend = await scene.model("open", policy=Policy(access="public"))
        expired = signer().token(exp=int(time.time()) - 100)
        assert_problem(
            await scene.call("POST", "/open", key=None, fields=bearer(expired)), 401, "unauthenticated"
        )
        assert (await scene.call("POST", "/open", key=None, fields=bearer("opaque"))).status == 200
        assert backend.seen[-1].get("Authorization") == "Bearer opaque"
        assert (await scene.call("POST", "/open", key=None)).status == 200


async def test_while_the_issuer_is_away_nobody_new_comes_in():
    async with KeyServer(signer()) as keys, Scene(**{"auth.issuers": setting(keys.url)}) as scene:
        await scene.model()
        keys.answer = web.Response(status=503)
        answer = await scene.call(key=None, fields=bearer(signer().token()))
        assert_problem(answer, 503, "issuer-unavailable")
        assert answer.get("Retry-After") == "10"
        assert (await scene.call()).status == 200  # keys work on


async def test_google_tokens_go_by_the_address_and_only_where_it_is_verified():
    google: dict[str, Any] = {"preset": "google", "issuer": [], "subjects": ["*@acme.example"]}
    async with KeyServer(signer()) as keys, Scene(**{"auth.issuers": setting(keys.url, **google)}) as scene:
        backend = await scene.model()
        whole: dict[str, Any] = {
            "iss": "https://accounts.google.com",
            "email": "ana@acme.example",
            "email_verified": True,
        }
        assert (await scene.call(key=None, fields=bearer(signer().token(**whole)))).status == 200
        assert backend.seen[-1].get("X-Chips-Caller") == "acme:ana@acme.example"
        changes: tuple[dict[str, Any], ...] = (
            {"email_verified": False},
            {"email_verified": "true"},
            {"email_verified": None},
            {"email": "ana@evil.example"},
            {"email": "ana@acme.example.evil"},
            {"email": None},
            {"email": "ana@acme.example\r\nX: y"},
        )
        for change in changes:
            token = signer().token(**{**whole, **change})
            assert_problem(await scene.call(key=None, fields=bearer(token)), 401, "unauthenticated")
        assert len(backend.seen) == 1


async def test_iap_has_a_header_of_its_own():
    iap: dict[str, Any] = {
        "preset": "iap",
        "issuer": [],
        "subjects": ["ana@acme.example"],
        "audience": ["/projects/1/x"],
    }
    server = KeyServer(signer("e1", "ES256"))
    async with server as keys, Scene(**{"auth.issuers": setting(keys.url, **iap)}) as scene:
        backend = await scene.model()
        token = signer("e1", "ES256").token(
            iss="https://cloud.google.com/iap", aud="/projects/1/x", email="ana@acme.example"
        )
        fields = [("X-Goog-Iap-Jwt-Assertion", token)]
        assert (await scene.call(key=None, fields=fields)).status == 200
        assert backend.seen[-1].get("X-Goog-Iap-Jwt-Assertion") is None
        assert (await scene.call(fields=fields)).status == 200  # shown together with a key
        assert backend.seen[-1].get("X-Goog-Iap-Jwt-Assertion") is None
        assert_problem(await scene.call(key=None, fields=bearer(token)), 401, "unauthenticated")
        for bad in (token[:-2], "nonsense", signer("e1", "ES256").token(), "x" * 9000):
            fields = [("X-Goog-Iap-Jwt-Assertion", bad)]
            assert_problem(await scene.call(key=None, fields=fields), 401, "unauthenticated")
        assert len(backend.seen) == 2


CERTIFICATE = {
    "edge.networks": "192.0.2.0/24",
    "edge.trusted_proxies": "127.0.0.0/8",
    "auth.certificates": '[{"name": "mesh", "subjects": ["spiffe://acme/*"], "models": ["wine"]}]',
}


async def test_a_certificate_that_the_balancer_checked():
    came = [("X-Forwarded-For", "192.0.2.7")]
    identity = ("X-Client-Cert-Spiffe-Id", "spiffe://acme/billing")
    checked = ("X-Client-Cert-Chain-Verified", "true")
    async with Scene(**CERTIFICATE) as scene:
        backend = await scene.model()
        assert (await scene.call(key=None, fields=[*came, identity, checked])).status == 200
        assert backend.seen[0].get("X-Chips-Caller") == "mesh:spiffe://acme/billing"
        assert backend.seen[0].get("X-Client-Cert-Spiffe-Id") is None
        for fields in (
            [identity],
            [identity, (checked[0], "false")],
            [(identity[0], "spiffe://evil/billing"), checked],
            [(identity[0], ""), checked],
            [checked],
        ):
            answer = await scene.call(key=None, fields=[*came, *fields])
            assert_problem(answer, 401, "unauthenticated")
        assert_problem(
            await scene.call(key=None, fields=[*came, identity, identity, checked]), 400, "bad-request"
        )
        assert len(backend.seen) == 1
    strangers = {**CERTIFICATE, "edge.trusted_proxies": "10.0.0.0/8", "edge.networks": "127.0.0.0/8"}
    async with Scene(**strangers) as scene:
        await scene.model()
        assert_problem(await scene.call(key=None, fields=[identity, checked]), 401, "unauthenticated")


def issuers(url: str, *entries: dict[str, Any]) -> dict[str, str]:
    """Several entries for one issuer."""
    return {"auth.issuers": json.dumps([json.loads(setting(url, **entry))[0] for entry in entries])}


@pytest.mark.one_day
async def test_entries_map_subjects_and_groups_to_models_verbs_networks_and_quotas():
    entries: tuple[dict[str, Any], ...] = (
        {"name": "few", "subjects": ["bot-*"], "models": ["wine"], "requests_per_day": 2},
        {
            "name": "ops",
            "subjects": ["*"],
            "groups": ["ml-*", "sre"],
            "models": ["*"],
            "verbs": ["score", "operate"],
        },
        {"name": "readers", "subjects": ["*@acme.example"], "models": ["*"], "verbs": ["metadata"]},
        {"name": "near", "subjects": ["ana"], "models": ["wine"], "networks": ["198.51.100.0/24"]},
    )
    async with KeyServer(signer()) as keys, Scene(**issuers(keys.url, *entries)) as scene:
        backend = await scene.model()
        await scene.model("beer")

        async def call(target: str = "/wine", method: str = "POST", **claims: Any) -> int:
            return (
                await scene.call(method, target, key=None, fields=bearer(signer().token(**claims)))
            ).status

        assert [await call(sub="bot-1") for _ in range(3)] == [200, 200, 429]
        assert await call(sub="bot-2") == 200, "each subject has a quota of its own"
        assert await call("/beer", sub="bot-2") == 403
        for groups in (["x", "ml-fraud"], "x sre", ["sre"]):
            assert await call("/beer", sub="eve", groups=groups) == 200
            assert await call("/-/models", "GET", sub="eve", groups=groups) == 200
        for none in ([], ["ML-fraud"], "xml-fraud", {"sre": True}, [["sre"]], 7, None):
            assert await call("/beer", sub="eve", groups=none) == 401, none
        assert await call("/wine", "GET", sub="eve@acme.example") == 200
        assert await call("/wine", sub="eve@acme.example") == 403
        assert await call(sub="ana") == 403, "from another network"
        assert [seen.get("X-Chips-Caller") for seen in backend.seen] == [
            "few:bot-1",
            "few:bot-1",
            "few:bot-2",
        ]


@pytest.mark.one_day
async def test_a_certificate_has_networks_and_quotas_too():
    entry = {
        "name": "mesh",
        "subjects": ["spiffe://acme/*"],
        "requests_per_day": 1,
        "networks": ["192.0.2.0/28"],
    }
    came = [("X-Forwarded-For", "192.0.2.7"), ("X-Client-Cert-Chain-Verified", "true")]
    async with Scene(**{**CERTIFICATE, "auth.certificates": json.dumps([entry])}) as scene:
        await scene.model()
        name = "X-Client-Cert-Spiffe-Id"
        assert (await scene.call(key=None, fields=[*came, (name, "spiffe://acme/a")])).status == 200
        answer = await scene.call(key=None, fields=[*came, (name, "spiffe://acme/a")])
        assert_problem(answer, 429, "too-many-requests")
        assert (await scene.call(key=None, fields=[*came, (name, "spiffe://acme/b")])).status == 200
        elsewhere = [("X-Forwarded-For", "192.0.2.99"), came[1], (name, "spiffe://acme/c")]
        assert_problem(await scene.call(key=None, fields=elsewhere), 403, "address-not-allowed")


# -- discovery


async def test_an_issuer_says_itself_where_its_keys_are():
    async with KeyServer(signer()) as keys:
        entry = setting("", issuer=[keys.issuer])
        async with Scene(**{"auth.issuers": entry}) as scene:
            await scene.model()
            for _ in range(3):
                token = signer().token(iss=keys.issuer, jti=str(time.time_ns()))
                assert (await scene.call(key=None, fields=bearer(token))).status == 200
            assert (keys.discovered, keys.asked) == (1, 1)
            assert_problem(
                await scene.call(key=None, fields=bearer(signer().token())), 401, "unauthenticated"
            )
