"""Pages that show approvals do not ask the issuers each time that they are refreshed."""

import asyncio
from collections.abc import Sequence

import pytest

from gateway.auth.jwks import PublicKey
from gateway.signoff.environment_policy import AcceptedIdentity, Person, SignOffPolicy
from gateway.signoff.read_sign_off_records import IssuerKeyCache


def policy(*issuers: str) -> SignOffPolicy:
    tokens = tuple(AcceptedIdentity(issuer=issuer, email="ana@example.com") for issuer in issuers)
    return SignOffPolicy(
        people=(Person(name="ana", roles=("approver",), tokens=tokens),), approvals={"approver": 1}
    )


async def test_issuers_are_asked_twice_a_minute_however_many_look(monkeypatch: pytest.MonkeyPatch):
    asked: list[list[str]] = []

    async def fetch(issuers: Sequence[str]) -> dict[str, dict[str, PublicKey]]:
        asked.append(list(issuers))
        await asyncio.sleep(0)
        return {issuer: {} for issuer in issuers}

    monkeypatch.setattr("gateway.signoff.read_sign_off_records.fetch_available_keys", fetch)
    now = 100.0
    recent = IssuerKeyCache(lambda: now)
    found = await asyncio.gather(*(recent.find(policy("https://a")) for _ in range(5)))
    assert (found, asked) == ([{"https://a": {}}] * 5, [["https://a"]])
    now = 129.9
    await recent.find(policy("https://a"))
    assert len(asked) == 1
    assert await recent.find(policy("https://a", "https://b")) == {"https://a": {}, "https://b": {}}
    now = 160.0
    await recent.find(policy("https://a", "https://b"))
    assert len(asked) == 3
    assert await recent.find(policy()) == {}
    assert len(asked) == 3
