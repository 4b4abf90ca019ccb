"""Callers with signed tokens: let in, remembered, put out again; and an issuer that is away."""

import json
import time
from typing import Any

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
