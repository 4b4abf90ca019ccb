"""An issuer of tokens, good or hostile: its keys, what it signs, and the server that publishes its keys."""

import json
import time
from functools import cache
from typing import Any
from urllib.parse import urlencode

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa

AUDIENCE = "https://gateway.example"
ISSUER = "https://issuer.example"


class Signer:
    """A pair of keys with an id."""

    def __init__(self, key_id: str, algorithm: str = "RS256", *, bits: int = 2048) -> None:
        self.key_id = key_id
        self.algorithm = algorithm
        self.key: Any = (
            rsa.generate_private_key(public_exponent=65537, key_size=bits)
            if algorithm.startswith(("RS", "PS"))
            else ec.generate_private_key(ec.SECP256R1() if algorithm == "ES256" else ec.SECP384R1())
        )

    def jwk(self, **changes: Any) -> dict[str, Any]:
        kind: Any = (
            jwt.algorithms.RSAAlgorithm if hasattr(self.key, "decrypt") else jwt.algorithms.ECAlgorithm
        )
        return {**json.loads(kind.to_jwk(self.key.public_key())), "kid": self.key_id, "use": "sig", **changes}

    def token(self, *, header: dict[str, Any] | None = None, lasts_s: float = 600, **changes: Any) -> str:
        """A good token, but for `changes`; a claim given as None is left out."""
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ana", "iat": now, "exp": now + lasts_s, **changes}
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(
            claims, self.key, algorithm=self.algorithm, headers={"kid": self.key_id, **(header or {})}
        )


@cache
def signer(key_id: str = "k1", algorithm: str = "RS256", bits: int = 2048) -> Signer:
    """Made once: an RSA key costs a tenth of a second."""
    return Signer(key_id, algorithm, bits=bits)


class KeyServer:
    """Publishes `keys`, or does whatever `answer` says. Counts what it is asked."""

    def __init__(self, *signers: Signer) -> None:
        self.keys: list[Any] = [signer.jwk() for signer in signers]
        self.answer: web.Response | None = None
        self.max_age_s = 3600
        self.asked = 0
        self.discovery: web.Response | None = (
            None  # instead of a good discovery document, as long as it is set
        )
        self.discovered = 0
        self._runner: web.AppRunner
        self.url = ""
        self.issuer = ""  # by whose discovery document the keys are found
        self.email = ""  # of the person who is signed in

    async def __aenter__(self) -> "KeyServer":
        app = web.Application()
        app.router.add_get("/keys", self._keys)
        app.router.add_get("/elsewhere", self._elsewhere)
        app.router.add_get("/authorize", self._authorize)
        app.router.add_get("/.well-known/openid-configuration", self._discovery)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.issuer = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self.url = f"{self.issuer}/keys"
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._runner.cleanup()

    async def _authorize(self, request: web.Request) -> web.StreamResponse:
        """The implicit flow (OpenID Connect Core 3.2): somebody is signed in already, and comes back with a token."""
        asked = request.query
        assert (asked["response_type"], asked["response_mode"]) == ("id_token", "fragment")
        token = signer().token(
            iss=self.issuer,
            aud=asked["client_id"],
            nonce=asked["nonce"],
            email=self.email,
            email_verified=True,
        )
        raise web.HTTPFound(
            f"{asked['redirect_uri']}#{urlencode({'id_token': token, 'state': asked['state']})}"
        )

    async def _keys(self, _: web.Request) -> web.StreamResponse:
        self.asked += 1
        if self.answer is not None:
            answer, self.answer = self.answer, None
            return answer
        return web.json_response(
            {"keys": self.keys}, headers={"Cache-Control": f"public, max-age={self.max_age_s}"}
        )

    async def _discovery(self, _: web.Request) -> web.StreamResponse:
        self.discovered += 1
        if self.discovery is not None:
            answer, self.discovery = self.discovery, None
            return answer
        document = {"issuer": self.issuer, "jwks_uri": self.url, "more": [1]}
        return web.json_response({**document, "authorization_endpoint": f"{self.issuer}/authorize"})

    async def _elsewhere(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"keys": self.keys})


def setting(url: str, **changes: Any) -> str:
    """`auth.issuers` with one entry."""
    entry = {
        "name": "acme",
        "issuer": [ISSUER],
        "jwks": url,
        "audience": [AUDIENCE],
        "subjects": ["ana", "bot-*"],
        "models": ["wine", "open"],
        **changes,
    }
    return json.dumps([entry])
