"""Many at once: concurrency as declared, and a full queue that says so."""

import asyncio
import time

import msgspec

from gateway.verify.check import (
    JSON,
    Bench,
    NotChecked,
    Wrong,
    check,
    predictions_of,
    require_problem,
    server_timing,
)
from gateway.verify.wire import Ask, Came, NoAnswer

_AT_ONCE = 64
_ROUNDS = 8
_PAUSE_S = 0.05
_LONG_MS = 20.0
_INSTANT_MS = 1.0
_LARGEST_BODY_BYTES = 2_000_000


async def _burst(bench: Bench, ask: Ask, count: int) -> list[Came]:
    async def one() -> Came:
        try:
            return await bench.wire.ask(ask)
        except NoAnswer as error:
            bench.last = (ask, error)
            raise Wrong(f"of {count} requests at once one got no answer: {error}") from None

    results = await asyncio.gather(*(one() for _ in range(count)), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if isinstance(result, Came)]


@check(
    "load/burst",
    "of many requests at once each is answered; where the queue is full: 503 overloaded with Retry-After",
)
async def burst(bench: Bench) -> None:
    ask = Ask("POST", "/predict", JSON, msgspec.json.encode(bench.need_good()))
    for came in await _burst(bench, ask, _AT_ONCE):
        bench.last = (ask, came)
        if came.status == 503:
            require_problem(ask, came, 503, "overloaded")
            if not came.get("Retry-After").isdigit():
                raise Wrong(f"Retry-After is {came.get('Retry-After')!r}")
        else:
            predictions_of(came)
    await bench.still_good()


@check("load/concurrency", "not more predictions run at once than the metadata declares")
async def concurrency(bench: Bench) -> None:
    declared = (bench.metadata.get("parameters") or {}).get("concurrency")
    if not isinstance(declared, int):
        raise NotChecked("the metadata declares no concurrency")
    first = bench.need_good()["instances"][0]
    ask = Ask("POST", "/predict", JSON, msgspec.json.encode({"instances": [first] * 500}))
    began = time.monotonic()
    cames = await _burst(bench, ask, 8)
    took_ms = (time.monotonic() - began) * 1000
    worked_ms = sum(server_timing(came).get("predict", 0.0) for came in cames if came.status == 200)
    # All predictions together cannot take longer than the whole time in each of the declared slots.
    if worked_ms > took_ms * declared * 1.1 + 5:
        bench.last = (ask, cames[0])
        raise Wrong(f"{worked_ms:.0f} ms of predictions in {took_ms:.0f} ms is more than {declared} at once")


@check(
    "load/parallel",
    "as many predictions as the metadata declares truly run at once: none waits for another's end",
)
async def parallel(bench: Bench) -> None:
    declared = (bench.metadata.get("parameters") or {}).get("concurrency")
    if not isinstance(declared, int):
        raise NotChecked("the metadata declares no concurrency")
    if declared == 1:
        return
    ask = await _long_enough(bench)
    # By what the backend says of itself, not by our clock: a machine that is busy makes all of them slow, but no line of them.
    queued = alone = 0.0
    for _ in range(_ROUNDS):
        timings = [server_timing(came) for came in await _burst(bench, ask, declared) if came.status == 200]
        queued = max(timing.get("queue", 0.0) for timing in timings) if timings else 0.0
        alone = min(timing.get("predict", 0.0) for timing in timings) if timings else 0.0
        if len(timings) == declared and queued < max(alone, _INSTANT_MS):
            return
        await asyncio.sleep(_PAUSE_S)
    raise Wrong(
        f"of {declared} requests at once one waited {queued:.1f} ms for a slot, though a prediction takes {alone:.1f} ms"
    )


async def _long_enough(bench: Bench) -> Ask:
    """A request whose prediction takes so long that another would be seen to wait for it, if the limit of bodies allows."""
    first = bench.need_good()["instances"][0]
    rows = 200
    while True:
        ask = Ask("POST", "/predict", JSON, msgspec.json.encode({"instances": [first] * rows}))
        came = await bench.ask(ask)
        predictions_of(came)
        size = len(ask.body or b"")
        if server_timing(came).get("predict", 0.0) >= _LONG_MS or size * 2 > bench.body_limit_bytes:
            return ask
        if size > _LARGEST_BODY_BYTES:
            return ask
        rows *= 2


CHECKS = (burst, concurrency, parallel)
