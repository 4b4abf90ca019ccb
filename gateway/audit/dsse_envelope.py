"""Sign and verify DSSE envelopes.

An envelope is a JSON payload with signatures. The library of The Update Framework does the work. DSSE:
https://github.com/secure-systems-lab/dsse. The key that signs is a file in PEM, Ed25519 or P-256.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import CryptoSigner, Key, Signature, Signer, SSlibKey

_MAKE_ONE: Final = "make one: openssl genpkey -algorithm ed25519 -out FILE"


class SigningError(Exception):
    """A signing key or a signature is not usable. The text says why."""


def read_signer(path: Path) -> CryptoSigner:
    """Read the private key in `path`, to sign with. Raises SigningError, which never holds the file's content."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise SigningError(f"the key {path} cannot be read: {error.strerror}; {_MAKE_ONE}") from None
    except (ValueError, TypeError):
        raise SigningError(f"{path} is not an unencrypted private key in PEM; {_MAKE_ONE}") from None
    if not isinstance(key, (Ed25519PrivateKey, EllipticCurvePrivateKey)) or (
        isinstance(key, EllipticCurvePrivateKey) and not isinstance(key.curve, SECP256R1)
    ):
        raise SigningError(f"{path} is neither an Ed25519 key nor one on P-256; {_MAKE_ONE}")
    return CryptoSigner(key)


def read_public_key(path: Path) -> Key:
    """Read the public key in `path`. Raises SigningError."""
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise SigningError(f"the public key {path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError):
        raise SigningError(
            f"{path} is not a public key in PEM; write it: openssl pkey -in KEY -pubout -out FILE"
        ) from None
    if not isinstance(key, (Ed25519PublicKey, EllipticCurvePublicKey)):
        raise SigningError(f"{path} is neither an Ed25519 key nor one on P-256")
    return SSlibKey.from_crypto(key)


def sign(payload: Any, payload_type: str, signer: Signer) -> bytes:
    """Sign `payload` in a DSSE envelope. Returns the envelope as JSON."""
    envelope = Envelope(msgspec.json.encode(payload), payload_type, {})
    envelope.sign(signer)
    return msgspec.json.encode(envelope.to_dict(), order="sorted")


class _Signature(msgspec.Struct):
    keyid: str
    sig: str


class _Envelope(msgspec.Struct, rename="camel"):
    payload: str
    payload_type: str
    signatures: list[_Signature]


def parse_unverified_envelope(content: bytes) -> Envelope:
    """Parse an envelope, without checking its signatures. Raises SigningError."""
    try:
        msgspec.json.decode(
            content, type=_Envelope
        )  # the library takes values of any type, and fails when they are used
        return Envelope.from_dict(msgspec.json.decode(content))
    except (msgspec.MsgspecError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise SigningError(f"it is not a DSSE envelope: {error}") from None


def verified_by(envelope: Envelope, keys: Sequence[Key]) -> frozenset[str]:
    """Verify an envelope, and return the ids of the keys that signed it. Only `keys` count."""
    return frozenset(key.keyid for key in keys if _has_signed(key, envelope))


def _has_signed(key: Key, envelope: Envelope) -> bool:
    signature: Signature | None = envelope.signatures.get(key.keyid)
    if signature is None:
        return False
    try:
        key.verify_signature(signature, envelope.pae())
    except UnverifiedSignatureError:
        return False
    return True
