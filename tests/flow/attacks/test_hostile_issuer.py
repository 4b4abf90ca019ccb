# Long: one issuer and everything that it tries.
"""An issuer's key server that is broken or in the enemy's hands: nobody gets in, nothing falls over, all else goes on.

Each case is an issuer of its own, so that one gateway meets them all; the token shown is one that would be good if what
the server sends were believed.
"""

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.auth import jwks
from tests.flow.attacks.attempts import hmac_token
from tests.flow.issuer import AUDIENCE, Signer, setting, signer
from tests.flow.scene import Scene
from tests.flow.scripted import Message
from tests.patience import patience

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
RSA, EC = signer(), signer("e1", "ES256")
SECRET = "c2VjcmV0" * 6


class Case(NamedTuple):
    """What the server does, the token that is shown (by its issuer's name), and the refusal that must follow."""

    handler: Handler
    token: Callable[[str], str] = lambda issuer: RSA.token(iss=issuer)
    status: int = 503
    code: str = "issuer-unavailable"


def sends(body: bytes | object, status: int = 200, **headers: str) -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=raw, headers=given, content_type="application/json")

    return handler


def keys(*entries: object) -> Handler:
    return sends({"keys": entries})


async def never(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def drips(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.01)


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(b" " * 65536)
    return response


async def hangs_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def half(request: web.Request) -> web.StreamResponse:
    """Good keys, of which the end is missing."""
    whole = json.dumps({"keys": [RSA.jwk()]}).encode()
    response = web.StreamResponse(headers={"Content-Length": str(len(whole) + 100)})
    await response.prepare(request)
    await response.write(whole)
    assert request.transport is not None
    request.transport.abort()
    return response


def hmac_by(secret: str, **header: Any) -> Callable[[str], str]:
    def token(issuer: str) -> str:
        import base64

        import jwt

        raw = base64.urlsafe_b64decode(secret)
        now = int(time.time())
        claims = {"iss": issuer, "aud": AUDIENCE, "sub": "ana", "iat": now, "exp": now + 600}
        return jwt.encode(claims, raw, algorithm="HS256", headers={"kid": "k1", **header})

    return token


OCT = {"kty": "oct", "k": SECRET, "kid": "k1", "alg": "HS256"}
UNKNOWN: dict[str, Any] = {"status": 401, "code": "unauthenticated"}
OTHER = signer("other", "RS256", 3072)

CASES: dict[str, Case] = {
    "slow": Case(never),
    "drips": Case(drips),
    "endless": Case(endless),
    "huge": Case(sends(b'{"keys":[' + b" " * 300_000 + b"]}")),
    "hangs-up": Case(hangs_up),
    "half": Case(half),
    "error": Case(sends({"keys": [RSA.jwk()]}, 500)),
    "forbidden": Case(sends({"keys": [RSA.jwk()]}, 403)),
    "accepted": Case(sends({"keys": [RSA.jwk()]}, 202)),
    "empty": Case(sends(b"")),
    "html": Case(sends(b"<!doctype html><title>Log in</title>")),
    "list": Case(sends([RSA.jwk()])),
    "number": Case(sends(b"7")),
    "null": Case(sends({"keys": None})),
    "keys-by-id": Case(sends({"keys": {"k1": RSA.jwk()}})),
    "bare-key": Case(sends(RSA.jwk())),
    "texts": Case(keys("k1", 7, None)),
    "not-utf-8": Case(sends(b'{"keys":["\xff\xfe"]}')),
    "deep": Case(sends(b'{"keys":' + b"[" * 100_000)),
    "packed": Case(sends(b"\x1f\x8b" + b"\x00" * 64, Content_Encoding="gzip")),
    "no-keys": Case(keys()),
    "symmetric": Case(keys(OCT), hmac_by(SECRET)),
    "symmetric-beside": Case(keys(OCT, EC.jwk()), hmac_by(SECRET), **UNKNOWN),
    "symmetric-same-id": Case(keys(OCT, RSA.jwk()), hmac_by(SECRET), **UNKNOWN),
    "public-as-secret": Case(
        keys(RSA.jwk()), lambda _: hmac_token(json.dumps(RSA.jwk()).encode()), **UNKNOWN
    ),
    "says-hs256": Case(keys(RSA.jwk(alg="HS256"))),
    "says-none": Case(keys(RSA.jwk(alg="none"))),
    "another-type": Case(keys(signer("k1", "ES384").jwk())),
    "another-type-same-id": Case(keys(EC.jwk(kid="k1")), **UNKNOWN),
    "another-alg": Case(keys(RSA.jwk(alg="ES256"))),
    "type-of-another-kind": Case(keys(RSA.jwk(kty=["RSA"]))),
    "short": Case(
        keys(signer("k1", "RS256", 1024).jwk()), lambda i: signer("k1", "RS256", 1024).token(iss=i)
    ),
    "for-encryption": Case(keys(RSA.jwk(use="enc"))),
    "private": Case(keys(RSA.jwk(d="AQAB"))),
    "no-id": Case(keys(RSA.jwk(kid=None))),
    "id-of-another-kind": Case(keys(RSA.jwk(kid=["k1"]))),
    "two-of-one-id": Case(
        keys(RSA.jwk(), OTHER.jwk(kid="k1")), lambda i: OTHER.token(iss=i, header={"kid": "k1"}), **UNKNOWN
    ),
    "beyond-the-hundredth": Case(
        keys(*({"kty": "oct", "kid": str(n)} for n in range(100)), RSA.jwk()),
    ),
    "to-the-metadata-server": Case(sends(b"", 302, Location="http://169.254.169.254/computeMetadata/v1/")),
    "to-this-machine": Case(sends(b"", 301, Location="/good")),
    "to-this-machine-307": Case(sends(b"", 307, Location="/good")),
    "to-this-machine-308": Case(sends({"keys": [RSA.jwk()]}, 308, Location="/good")),
    "to-a-file": Case(sends(b"", 303, Location="file:///etc/passwd")),
    "refresh": Case(sends(b"", 200, Refresh="0; url=/good")),
}


def names(**changes: object) -> Callable[[str, str], Handler]:
    """A discovery document with `changes`; `{here}` in them is this server's address."""

    def make(here: str, issuer: str) -> Handler:
        document = {"issuer": issuer, "jwks_uri": f"{here}/good", **changes}
        filled = {
            name: value.format(here=here) if isinstance(value, str) else value
            for name, value in document.items()
        }
        return sends(filled)

    return make


def always(handler: Handler) -> Callable[[str, str], Handler]:
    return lambda *_: handler


# What an issuer's discovery document may do, of which nothing leads to keys; /good has keys that would do.
DISCOVERIES: dict[str, Callable[[str, str], Handler]] = {
    "another-issuer": names(issuer="https://accounts.google.com"),
    "no-issuer": names(issuer=None),
    "issuer-with-a-slash": lambda here, issuer: sends({"issuer": issuer + "/", "jwks_uri": f"{here}/good"}),
    "issuers": lambda here, issuer: sends({"issuer": [issuer], "jwks_uri": f"{here}/good"}),
    "no-keys-named": names(jwks_uri=None),
    "relative": names(jwks_uri="/good"),
    "plain-http": names(jwks_uri="http://keys.example/good"),
    "this-machine-by-another-name": lambda here, issuer: names(
        jwks_uri=here.replace("127.0.0.1", "localhost") + "/good"
    )(here, issuer),
    "this-machine-by-https": names(jwks_uri="https://127.0.0.2/good"),
    "the-metadata-server": names(jwks_uri="http://169.254.169.254/computeMetadata/v1/"),
    "the-metadata-server-by-https": names(jwks_uri="https://169.254.169.254/"),
    "a-private-network": names(jwks_uri="https://10.0.0.1/keys"),
    "a-mapped-address": names(jwks_uri="https://[::ffff:10.0.0.1]/keys"),
    "a-mapped-address-by-nat64": names(jwks_uri="https://[64:ff9b::a9fe:a9fe]/keys"),
    "a-mapped-address-by-6to4": names(jwks_uri="https://[2002:a9fe:a9fe::1]/keys"),
    "a-site-of-its-own": names(jwks_uri="https://[fec0::1]/keys"),
    "a-file": names(jwks_uri="file:///etc/passwd"),
    "credentials": names(jwks_uri="https://a:b@keys.example/"),
    "redirect": always(sends(b"", 302, Location="/good")),
    "redirect-to-the-metadata-server": always(sends(b"", 307, Location="http://169.254.169.254/")),
    "the-keys-themselves": always(keys(RSA.jwk())),
    "missing": always(sends({}, 404)),
    "broken": always(sends(b"<html>")),
    "endless": always(endless),
    "hangs-up": always(hangs_up),
    "deep": always(sends(b'{"issuer":' + b"[" * 100_000)),
}
SLOW = ("slow", "drips")  # these end with the time allowed


class Hostile:
    """One server for all cases, by path; and how often a redirect was followed."""

    def __init__(self) -> None:
        self.followed = 0
        self.url = ""

    async def _discovery(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        return await DISCOVERIES[name](self.url, f"{self.url}/{name}")(request)

    async def _good(self, _: web.Request) -> web.StreamResponse:
        self.followed += 1
        return web.json_response({"keys": [RSA.jwk()]})


@contextlib.asynccontextmanager
async def hostile(tls: ssl.SSLContext | None = None) -> AsyncIterator[Hostile]:
    server, app = Hostile(), web.Application()
    app.router.add_get("/good", server._good)
    for name, case in CASES.items():
        app.router.add_get(f"/{name}", case.handler)
    app.router.add_get("/{name}/.well-known/openid-configuration", server._discovery)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


def entries(server: Hostile, *names: str) -> str:
    """`auth.issuers` with one entry for each."""
    return json.dumps(
        [
            json.loads(setting(f"{server.url}/{name}", name=name[:32], issuer=[f"https://{name}.example"]))[0]
            for name in names
        ]
    )


def bearer(token: str) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {token}")]


@pytest.mark.filterwarnings(
    "ignore::jwt.warnings.InsecureKeyLengthWarning"
)  # it is the attacker who makes such a token
async def test_a_hostile_key_server_lets_nobody_in(monkeypatch, caplog):
    async with hostile() as server, Scene(**{"auth.issuers": entries(server, *CASES, "good")}) as scene:
        backend = await scene.model()
        tokens = {name: case.token(f"https://{name}.example") for name, case in CASES.items()}

        async def show(*names: str) -> dict[str, Message]:
            calls = [scene.call(key=None, fields=bearer(tokens[name])) for name in names]
            return dict(zip(names, await asyncio.gather(*calls), strict=True))

        monkeypatch.setattr(jwks, "_TIMEOUT_S", patience(20))
        answers = await show(*(name for name in CASES if name not in SLOW))
        monkeypatch.setattr(jwks, "_TIMEOUT_S", 0.5)
        answers |= await show(*SLOW)
        monkeypatch.setattr(jwks, "_TIMEOUT_S", patience(20))
        unexpected = [
            f"{name}: {answer.status} {answer.get('chips-error')}"
            for name, answer in answers.items()
            if (answer.status, answer.get("chips-error")) != CASES[name][2:]
        ]
        assert not unexpected, "\n".join(unexpected)
        assert backend.seen == []
        assert server.followed == 0, "no redirect is followed"
        # All else goes on: keys of ours, and the issuer that is as it should be.
        assert (await scene.call()).status == 200
        good = RSA.token(iss="https://good.example")
        assert (await scene.call(key=None, fields=bearer(good))).status == 200
        assert server.followed == 1
        lines = [line for line in scene.log_lines() if "httpRequest" in line]
        by_request = {line["request_id"]: line for line in lines}
        assert len(by_request) == len(lines) == len(CASES) + 2, "each is logged once"
        for name, answer in answers.items():
            line = by_request[answer.get("X-Request-Id") or ""]
            assert line.get("error") == CASES[name].code, name
            assert line.get("detail"), name
        text = json.dumps([lines, caplog.messages])
        assert SECRET not in text
        assert not any(token in text or token.rpartition(".")[2] in text for token in tokens.values())


async def test_a_hostile_discovery_document_lets_nobody_in():
    async with hostile() as server:
        issuers = {name: f"{server.url}/{name}" for name in DISCOVERIES}
        given = [
            json.loads(setting("", name=name[:32], issuer=[issuer]))[0] for name, issuer in issuers.items()
        ]
        async with Scene(**{"auth.issuers": json.dumps(given)}) as scene:
            backend = await scene.model()
            calls = [
                scene.call(key=None, fields=bearer(RSA.token(iss=issuer))) for issuer in issuers.values()
            ]
            answers = dict(zip(issuers, await asyncio.gather(*calls), strict=True))
            told = {name: (answer.status, answer.get("chips-error")) for name, answer in answers.items()}
            assert told == dict.fromkeys(DISCOVERIES, (503, "issuer-unavailable"))
            assert backend.seen == []
            assert server.followed == 0
            assert (await scene.call()).status == 200
            lines = [line for line in scene.log_lines() if "httpRequest" in line]
            assert len(lines) == len(DISCOVERIES) + 1, "each is logged once"


class Authority:
    """Certificates as a server may have them, under a root that the gateway believes here."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test root")])
        self.root = self._sign(self.name, self.key.public_key(), days=(-1, 30), ca=True, host=None)

    def context(
        self, folder: Path, *, days: tuple[int, int] = (-1, 30), host: str = "127.0.0.1"
    ) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])
        certificate = self._sign(name, key.public_key(), days=days, ca=False, host=host)
        file = folder / f"{host}{days[1]}.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _sign(
        self, name: x509.Name, key: Any, *, days: tuple[int, int], ca: bool, host: str | None
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=days[0]))
            .not_valid_after(now + timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if host is not None:
            names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self.key, hashes.SHA256())


@pytest.mark.parametrize(
    ("days", "host", "known", "status"),
    [
        ((-1, 30), "127.0.0.1", True, 200),
        ((-30, -1), "127.0.0.1", True, 503),  # expired
        ((1, 30), "127.0.0.1", True, 503),  # not valid yet
        ((-1, 30), "127.0.0.2", True, 503),  # somebody else's
        ((-1, 30), "127.0.0.1", False, 503),  # by an authority that nobody knows
    ],
)
async def test_a_key_server_must_prove_who_it_is(days, host, known, status, tmp_path, monkeypatch):
    authority = Authority()
    trusting = ssl.create_default_context()
    # Python's default from 3.13 on, which wants more of a root than is needed here.
    trusting.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if known:
        trusting.load_verify_locations(
            cadata=authority.root.public_bytes(serialization.Encoding.PEM).decode("ascii")
        )

    def trusts(**arguments: Any) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(**{"ssl": trusting, **arguments})

    # In that module alone: classes of others derive from the real one, and may be made while it is replaced.
    monkeypatch.setattr(jwks, "aiohttp", SimpleNamespace(**{**vars(aiohttp), "TCPConnector": trusts}))
    tls = authority.context(tmp_path, days=days, host=host)
    async with hostile(tls) as server, Scene(**{"auth.issuers": entries(server, "good")}) as scene:
        backend = await scene.model()
        answer = await scene.call(key=None, fields=bearer(RSA.token(iss="https://good.example")))
        assert answer.status == status
        assert answer.get("chips-error") == (None if status == 200 else "issuer-unavailable")
        assert server.followed == (status == 200)
        assert len(backend.seen) == (status == 200)
        assert (await scene.call()).status == 200


def test_the_cases_are_distinct():
    assert len({id(case.handler) for case in CASES.values()}) == len(CASES) >= 40
    assert isinstance(RSA, Signer)
