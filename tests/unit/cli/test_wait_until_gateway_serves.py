"""`chips register` waits until a gateway serves what was written."""

import asyncio

import pytest

from gateway.cli.support import wait_until_gateway_serves
from gateway.cli.support.wait_until_gateway_serves import wait_until_served
from gateway.registry.base import MirroredListing
from tests.flow.scripted import Message, Peer, ScriptedBackend
from tests.patience import patience

LISTING = MirroredListing(registry_id="here", generation=7, documents=())
SERVES = b'{"ready": true, "registry": {"id": "here", "generation": 7}}'


async def test_a_gateway_that_stands_still_for_a_moment_is_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wait_until_gateway_serves, "_WAIT_S", patience(30))
    monkeypatch.setattr(wait_until_gateway_serves, "_ANSWER_S", 0.2)
    asked: list[Message] = []

    async def still_at_first(request: Message, peer: Peer) -> None:
        asked.append(request)
        if len(asked) == 1:
            await peer.reader.read()  # until it is given up
        else:
            await peer.answer(body=SERVES)

    gateway = ScriptedBackend(still_at_first)
    await gateway.start()
    assert await wait_until_served(gateway.url, LISTING) == ""
    assert len(asked) > 1
    await gateway.stop()


async def test_where_nobody_listens_nobody_waits():
    async with asyncio.timeout(patience(30)):
        assert "chips serve" in await wait_until_served("http://127.0.0.1:1", LISTING)
