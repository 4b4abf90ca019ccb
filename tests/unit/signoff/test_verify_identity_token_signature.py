"""Identity tokens as signatures: made for one statement, by an issuer that still publishes its key."""

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway.auth.jwks import parse_keys
from gateway.signoff.environment_policy import AcceptedIdentity
from gateway.signoff.verify_identity_token_signature import (
    fetch_available_keys,
    has_signed,
    signature_audience,
)
from tests.damage import one_bit_off
from tests.flow.issuer import KeyServer, signer

ISSUER = "https://accounts.google.com"
MESSAGE = b"DSSEv1 and more"
BEA = AcceptedIdentity(email="bea@example.com")
KEYS = {ISSUER: parse_keys(json.dumps({"keys": [signer().jwk()]}).encode())}


def token(**changes: Any) -> bytes:
    claims = {
        "iss": ISSUER,
        "aud": signature_audience(MESSAGE),
        "sub": "123",
        "email": "bea@example.com",
        "email_verified": True,
        **changes,
    }
    return signer().token(**claims).encode()


def is_good(
    given: bytes, *tokens: AcceptedIdentity, message: bytes = MESSAGE, at: datetime | None = None
) -> bool:
    return has_signed(message, given, tokens or (BEA,), KEYS, at or datetime.now(UTC))


def test_a_token_that_was_made_for_the_statement():
    assert is_good(token())
    mine = AcceptedIdentity(email="bea@example.com", client="chips")
    assert is_good(token(aud="chips", nonce=signature_audience(MESSAGE)), BEA, mine)
    assert is_good(token(), mine)
    assert is_good(token(aud=["x", signature_audience(MESSAGE)], email_verified="true"))
    assert is_good(token(), AcceptedIdentity(subject="123"))
    late = datetime.now(UTC) + timedelta(days=3)
    assert not is_good(token(), at=late), "a statement is dated within its token's life"


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "https://gateway.example"},
        {"aud": "", "nonce": signature_audience(MESSAGE)},
        {"aud": signature_audience(b"another statement")},
        {"email": "eve@example.com"},
        {"email_verified": False},
        {"email_verified": None},
        {"iss": "https://issuer.example"},
        {"iat": None},
        {"sub": None},
        {"exp": 1},
    ],
)
def test_any_other_token_is_none(changes: dict[str, Any]):
    assert not is_good(token(**changes))


def test_a_site_where_somebody_signs_in_cannot_approve_in_their_name():
    """It chooses the nonce of their token, and its audience is that site."""
    stolen = token(aud="client-of-a-shop", nonce=signature_audience(MESSAGE))
    assert not is_good(stolen)
    assert not is_good(stolen, AcceptedIdentity(email="bea@example.com", client="chips"))
    assert not is_good(
        token(aud="chips", nonce=signature_audience(b"another")),
        AcceptedIdentity(email="bea@example.com", client="chips"),
    )


def test_a_token_of_another_key_or_algorithm_is_none():
    given = token()
    assert not is_good(given, AcceptedIdentity(email="dan@example.com"))
    assert not is_good(given, AcceptedIdentity(email="bea@example.com", issuer="https://other.example"))
    head, _, signature = given.rpartition(b".")
    damaged = one_bit_off(urlsafe_b64decode(signature + b"=="))
    assert not is_good(head + b"." + urlsafe_b64encode(damaged).rstrip(b"="))
    assert not is_good(b"x" * 9000)
    other = signer("k2").token(
        iss=ISSUER, aud=signature_audience(MESSAGE), email="bea@example.com", email_verified=True
    )
    assert not is_good(other.encode())
    payload = given.split(b".")[1]
    public = json.dumps(signer().jwk()).encode()  # what everybody knows, taken for a shared secret
    for algorithm in ("HS256", "none"):
        header = urlsafe_b64encode(json.dumps({"alg": algorithm, "kid": "k1"}).encode()).rstrip(b"=")
        signature = (
            hmac.new(public, header + b"." + payload, "sha256").digest() if algorithm != "none" else b""
        )
        forged = b".".join([header, payload, urlsafe_b64encode(signature).rstrip(b"=")])
        assert not is_good(forged)
    assert not has_signed(MESSAGE, given, (BEA,), {}, datetime.now(UTC)), "its key was retired"


async def test_keys_come_by_the_issuers_discovery_document():
    async with KeyServer(signer()) as server:
        keys = await fetch_available_keys([server.issuer, "http://127.0.0.1:9"])
        assert set(keys[server.issuer]) == {"k1"}
        assert keys["http://127.0.0.1:9"] == {}
        bea = AcceptedIdentity(email="bea@example.com", issuer=server.issuer)
        assert has_signed(MESSAGE, token(iss=server.issuer), (bea,), keys, datetime.now(UTC))
