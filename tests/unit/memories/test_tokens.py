"""The memory of verified tokens: with it and without it, the same answers, whatever comes in whatever order."""

import asyncio
import time
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.auth.base import Authentication
from gateway.auth.jwks import PublicKey
from gateway.auth.jwt import TokenAuthenticator
from gateway.auth.ttl_cache import TtlCache
from gateway.core.errors import GatewayError, Unauthenticated
from gateway.core.header_classification import RequestHead, classify_request_headers
from gateway.core.token_and_certificate_rules import IssuerRule
from tests.flow.issuer import AUDIENCE, ISSUER, Signer, signer

OTHER = "https://other.example"
HEADERS = ("authorization", "x-proxy-assertion")
SOURCES = ("https://one.example/keys", "https://two.example/keys")


class Forgetful(TtlCache[Any]):
    """Remembers nothing."""

    def put(self, key: object, value: Any, until: float) -> None: ...


class World:
    """The same entries, keys and clock for a gateway that remembers and for one that does not."""

    def __init__(self, entries: list[IssuerRule]) -> None:
        self.now = time.time()
        self.keys: dict[str, dict[str, PublicKey]] = {source: {} for source in SOURCES}
        self.tokens = [TokenAuthenticator(entries, now=lambda: self.now) for _ in range(2)]
        self.tokens[1]._verified = Forgetful(1)
        for tokens in self.tokens:
            tokens._session = cast(Any, None)  # nothing is fetched
        for source in SOURCES:
            self.publish(source, "k1", signer("k1", "ES256"))

    def publish(self, source: str, key_id: str, key: Signer | None) -> None:
        if key is None:
            self.keys[source].pop(key_id, None)
        else:
            self.keys[source][key_id] = PublicKey("ES256", key.key.public_key())
        for tokens in self.tokens:
            for keys in tokens._keys.values():
                keys._accept(dict(self.keys[keys.url]), 3600.0)
                keys._tried_at = keys._now()  # no fetch: nothing listens there

    def ask(self, header: str, token: str) -> tuple[object, object]:
        value = f"Bearer {token}" if header == "authorization" else token
        head = classify_request_headers([(header.encode(), value.encode())])
        remembering, forgetful = (asyncio.run(_answer(tokens, head)) for tokens in self.tokens)
        return remembering, forgetful


async def _answer(tokens: TokenAuthenticator, head: RequestHead) -> object:
    try:
        proof = tokens.try_nowait(head)
        if not isinstance(proof, Authentication) and proof is not None:
            proof = await tokens(head)
    except GatewayError as error:
        return type(error).__name__, error.detail
    return (
        None if proof is None else (proof.principal.id, proof.principal.verbs, proof.consumed_authorization)
    )


@pytest.fixture(autouse=True)
def no_fetching(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: object) -> None: ...

    monkeypatch.setattr("gateway.auth.jwks.JwksKeySet.refresh", nothing)
    monkeypatch.setattr("gateway.auth.jwks.JwksKeySet.refresh_in_background", lambda *_: None)


def entry(name: str, **changes: Any) -> IssuerRule:
    whole: dict[str, Any] = {
        "name": name,
        "issuer": (ISSUER,),
        "jwks": SOURCES[0],
        "audience": (AUDIENCE,),
        "subjects": ("*",),
        **changes,
    }
    return IssuerRule(**whole)


ENTRIES = st.lists(
    st.builds(
        lambda **changes: changes,
        issuer=st.sampled_from([(ISSUER,), (ISSUER,), (ISSUER, OTHER)]),
        jwks=st.sampled_from(SOURCES),
        audience=st.sampled_from([(AUDIENCE,), (AUDIENCE,), (AUDIENCE, "elsewhere"), ("elsewhere",)]),
        subjects=st.sampled_from([("*",), ("*",), ("ana",), ("bot-*",)]),
        groups=st.sampled_from([(), (), ("sre",)]),
        header=st.sampled_from(HEADERS),
        algorithms=st.sampled_from([("ES256",), ("RS256", "ES256"), ("RS256",)]),
        skew_s=st.sampled_from([0.0, 30.0, 300.0]),
        verbs=st.sampled_from([("score",), ("score", "operate")]),
    ),
    min_size=1,
    max_size=4,
)
# 0 to 5: the token that is shown, and in which header; "keys": one is changed; "time": it passes.
STEPS = st.lists(
    st.tuples(st.just("ask"), st.integers(0, 5), st.sampled_from(HEADERS))
    | st.tuples(st.just("keys"), st.sampled_from(SOURCES), st.sampled_from(["k1", "new", None]))
    | st.tuples(st.just("time"), st.sampled_from([1.0, 40.0, 200.0]), st.none()),
    min_size=4,
    max_size=14,
)


def tokens(now: float) -> list[str]:
    key, begins = signer("k1", "ES256"), int(now)
    return [
        key.token(iat=begins, exp=begins + 100),
        key.token(iat=begins, exp=begins + 100, sub="bot-1", groups=["sre"]),
        key.token(iat=begins, exp=begins + 400, iss=OTHER, aud="elsewhere"),
        key.token(iat=begins + 60, exp=begins + 500, aud=[AUDIENCE, "elsewhere"]),
        key.token(iat=begins, exp=begins + 400, groups="sre"),
        signer("new", "ES256").token(iat=begins, exp=begins + 400, header={"kid": "k1"}),
    ]


@settings(max_examples=100, deadline=None)
@given(entries=ENTRIES, steps=STEPS)
def test_with_it_and_without_it_the_same_answers(entries: list[dict[str, Any]], steps: list[Any]):
    world = World([entry(f"e{number}", **each) for number, each in enumerate(entries)])
    shown = tokens(world.now)
    for what, first, second in steps:
        if what == "ask":
            remembering, forgetful = world.ask(second, shown[first])
            assert remembering == forgetful, (what, first, second)
        elif what == "keys":
            world.publish(first, "k1", None if second is None else signer(second, "ES256"))
        else:
            world.now += first


def refused(answer: object) -> bool:
    return answer is None or (isinstance(answer, tuple) and answer[0] == "Unauthenticated")


def test_a_token_counts_in_the_header_of_its_entry_alone():
    """Also after it was good there."""
    world = World([entry("proxy", header="x-proxy-assertion"), entry("own", issuer=(OTHER,))])
    token = tokens(world.now)[0]
    for header, good in (("authorization", False), ("x-proxy-assertion", True), ("authorization", False)):
        for answer in world.ask(header, token):
            assert refused(answer) is not good, header


def test_of_two_entries_for_one_issuer_each_decides_in_its_own_header():
    world = World([entry("proxy", header="x-proxy-assertion", verbs=("score", "operate")), entry("bearer")])
    token = tokens(world.now)[0]
    for _ in range(2):
        assert world.ask("authorization", token)[0] == ("bearer:ana", ("score", "metadata"), True)
        assert world.ask("x-proxy-assertion", token)[0] == ("proxy:ana", ("score", "operate"), False)


def test_an_entry_is_taken_whole():
    """The audience of one entry and the algorithm, the keys or the subjects of another one make no good token."""
    token = tokens(time.time())[0]
    for first, why in (
        ({"algorithms": ("RS256",)}, "Unauthenticated"),
        ({"subjects": ("bot-*",)}, "Unauthenticated"),
        ({"jwks": SOURCES[1]}, "IssuerUnavailable"),
    ):
        world = World([entry("a", **first), entry("b", audience=("elsewhere",))])
        world.publish(SOURCES[1], "k1", None)
        for answer in world.ask("authorization", token):
            assert isinstance(answer, tuple)
            assert answer[0] == why
    # Refused by the first for its keys, taken by the second with its own.
    world = World([entry("a", jwks=SOURCES[1]), entry("b")])
    world.publish(SOURCES[1], "k1", signer("new", "ES256"))
    assert world.ask("authorization", token) == (("b:ana", ("score", "metadata"), True),) * 2


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize(
    "value",
    [
        *("9" * 401, "-" + "9" * 401, "9" * 30, "9" * 5000, "1e308", "1e400", "-1e400"),
        *("NaN", "Infinity", "-Infinity", '"4102444800"', "true", "null", "[]", "{}", "[4102444800]"),
        "[" * 3000 + "]" * 3000,
    ],
)
def test_a_time_that_is_none_is_refused_like_a_bad_token(name: str, value: str):
    """Never an error of ours: the holder of a signing key may write anything."""
    world = World([entry("a")])
    now = int(world.now)
    times = {"exp": str(now + 100), "iat": str(now), "nbf": str(now), name: value}
    claims = ",".join(f'"{key}":{text}' for key, text in times.items())
    payload = f'{{"iss":"{ISSUER}","aud":"{AUDIENCE}","sub":"ana",{claims}}}'
    key = signer("k1", "ES256")
    for answer in world.ask("authorization", signed(key, payload)):
        assert refused(answer), answer


@pytest.mark.parametrize("name", ["sub", "iss", "aud", "groups", "email", "jti", "extra"])
@pytest.mark.parametrize(
    "value",
    ["9" * 401, "1e400", "NaN", "null", "[[[]]]", "{}", '"\\ud800"', '"a\\nb"', "[" * 2000 + "]" * 2000],
)
def test_no_claim_is_too_strange(name: str, value: str):
    world = World([entry("a", groups=("sre",)), entry("b", claim="email", subjects=("*",))])
    now = int(world.now)
    claims = {"iss": f'"{ISSUER}"', "aud": f'"{AUDIENCE}"', "sub": '"ana"', "exp": now + 100, "iat": now}
    text = ",".join(f'"{key}":{each}' for key, each in {**claims, name: value}.items())
    for answer in world.ask("authorization", signed(signer("k1", "ES256"), f"{{{text}}}")):
        assert refused(answer), answer


def test_a_name_that_stands_twice_is_read_once():
    """What is peeked at and what is believed come from one parser."""
    world = World([entry("a"), entry("b", issuer=(OTHER,))])
    now = int(world.now)
    payload = f'{{"iss":"{ISSUER}","iss":"{OTHER}","aud":"x","aud":"{AUDIENCE}","sub":"ana","exp":{now + 100},"iat":{now}}}'
    assert world.ask("authorization", signed(signer("k1", "ES256"), payload))[0] == (
        "b:ana",
        ("score", "metadata"),
        True,
    )


def signed(key: Signer, payload: str) -> str:
    import jwt

    return jwt.api_jws.PyJWS().encode(
        payload.encode(), key.key, algorithm=key.algorithm, headers={"kid": key.key_id}
    )


def test_a_refusal_says_nothing_of_the_token():
    world = World([entry("a", subjects=("bot-*",))])
    token = tokens(world.now)[0]
    with pytest.raises(Unauthenticated) as caught:
        world.tokens[0].try_nowait(classify_request_headers([(b"authorization", f"Bearer {token}".encode())]))
    assert token[:20] not in str(caught.value)
