"""Sign the tokens that tell a backend which caller the gateway authenticated. They are JWTs that live for a short time."""

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import jwt
import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)

_LASTS_S: Final = 300
_KEPT_S: Final = 60  # for which one token serves all requests of a caller to a model
_REMEMBERED: Final = 10_000
ISSUER: Final = "chips"


class CallerTokenSigner:
    """Signs tokens about callers for backends.

    It also publishes the public keys that verify them.

    The first of `key_files` (PEM, P-256) signs; the public keys of all are published, so that keys can rotate. Without files
    it makes a key that lives as long as the process: right for one process, wrong for several.
    """

    def __init__(self, key_files: Sequence[Path] = (), *, now: Callable[[], float] = time.time) -> None:
        keys = [_read_key(path) for path in key_files] or [generate_private_key(SECP256R1())]
        self._key = keys[0]
        self._now = now
        self._signed: dict[tuple[str, str], tuple[bytes, float]] = {}
        published = [_public_jwk(key.public_key()) for key in keys]
        self._key_id: str = published[0]["kid"]
        self.jwks = msgspec.json.encode({"keys": published})

    def token(self, caller: str, model: str) -> bytes:
        """A signed token (JWT) that names `caller` to a backend of `model`. `model` is its only audience."""
        now = self._now()
        signed, until = self._signed.get((caller, model), (b"", 0.0))
        if now < until:
            return signed
        claims = {"iss": ISSUER, "sub": caller, "aud": model, "iat": int(now), "exp": int(now) + _LASTS_S}
        signed = jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": self._key_id}).encode()
        if len(self._signed) >= _REMEMBERED:
            self._signed.clear()
        self._signed[caller, model] = (signed, now + _KEPT_S)
        return signed


def _read_key(path: Path) -> EllipticCurvePrivateKey:
    """Raises ValueError, which names the file and never its content."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        reason = (
            error.strerror if isinstance(error, OSError) else "it is not an unencrypted private key in PEM"
        )
        raise ValueError(f"{path}: {reason}") from None
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise ValueError(
            f"{path}: it is not a key on P-256; make one: openssl ecparam -name prime256v1 -genkey"
        )
    return key


def _public_jwk(key: EllipticCurvePublicKey) -> dict[str, Any]:
    jwk: dict[str, Any] = jwt.algorithms.ECAlgorithm.to_jwk(key, as_dict=True)
    # RFC 7638: the id of a key is the digest of what it is.
    thumb = msgspec.json.encode({name: jwk[name] for name in ("crv", "kty", "x", "y")}, order="sorted")
    return {**jwk, "kid": hashlib.sha256(thumb).hexdigest()[:16], "use": "sig", "alg": "ES256"}
