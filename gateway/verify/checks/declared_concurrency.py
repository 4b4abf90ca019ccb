"""Checks that a backend runs as many predictions at once as it declares.

Each of many requests at once is answered. A full queue refuses the next request with 503.
"""

import asyncio
import re
import time

import msgspec

from gateway.verify.conformance_check_type import (
    JSON,
    CheckContext,
    CheckSkipped,
    ContractViolation,
    check,
    require_predictions,
    require_problem,
    require_server_timing,
)
from gateway.verify.raw_http import NoCompleteResponse, RawRequest, RawResponse

_AT_ONCE = 64
_ROUNDS = 40  # one without a wait is proof; on a busy machine, most show one
_PAUSE_S = 0.05
_LONG_MS = 20.0
_INSTANT_MS = 10.0  # on a busy machine a thread may wait as long for a processor
_LARGEST_BODY_BYTES = 2_000_000
_SHARED = re.compile(r"\bpredict\s*;[^,]*\bshared=([1-9]\d{0,5})")


async def _burst(context: CheckContext, request: RawRequest, count: int) -> list[RawResponse]:
    async def one() -> RawResponse:
        try:
            return await context.client.request(request)
        except NoCompleteResponse as error:
            context.last = (request, error)
            raise ContractViolation(f"of {count} requests at once one got no answer: {error}") from None

    results = await asyncio.gather(*(one() for _ in range(count)), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if isinstance(result, RawResponse)]


@check(
    "load/burst",
    "of many requests at once each is answered; where the queue is full: 503 overloaded with Retry-After",
)
async def burst(context: CheckContext) -> None:
    request = RawRequest("POST", "/predict", JSON, msgspec.json.encode(context.require_good_request()))
    for response in await _burst(context, request, _AT_ONCE):
        context.last = (request, response)
        if response.status == 503:
            require_problem(request, response, 503, "overloaded")
            if not response.get("Retry-After").isdigit():
                raise ContractViolation(f"Retry-After is {response.get('Retry-After')!r}")
        else:
            require_predictions(response)
    await context.require_still_serving()


@check("load/concurrency", "not more predictions run at once than the metadata declares")
async def concurrency(context: CheckContext) -> None:
    declared = (context.metadata.get("parameters") or {}).get("concurrency")
    if not isinstance(declared, int):
        raise CheckSkipped("the metadata declares no concurrency")
    first = context.require_good_request()["instances"][0]
    request = RawRequest("POST", "/predict", JSON, msgspec.json.encode({"instances": [first] * 500}))
    began = time.monotonic()
    cames = await _burst(context, request, 8)
    took_ms = (time.monotonic() - began) * 1000
    worked_ms = sum(_predicted_ms(response) for response in cames if response.status == 200)
    # All predictions together cannot take longer than the whole time in each of the declared slots.
    if worked_ms > took_ms * declared * 1.1 + 5:
        context.last = (request, cames[0])
        raise ContractViolation(
            f"{worked_ms:.0f} ms of predictions in {took_ms:.0f} ms is more than {declared} at once"
        )


def _predicted_ms(response: RawResponse) -> float:
    """The time of a prediction; of one that requests shared, this request's part."""
    shared = _SHARED.search(response.get("Server-Timing"))
    return require_server_timing(response).get("predict", 0.0) / (int(shared[1]) if shared else 1)


@check(
    "load/parallel",
    "as many predictions as the metadata declares truly run at once: none waits for another's end",
)
async def parallel(context: CheckContext) -> None:
    declared = (context.metadata.get("parameters") or {}).get("concurrency")
    if not isinstance(declared, int):
        raise CheckSkipped("the metadata declares no concurrency")
    if declared == 1:
        return
    request = await _long_enough(context)
    # By what the backend says of itself, not by our clock: a machine that is busy makes all of them slow, but no line of them.
    queued = alone = 0.0
    for _ in range(_ROUNDS):
        timings = [
            require_server_timing(response)
            for response in await _burst(context, request, declared)
            if response.status == 200
        ]
        queued = max(timing.get("queue", 0.0) for timing in timings) if timings else 0.0
        alone = min(timing.get("predict", 0.0) for timing in timings) if timings else 0.0
        if len(timings) == declared and queued < max(alone, _INSTANT_MS):
            return
        await asyncio.sleep(_PAUSE_S)
    raise ContractViolation(
        f"of {declared} requests at once one waited {queued:.1f} ms for a slot, though a prediction takes {alone:.1f} ms"
    )


async def _long_enough(context: CheckContext) -> RawRequest:
    """A request whose prediction takes so long that another would be seen to wait for it, if the limit of bodies allows."""
    first = context.require_good_request()["instances"][0]
    rows = 200
    while True:
        request = RawRequest("POST", "/predict", JSON, msgspec.json.encode({"instances": [first] * rows}))
        response = await context.send_and_record(request)
        require_predictions(response)
        size = len(request.body or b"")
        if (
            require_server_timing(response).get("predict", 0.0) >= _LONG_MS
            or size * 2 > context.body_limit_bytes
        ):
            return request
        if size > _LARGEST_BODY_BYTES:
            return request
        rows *= 2


CHECKS = (burst, concurrency, parallel)
