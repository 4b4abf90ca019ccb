"""An issuer's keys: what is believed of what it publishes, when they are fetched, and when it is away."""

import asyncio
import json

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.jwks import KeySet, parse_keys
from tests.flow.issuer import KeyServer, signer


def parsed(*keys: object) -> dict[str, str]:
    return {kid: key.algorithm for kid, key in parse_keys(json.dumps({"keys": keys}).encode()).items()}


def test_public_keys_of_the_two_kinds_are_taken():
    assert parsed(signer("a").jwk(), signer("b", "ES256").jwk()) == {"a": "RS256", "b": "ES256"}
    assert parsed(signer("a").jwk(alg="RS256", use="sig", extra={"x": 1})) == {"a": "RS256"}


def test_of_two_keys_with_one_id_the_first_counts():
    first, second = signer("a").jwk(), signer("b", "ES256").jwk(kid="a")
    assert parsed(first, second) == {"a": "RS256"}


@pytest.mark.parametrize(
    "key",
    [
        {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "a"},
        {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "a"},
        {"kty": "RSA", "kid": "a"},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "a"},
        {"kty": "RSA", "n": 7, "e": [], "kid": "a"},
        {"kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ", "kid": "a"},
        {"kty": "EC", "crv": "nonsense", "x": "AQ", "y": "AQ", "kid": "a"},
        {},
        signer("a", "RS256", 1024).jwk(),
        signer("a", "ES384").jwk(),
        signer("a").jwk(use="enc"),
        signer("a").jwk(alg="HS256"),
        signer("a").jwk(alg="ES256"),
        signer("a").jwk(kid=7),
        signer("a").jwk(d="AQAB"),  # a private key that was published is nobody's any more
    ],
)
def test_what_is_no_usable_public_key_is_left_out(key):
    with pytest.raises(ValueError, match="none of its keys"):
        parsed(key)
    assert parsed(key, signer("good", "ES256").jwk()) == {"good": "ES256"}


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
def test_no_answer_is_too_strange(body):
    with pytest.raises(ValueError, match=r"."):
        parse_keys(body)


def test_depth_does_no_harm():
    with pytest.raises(ValueError, match="not a set of keys"):
        parse_keys(b'{"keys":' + b"[" * 100_000)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def session():
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield session


async def test_all_who_ask_at_once_share_one_fetch_and_strangers_cannot_cause_more(session):
    async with KeyServer(signer()) as server:
        clock = Clock()
        keys = KeySet(server.url, now=clock)
        await asyncio.gather(*(keys.refresh(session) for _ in range(50)))
        assert server.asked == 1
        assert keys.find("k1") is not None
        for _ in range(20):
            await keys.refresh(session)  # for a key id that nobody has
        assert server.asked == 1
        clock.now += 31
        server.keys = [signer("k2", "ES256").jwk()]
        await keys.refresh(session)
        assert server.asked == 2
        assert keys.find("k1") is None
        assert keys.find("k2") is not None
        await keys.close()


async def test_keys_serve_on_while_the_issuer_is_away_but_not_for_ever(session):
    async with KeyServer(signer()) as server:
        clock = Clock()
        keys = KeySet(server.url, now=clock)
        await keys.refresh(session)
        assert not keys.is_due()
        clock.now += 3601
        assert keys.is_due()
        server.answer = web.Response(status=503)
        await keys.refresh(session)
        assert keys.find("k1") is not None
        assert not keys.is_due()  # not at once again
        clock.now += 24 * 3600
        assert keys.find("k1") is None
        assert not keys.is_usable()
        await keys.refresh(session)
        assert keys.find("k1") is not None
        await keys.close()


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(status=302, headers={"Location": "/elsewhere"}),
        lambda: web.Response(status=500),
        lambda: web.Response(body=b"x" * 300_000),
        lambda: web.Response(body=b"<html>"),
        lambda: web.json_response({"keys": []}),
        lambda: web.json_response({"keys": [{"kty": "oct", "k": "AQAB", "kid": "k1"}]}),
        lambda: web.Response(body=b"\x1f\x8b" + b"\x00" * 50, headers={"Content-Encoding": "gzip"}),
    ],
)
async def test_a_hostile_answer_changes_nothing(session, answer):
    async with KeyServer(signer()) as server:
        clock = Clock()
        keys = KeySet(server.url, now=clock)
        server.answer = answer()
        await keys.refresh(session)
        assert not keys.is_usable()
        clock.now += 31
        await keys.refresh(session)
        assert keys.is_usable()
        clock.now += 31
        server.answer = answer()
        await keys.refresh(session)
        assert keys.find("k1") is not None
        await keys.close()
