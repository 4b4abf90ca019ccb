"""Trace context: what the backend is told, and whose wish to keep a trace counts."""

import re

from gateway.core.model import Policy
from tests.flow.scene import Scene

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def parts(message, name="traceparent"):
    return (message.get(name) or "").split("-")


async def test_each_request_is_a_span_of_its_own_to_the_backend(scene: Scene):
    backend = await scene.model()
    for _ in range(2):
        await scene.call(fields=[("traceparent", CALLER)])
    first, second = (parts(seen) for seen in backend.seen)
    assert first[1] == second[1] == CALLER.split("-")[1]
    assert first[2] != second[2]
    assert all(re.fullmatch("[0-9a-f]{16}", span) for span in (first[2], second[2]))


async def test_a_trace_that_is_not_kept_says_so_to_the_backend():
    async with Scene(**{"trace.ratio": "0"}) as scene:
        backend = await scene.model()
        await scene.call()
        assert parts(backend.seen[0])[3] == "00"


async def test_the_wish_of_a_stranger_is_not_granted():
    async with Scene(**{"trace.ratio": "0", "trace.trusted_networks": "192.0.2.0/24"}) as scene:
        backend = await scene.model()
        await scene.call(fields=[("traceparent", CALLER)])
        assert parts(backend.seen[0])[3] == "00"


async def test_a_model_has_a_share_of_its_own():
    async with Scene(**{"trace.ratio": "0"}) as scene:
        backend = await scene.model(policy=Policy(trace_ratio=1.0))
        await scene.call()
        assert parts(backend.seen[0])[3] == "01"


async def test_tracestate_goes_with_the_trace_it_belongs_to(scene: Scene):
    backend = await scene.model()
    await scene.call(fields=[("traceparent", CALLER), ("tracestate", "a=1"), ("tracestate", "b=2")])
    await scene.call(fields=[("traceparent", "00-nonsense"), ("tracestate", "a=1")])
    await scene.call(fields=[("tracestate", "a=1")])
    assert [seen.get("tracestate") for seen in backend.seen] == ["a=1, b=2", None, None]
