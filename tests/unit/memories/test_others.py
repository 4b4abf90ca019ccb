# Long: one test for each memory of the gateway.
"""Every other memory of the gateway: with it and without it, the same answers. `test_each_is_here` keeps the list whole."""

import ast
import asyncio
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

import jwt
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gateway
from gateway.auth.api_key import ApiKeyAuthenticator
from gateway.auth.caller_token_signer import CallerTokenSigner
from gateway.auth.forwarded_client_certificate import CertificateAuthenticator
from gateway.core import header_classification, problem_details
from gateway.core.api_keys import digest_key, make_key
from gateway.core.compiled_model_policy import network_set
from gateway.core.errors import GatewayError, ModelNotFound, Unauthenticated
from gateway.core.header_classification import (
    RequestHead,
    classify_request_headers,
    register_credential_field,
)
from gateway.core.ip_network_set import NetworkSet, parse_address, parse_network
from gateway.core.principal import Principal
from gateway.core.problem_details import render_problem
from gateway.core.quota import Quota
from gateway.core.request_target import parse_target
from gateway.core.token_and_certificate_rules import ForwardedCertificateRule
from gateway.core.token_bucket import TokenBucket
from gateway.limits.quota_charges import _charges_of_day, quota_charges
from gateway.registry.base import KEYS, NETWORKS, Document, MirroredListing, Registry, Unavailable
from gateway.registry.mirror import Mirror
from gateway.registry.snapshot import compile_snapshot
from gateway.server.caller_response import _remembered_begin
from gateway.stages import gateway_ip_allowlist
from gateway.stages.rate_limit import _refusal
from gateway.telemetry.access_log import JsonAccessLogFormatter, _detail, _remembered_detail
from gateway.telemetry.otlp_trace_encoding import _attribute, _field, _key_value
from gateway.upstream.egress_policy import EgressPolicy
from gateway.upstream.id_tokens import IdTokenProvider, _Token
from gateway.upstream.response_head import (
    CachingResponseHeadParser,
    ResponseHead,
    _known_lines,
    _known_status_lines,
    parse_response_head,
)
from tests.unit.registry.scripted import Clock, Scripted, listing, model, revocation
from tests.unit.telemetry.exchanges import make_exchange

# What remembers by a library's or our own means, and what shows that it remembers rightly.
SHOWN = {
    "auth/api_key.py": "test_keys",
    "auth/jwt.py": "tests/unit/memories/test_tokens.py",
    "core/request_target.py": "test_targets",
    "core/principal.py": "test_patterns",
    "core/compiled_model_policy.py": "test_one_set_for_the_same_networks",
    "registry/mirror.py": "test_reading_through",
    "stages/read_request_context.py": "test_addresses (of the address alone: parse_address)",
    "telemetry/otlp_trace_encoding.py": "test_attributes_of_spans",
    "auth/ttl_cache.py": "the memory itself",
    "core/problem_details.py": "test_problems",
    "limits/quota_charges.py": "test_charges",
    "server/caller_response.py": "test_lines_of_own_answers",
    "stages/rate_limit.py": "test_refusals_for_a_rate",
    "stages/gateway_ip_allowlist.py": "test_refusals_for_an_address",
    "telemetry/access_log.py": "test_details_in_the_log",
    "signoff/ssh_keygen_signature.py": "tests/unit/signoff/test_in_toto_statement.py",
    "cost/registry_price_tables.py": "the prices, which are part of the release",
    "control/console_assets.py": "the console's files, which are part of the release",
}
_MEMORIES = {"lru_cache", "cache", "cached", "TTLCache", "LRUCache", "TtlCache"}


def test_each_is_here():
    """A new memory is added with a test that it remembers by everything that its answer depends on."""
    root = Path(gateway.__file__).parent
    found = set()
    for path in root.rglob("*.py"):
        if path.relative_to(root).parts[0] in {"cli", "deploy", "verify"}:
            continue  # commands end before anything changes
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)
            if name in _MEMORIES and not isinstance(getattr(node, "ctx", None), ast.Store):
                found.add(str(path.relative_to(root)))
    assert found <= SHOWN.keys()


# -- credentials


KEY_STEPS = st.lists(
    st.tuples(st.sampled_from(["make", "revoke", "ask", "ask", "ask"]), st.integers(0, 2))
    | st.tuples(st.just("time"), st.sampled_from([3, 100, 3000])),
    max_size=16,
)


@settings(max_examples=60, deadline=None)
@given(steps=KEY_STEPS, expiries=st.lists(st.sampled_from([None, 50, 2000]), min_size=3, max_size=3))
def test_keys(steps: list[tuple[str, int]], expiries: list[int | None]):
    """A key lives from when it was made until it is revoked or expires, whatever was asked in between."""
    asyncio.run(_keys(steps, expiries))


async def _keys(steps: list[tuple[str, int]], expiries: list[int | None]) -> None:
    registry, clock = Scripted(), Clock()
    mirror = Mirror(cast(Registry, registry), clock=clock, sleep=clock.sleep)
    await mirror._accept(listing(1))
    mirror.connected = True
    plenty = TokenBucket(per_second=1e6, burst=1_000_000)
    keys = ApiKeyAuthenticator(
        cast(Registry, registry), mirror, ttl_s=500, clock=clock, now=clock, bucket=plenty
    )
    raw = [make_key() for _ in range(3)]
    made: set[int] = set()
    revoked: set[int] = set()
    ends = [float("inf") if expiry is None else clock.now + expiry for expiry in expiries]
    for what, which in steps:
        if what == "time":
            clock.now += which
        elif what == "make" and which not in made:
            made.add(which)
            body: dict[str, Any] = {"label": str(which), "models": ["*"], "created": "2026-01-01T00:00:00Z"}
            if ends[which] != float("inf"):
                body["expires"] = _rfc3339(ends[which])
            digest = digest_key(raw[which])
            registry.documents[digest] = Document(kind=KEYS, name=digest, revision=1, body=body)
            clock.now += 3  # what was asked for in vain is not asked for again for two seconds
        elif what == "revoke" and which in made:
            revoked.add(which)
            documents = [revocation(digest_key(raw[number])) for number in sorted(revoked)]
            await mirror._accept(listing(1 + len(revoked), *documents))
        elif what == "ask":
            good = which in made and which not in revoked and clock.now < ends[which]
            head = classify_request_headers([(b"x-api-key", raw[which].encode())])
            try:
                proof = await keys(head)
            except GatewayError:
                proof = None
            assert (proof is not None) is good, (what, which, clock.now)
            assert proof is None or proof.principal.label == str(which)


def _rfc3339(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _proof(certificates: CertificateAuthenticator, head: RequestHead) -> object:
    try:
        proof = certificates.try_nowait(head)
    except GatewayError as error:
        return error.detail
    return None if proof is None else (proof.principal.id, proof.principal.models)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["spiffe://a/x", "spiffe://b/x", "spiffe://c/x", "", "a\nb"]),
            st.sampled_from(["true", "TRUE", "false", "", None]),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_certificates(shown: list[tuple[str, str | None, bool]]):
    entries = [
        ForwardedCertificateRule(name="one", subjects=("spiffe://a/*",), models=("wine",)),
        ForwardedCertificateRule(name="two", subjects=("spiffe://[ab]/*",)),
    ]

    def make() -> CertificateAuthenticator:
        return CertificateAuthenticator(
            entries, identity_header="x-client-cert-id", verified_header="x-client-cert-ok"
        )

    remembering = make()
    for identity, verified, vouched in shown:
        fields = [(b"x-client-cert-id", identity.encode("latin-1"))]
        if verified is not None:
            fields.append((b"x-client-cert-ok", verified.encode()))
        head = classify_request_headers(fields)
        head.vouched = vouched
        assert _proof(remembering, head) == _proof(make(), head)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.integers(0, 200)), max_size=10))
def test_tokens_that_name_the_caller(asked: list[tuple[str, str, int]]):
    clock = Clock()
    clock.now = 1_800_000_000.0
    tokens = CallerTokenSigner(now=clock)
    public = tokens._key.public_key()
    for caller, audience, later in asked:
        clock.now += later
        token = tokens.token(caller, audience)
        claims = jwt.decode(
            token,
            public,
            algorithms=["ES256"],
            audience=audience,
            options={"verify_exp": False, "verify_iat": False},
        )
        assert (claims["sub"], claims["aud"]) == (caller, audience)
        assert claims["iat"] <= clock.now < claims["exp"] - 200


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["https://a.run.app/x", "https://b.run.app", "https://own.example/y", "http://c/"]
            ),
            st.sampled_from(["", "https://a.run.app", "https://b.run.app", "aud"]),
        ),
        max_size=12,
    )
)
def test_tokens_that_name_the_gateway(asked: list[tuple[str, str]]):
    """The audience is the URL's own or, where its host may name one, the one it is registered with."""
    guard = EgressPolicy("cloud", hosts=["own.example"])
    remembering = IdTokenProvider(may_choose_audience=guard.may_choose_audience)
    for url, audience in asked:
        fresh = IdTokenProvider(may_choose_audience=guard.may_choose_audience)
        for tokens in (remembering, fresh):
            for each in ("https://a.run.app", "https://b.run.app", "https://own.example", "aud"):
                tokens._tokens[each] = _Token((each.encode(),), tokens._now() + 3600, tokens._now())
        assert _fields(remembering, url, audience) == _fields(fresh, url, audience)


def _fields(tokens: IdTokenProvider, url: str, audience: str) -> object:
    try:
        return tokens.cached_fields(url, audience)
    except GatewayError as error:
        return error.detail


# -- who is where

ADDRESSES = st.ip_addresses().map(str) | st.sampled_from(["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1"])


@given(
    st.lists(
        st.sampled_from(["192.0.2.0/24", "192.0.2.1", "2001:db8::/32", "::/0", "10.0.0.0/8"]), max_size=4
    ),
    st.lists(ADDRESSES, max_size=12),
)
def test_addresses(networks: list[str], asked: list[str]):
    parsed = [parse_network(network) for network in networks]
    remembering = NetworkSet(parsed)
    for text in [*asked, *asked]:
        address = parse_address(text)
        assert address is not None
        naive = any(network.version == address.version and address in network for network in parsed)
        assert (address in remembering) is naive


def test_one_set_for_the_same_networks():
    for networks in (("192.0.2.0/24",), ("192.0.2.0/25",), (), ("192.0.2.0/24", "10.0.0.0/8")):
        for _ in range(2):
            found = network_set(networks)
            assert (found is None) is (not networks)
            assert found is None or found.networks == tuple(map(parse_network, networks))


@given(
    st.lists(st.tuples(st.sampled_from([("*",), ("w*",), ("wine", "b?"), ()]), st.text("wineb", max_size=4)))
)
def test_patterns(asked: list[tuple[tuple[str, ...], str]]):
    for models, name in asked:
        principal = Principal(id="a", models=models)
        assert principal.may("score", name) is any(fnmatchcase(name, pattern) for pattern in models)


@given(st.lists(st.text("/aA-.%2fv?=x\\ ", min_size=1, max_size=12).map(lambda text: "/" + text), max_size=8))
def test_targets(targets: list[str]):
    from gateway.core.request_target import _split

    for target in [*targets, *targets]:
        assert _outcome(parse_target, target) == _outcome(_split, target)


def _outcome(function: Any, *arguments: Any) -> object:
    try:
        return function(*arguments)
    except (GatewayError, ValueError) as error:
        return type(error), str(error)


# -- heads


@pytest.fixture
def own_fields(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(header_classification, "_KIND", dict(header_classification._KIND))
    monkeypatch.setattr(header_classification, "_blank", list(header_classification._blank))
    yield
    header_classification._learned.clear()


@pytest.mark.usefixtures("own_fields")
def test_a_field_that_becomes_a_credential_goes_on_no_more():
    """Names of fields are remembered; a reservation makes another answer of the same name."""
    for name in (b"x-late-credential", b"X-Late-Credential"):
        assert b"secret" in classify_request_headers([(name, b"secret")]).outbound
    at = register_credential_field("x-late-credential")
    for name in (b"x-late-credential", b"X-Late-Credential", b"X_Late_Credential"):
        head = classify_request_headers([(name, b"secret")])
        assert b"secret" not in head.outbound
        assert head.read[at] == (b"secret" if b"_" not in name else None)


LINES = st.sampled_from(
    [
        *(b"Content-Length: 3", b"content-length: 4", b"Content-Length: x", b"Transfer-Encoding: chunked"),
        *(b"Connection: close", b"Connection: x-a", b"X-A: 1", b"Server: x", b"Date: x", b"Set-Cookie: a=1"),
        *(b"Server-Timing: a;dur=1", b"Transfer-Encoding: gzip", b"no field"),
    ]
)

ALIKE = [
    *(
        b"Content-Length: 3",
        b"Content-Length: 45",
        b"content-length: x",
        b"Connection: keep-alive",
        b"Connection: close",
    ),
    *(
        b"Connection: x-a",
        b"X-A: 1",
        b"x-date: 1",
        b"date: 1",
        b"date: 2",
        b"Date: 2",
        b"date: \x00",
        b"Location: /x",
    ),
    *(
        b"Server-Timing: a;dur=1",
        b"Server-Timing:  b;dur=2 ",
        b"Server-Timing: \x01",
        b"Set-Cookie: a=1",
        b"Vary: a",
    ),
]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 404", b"HTTP/2 200"]),
            st.lists(LINES, max_size=5),
        ),
        max_size=5,
    )
)
def test_heads_of_answers(heads: list[tuple[bytes, list[bytes]]]):
    for first, lines in heads:
        raw = b"\r\n".join([first, *lines])
        remembered = _answer_head(raw)
        _known_lines.clear()
        _known_status_lines.clear()
        assert remembered == _answer_head(raw)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.1 404 No"]),
            st.lists(st.sampled_from(ALIKE), max_size=5),
        ),
        max_size=8,
    )
)
def test_heads_of_answers_on_one_connection(heads: list[tuple[bytes, list[bytes]]]):
    read = CachingResponseHeadParser()
    for first, lines in heads:
        raw = b"\r\n".join([first, *lines])
        assert _answer_head(raw, lambda raw: read(raw + b"\r\n\r\n", len(raw))) == _answer_head(raw)


def _answer_head(raw: bytes, read: Callable[[bytes], ResponseHead] = parse_response_head) -> object:
    found = _outcome(read, raw)
    return msgspec.structs.asdict(found) if isinstance(found, ResponseHead) else found


# -- refusals

DETAILS = st.text(max_size=8) | st.sampled_from(["a", 'b"', "ä", "\x1b"])


@given(
    st.lists(
        st.tuples(
            st.sampled_from([Unauthenticated, ModelNotFound]),
            DETAILS,
            st.sampled_from(["r1", "r2"]),
            st.booleans(),
        ),
        max_size=8,
    )
)
def test_problems(errors: list[tuple[type[GatewayError], str, str, bool]]):
    for kind, detail, request_id, open_inference in errors:
        remembered = render_problem(kind(detail), request_id, add_open_inference_error=open_inference)
        problem_details._remembered_parts.cache_clear()
        assert remembered == render_problem(kind(detail), request_id, add_open_inference_error=open_inference)


QUOTAS = st.builds(
    Quota,
    requests_per_s=st.sampled_from([None, 1, 1.0, 2.5]),
    burst=st.sampled_from([None, 1, 7]),
    requests_per_day=st.sampled_from([None, 1, 9]),
    requests_per_month=st.sampled_from([None, 1, 99]),
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["key", "model"]),
            st.sampled_from(["a", "b"]),
            QUOTAS,
            st.floats(1.7e9, 1.8e9) | st.sampled_from([86400.0 * 20000, 86400.0 * 20000 - 0.001]),
        ),
        max_size=8,
    )
)
def test_charges(charged: list[tuple[str, str, Quota, float]]):
    for whose, account, quota, now in charged:
        remembered = quota_charges(whose, account, quota, now)
        _charges_of_day.cache_clear()
        assert repr(remembered) == repr(quota_charges(whose, account, quota, now))


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from([b"A", b"B"]), st.sampled_from([b"1", b"2"])), max_size=3).map(
            tuple
        )
    )
)
def test_lines_of_own_answers(answers: list[tuple[tuple[bytes, bytes], ...]]):
    for fields in answers:
        assert _remembered_begin(True, 403, fields) == _remembered_begin.__wrapped__(True, 403, fields)


@pytest.mark.parametrize(
    "policy", ["key-rate", "key-day", "key-month", "model-rate", "model-day", "model-month"]
)
@pytest.mark.parametrize("model", ["wine", "beer"])
@pytest.mark.parametrize("seconds", [1, 60])
def test_refusals_for_a_rate(policy: str, model: str, seconds: int):
    remembered, fresh = (make(policy, model, seconds) for make in (_refusal, _refusal.__wrapped__))
    assert (remembered.detail, remembered.headers) == (fresh.detail, fresh.headers)


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "it"])
def test_refusals_for_an_address(address: str):
    assert (
        gateway_ip_allowlist._refusal(address).detail
        == gateway_ip_allowlist._refusal.__wrapped__(address).detail
    )


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), DETAILS)))
def test_details_in_the_log(errors: list[tuple[str, str]]):
    for code, detail in errors:
        assert _remembered_detail(code, detail) == _detail(code, detail)


# -- the registry


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["one", "two"]),
            st.lists(
                st.tuples(st.sampled_from(["wine", "beer"]), st.integers(1, 3)),
                max_size=2,
                unique_by=lambda m: m[0],
            ),
            st.lists(
                st.tuples(st.sampled_from(["n", "m"]), st.integers(1, 2)),
                max_size=2,
                unique_by=lambda n: n[0],
            ),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_what_a_snapshot_takes_over(states: list[Any]):
    """Documents of one registry at one revision are the same; those of another one are not."""
    previous = None
    for generation, (registry_id, models, networks) in enumerate(states):
        documents = [model(name, revision, owner=f"{registry_id} {revision}") for name, revision in models]
        documents += [_network(registry_id, name, revision) for name, revision in networks]
        told = MirroredListing(registry_id=registry_id, generation=generation, documents=tuple(documents))
        previous = compile_snapshot(told, previous)
        fresh = compile_snapshot(told)
        assert {name: entry.model for name, entry in previous.entries.items()} == {
            name: entry.model for name, entry in fresh.entries.items()
        }
        assert previous.networks.networks == fresh.networks.networks


def _network(registry_id: str, name: str, revision: int) -> Document:
    octet = {"one": 10, "two": 20}[registry_id] + {"n": 0, "m": 1}[name] * 2 + revision
    return Document(kind=NETWORKS, name=name, revision=revision, body={"network": f"{octet}.0.0.0/8"})


async def test_reading_through():
    registry, clock = Scripted(), Clock()
    mirror = Mirror(cast(Registry, registry), clock=clock, sleep=clock.sleep)
    await mirror._accept(listing(1))
    assert await mirror.read_missing_model("wine") is None
    registry.documents["wine"] = model()
    assert await mirror.read_missing_model("wine") is None, "for two seconds"
    clock.now += 3
    assert await mirror.read_missing_model("wine") is not None
    mirror._fail(Unavailable("down"))
    assert await mirror.read_missing_model("wine") is not None, "what is there can be served"
    assert await _outcome_of(mirror.read_missing_model("beer")) is Unavailable


async def test_while_the_registry_is_away_nothing_is_said_to_be_missing():
    registry, clock = Scripted(), Clock()
    mirror = Mirror(cast(Registry, registry), clock=clock, sleep=clock.sleep)
    await mirror._accept(listing(1))
    assert await mirror.read_missing_model("wine") is None
    mirror._fail(Unavailable("down"))
    assert await _outcome_of(mirror.read_missing_model("wine")) is Unavailable


async def test_what_was_read_before_a_snapshot_is_not_remembered_after_it():
    registry, clock = Scripted(), Clock()
    mirror = Mirror(cast(Registry, registry), clock=clock, sleep=clock.sleep)
    await mirror._accept(listing(1))
    registry.documents["wine"] = model()
    registry.read_gate = asyncio.Event()
    asking = asyncio.create_task(mirror.read_missing_model("wine"))
    while not registry.reads:
        await asyncio.sleep(0)
    found = registry.documents["wine"]
    registry.documents = {}
    await mirror._accept(listing(3))  # it was made and removed again
    registry.read_gate.set()
    await asking
    registry.read_gate = None
    assert await mirror.read_missing_model("wine") is None, found


async def _outcome_of(awaitable: Any) -> object:
    try:
        return await awaitable
    except GatewayError as error:
        return type(error)
    except Unavailable:
        return Unavailable


# -- telemetry


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["/wine", "/wine?x=1", "/beer"]),
            st.sampled_from([200, 404]),
            st.sampled_from(["192.0.2.1", "2001:db8::1", None]),
            st.sampled_from(["wine", "beer", None]),
            st.sampled_from(["key-1", "key-2", None]),
            st.sampled_from(["192.0.2.7", "192.0.2.8"]),
            st.integers(1, 2),
        ),
        max_size=12,
    )
)
def test_log_lines(exchanges: list[Any]):
    remembering = JsonAccessLogFormatter("p")
    for target, status, address, name, caller, peer, generation in exchanges:
        exchange = make_exchange(
            target=target,
            model=name,
            caller=caller,
            peer=peer,
            generation=generation,
            address=None if address is None else parse_address(address),
        )
        lines = [
            line(exchange, status).partition(b'"message"')[2]
            for line in (remembering, JsonAccessLogFormatter("p"))
        ]
        assert lines[0] == lines[1]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([1, 1.0, True, 0, 0.0, False, "1", ""]))))
def test_attributes_of_spans(attributes: list[tuple[str, Any]]):
    from gateway.telemetry.otlp_trace_encoding import _ATTRIBUTE

    for name, value in attributes:
        fresh = _field(_ATTRIBUTE, _key_value(name, value).SerializeToString())
        assert _attribute(name, value, type(value).__name__) == fresh
