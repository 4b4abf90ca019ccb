"""A request leaves nothing for the garbage collector, however it ends: strangers cause as many as they like."""

import asyncio
import gc

import pytest

from gateway.core.exchange import Exchange
from gateway.core.model import Policy
from tests.flow.scene import Scene
from tests.flow.scripted import Message, Peer, Script, echo


async def breaks_off(request: Message, peer: Peer) -> None:
    peer.abort()


async def never_answers(request: Message, peer: Peer) -> None:
    await asyncio.Event().wait()


@pytest.mark.path("fast")
@pytest.mark.parametrize(
    ("status", "key", "policy", "script"),
    [
        (200, "", Policy(), echo),
        (401, "nobody's", Policy(), echo),
        (429, "", Policy(requests_per_s=0.001, burst=1), echo),
        (502, "", Policy(), breaks_off),
        (504, "", Policy(timeout_s=0.05), never_answers),
    ],
)
async def test_no_exchange_outlives_its_request(
    scene: Scene, status: int, key: str, policy: Policy, script: Script
):
    await scene.model(policy=policy, script=script)
    await scene.call("POST", "/wine", key=key or scene.key)
    gc.collect()
    before = _exchanges()  # an idle connection to a backend holds its last one
    gc.disable()
    try:
        for _ in range(10):
            answer = await scene.call("POST", "/wine", key=key or scene.key)
            assert answer.status == status
        left = _exchanges()
    finally:
        gc.enable()
    assert left <= before


def _exchanges() -> int:
    return sum(isinstance(thing, Exchange) for thing in gc.get_objects())
