"""An issuer's keys: what is believed of what it publishes, when they are fetched, and when it is away."""

import asyncio
import json

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.jwks import JwksKeySet, open_ssrf_guarded_session, parse_discovery_document, parse_keys
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
        signer("a").jwk(alg="none"),
        signer("a").jwk(kty=["RSA"]),
        signer("a").jwk(kty={}),
        signer("a").jwk(use=["sig"]),
        signer("a").jwk(alg=["RS256"]),
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
        keys = JwksKeySet(server.url, now=clock)
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
        keys = JwksKeySet(server.url, now=clock)
        await keys.refresh(session)
        assert not keys.is_refresh_due()
        clock.now += 3601
        assert keys.is_refresh_due()
        server.answer = web.Response(status=503)
        await keys.refresh(session)
        assert keys.find("k1") is not None
        assert not keys.is_refresh_due()  # not at once again
        clock.now += 24 * 3600
        assert keys.find("k1") is None
        assert not keys.has_usable_keys()
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
        keys = JwksKeySet(server.url, now=clock)
        server.answer = answer()
        await keys.refresh(session)
        assert not keys.has_usable_keys()
        clock.now += 31
        await keys.refresh(session)
        assert keys.has_usable_keys()
        clock.now += 31
        server.answer = answer()
        await keys.refresh(session)
        assert keys.find("k1") is not None
        await keys.close()


# -- discovery

ACME = "https://login.acme.example/realm"


def discovered(**changes: object) -> str:
    document = {"issuer": ACME, "jwks_uri": "https://keys.acme.example/jwks", **changes}
    return parse_discovery_document(json.dumps(document).encode(), ACME)


@pytest.mark.parametrize(
    "url",
    [
        "https://login.acme.example/keys?v=2",
        "https://www.googleapis.com/oauth2/v3/certs",
        "https://8.8.8.8/k",
    ],
)
def test_a_discovery_document_may_name_any_public_address(url):
    assert discovered(jwks_uri=url) == url


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "https://evil.example"},
        {"issuer": ACME + "/"},
        {"issuer": ACME.upper()},
        {"issuer": None},
        {"issuer": [ACME]},
        {"jwks_uri": None},
        {"jwks_uri": ""},
        {"jwks_uri": 7},
        {"jwks_uri": "/keys"},
        {"jwks_uri": "//keys.acme.example/jwks"},
        {"jwks_uri": "http://keys.acme.example/jwks"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "https://"},
        {"jwks_uri": "https://user:pass@keys.acme.example/"},
        {"jwks_uri": "https://keys.acme.example/#x"},
        {"jwks_uri": "https://keys.acme.example/ x"},
        {"jwks_uri": "https://keys.acme.example:99999/"},
        {"jwks_uri": "https://k\u00e9ys.acme.example/"},
        {"jwks_uri": "https://keys.acme.example/" + "x" * 3000},
        {"jwks_uri": "http://127.0.0.1/keys"},
        {"jwks_uri": "http://localhost/keys"},
        {"jwks_uri": "https://127.0.0.1/keys"},
        {"jwks_uri": "https://169.254.169.254/computeMetadata/v1/"},
        {"jwks_uri": "http://169.254.169.254/computeMetadata/v1/"},
        {"jwks_uri": "https://10.0.0.5/keys"},
        {"jwks_uri": "https://[::1]/keys"},
        {"jwks_uri": "https://[fd00:ec2::254]/keys"},
        {"jwks_uri": "https://[::ffff:169.254.169.254]/keys"},
        {"jwks_uri": "https://0.0.0.0/keys"},
        {"jwks_uri": "https://224.0.0.1/keys"},
    ],
)
def test_what_no_discovery_document_may_say(changes):
    with pytest.raises(ValueError, match="discovery document"):
        discovered(**changes)


@given(
    st.binary(max_size=200) | st.recursive(st.none() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
def test_no_discovery_document_is_too_strange(body):
    with pytest.raises(ValueError, match=r"."):
        parse_discovery_document(body, ACME)


async def test_the_keys_are_where_the_issuer_says_and_move_with_it(session):
    async with KeyServer(signer()) as server:
        clock = Clock()
        keys = JwksKeySet("", issuer=server.issuer, now=clock)
        await asyncio.gather(*(keys.refresh(session) for _ in range(20)))
        assert (server.discovered, server.asked) == (1, 1)
        assert keys.find("k1") is not None
        clock.now += 31
        moved = {"issuer": server.issuer, "jwks_uri": f"{server.issuer}/elsewhere"}
        server.discovery = web.json_response(moved)
        await keys.refresh(session)
        assert (server.discovered, server.asked) == (2, 1)
        assert keys.url == moved["jwks_uri"]
        await keys.close()


@pytest.mark.parametrize(
    "answer",
    [
        lambda s: web.Response(status=302, headers={"Location": f"{s.issuer}/good"}),
        lambda s: web.Response(status=307, headers={"Location": "http://169.254.169.254/latest/meta-data"}),
        lambda s: web.Response(status=404),
        lambda s: web.Response(status=503),
        lambda s: web.Response(body=b"x" * 300_000),
        lambda s: web.Response(body=b"<html>"),
        lambda s: web.Response(body=b"\x1f\x8b" + b"\x00" * 50, headers={"Content-Encoding": "gzip"}),
        lambda s: web.json_response([]),
        lambda s: web.json_response({"jwks_uri": s.url}),
        lambda s: web.json_response({"issuer": "https://accounts.google.com", "jwks_uri": s.url}),
        lambda s: web.json_response({"issuer": s.issuer, "jwks_uri": "http://evil.example/keys"}),
        lambda s: web.json_response({"issuer": s.issuer, "jwks_uri": "https://169.254.169.254/"}),
        lambda s: web.json_response(
            {"issuer": s.issuer, "jwks_uri": s.url.replace("127.0.0.1", "localhost")}
        ),
    ],
)
async def test_a_hostile_discovery_document_changes_nothing(session, answer):
    async with KeyServer(signer()) as server:
        clock = Clock()
        keys = JwksKeySet("", issuer=server.issuer, now=clock)
        server.discovery = answer(server)
        await keys.refresh(session)
        assert not keys.has_usable_keys()
        assert server.asked == 0
        clock.now += 31
        await keys.refresh(session)
        assert keys.has_usable_keys()
        clock.now += 31
        server.discovery = answer(server)
        server.keys = [signer("k2", "ES256").jwk()]
        await keys.refresh(session)  # the address that is known serves on, so that keys still change
        assert keys.find("k2") is not None
        assert keys.url == server.url
        await keys.close()


async def test_a_name_that_nobody_chose_is_connected_to_at_public_addresses_alone(monkeypatch):
    """DNS rebinding: the name was public when it was looked at."""

    async def inside(self, host, port=0, family=0):
        return [
            {"hostname": host, "host": addresses[host], "port": port, "family": 2, "proto": 0, "flags": 0}
        ]

    addresses = {"a": "8.8.8.8", "b": "10.0.0.1", "c": "169.254.169.254", "named": "10.0.0.1"}
    monkeypatch.setattr(aiohttp.DefaultResolver, "resolve", inside)
    async with open_ssrf_guarded_session(["named"]) as session:
        assert session.connector is not None
        resolve = session.connector._resolver.resolve  # type: ignore[attr-defined]
        for host in ("a", "named"):
            assert (await resolve(host, 443))[0]["host"] == addresses[host]
        for host in ("b", "c"):
            with pytest.raises(OSError, match="public"):
                await resolve(host, 443)
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(f"https://{host}/keys")


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
_strange = {
    name: st.sampled_from([value]) | _anything
    for name, value in {**signer("a").jwk(), "alg": "RS256", "crv": "P-256", "x": "AQ", "y": "AQ"}.items()
}


@given(st.fixed_dictionaries({}, optional=_strange))
def test_no_key_is_too_strange_and_none_takes_a_good_one_along(entry):
    found = parsed(entry, signer("good", "ES256").jwk())
    assert found["good"] == "ES256"
