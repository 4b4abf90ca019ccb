"""Checks of the headers that the contract names.

They are X-Chips-Model, Server-Timing, request and trace ids, and the caller's deadline. Keep-alive and statuses are checked
here, too.
"""

import statistics

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
    require_status,
)
from gateway.verify.raw_http import RawRequest, RawResponse

_PARTS = ("queue", "parse", "predict", "render")
_STALL_S = 0.03  # what a delayed acknowledgement costs is 40 ms on Linux


@check("headers/x-chips-model", "X-Chips-Model: {model}@{version} says which version answered", short=True)
async def served(context: CheckContext) -> None:
    for response in (
        await context.post("/predict", context.good or {}),
        await context.get(context.open_inference),
    ):
        if response.get("X-Chips-Model") != f"{context.model}@{context.version}":
            raise ContractViolation(f"X-Chips-Model is {response.get('X-Chips-Model')!r}")


@check(
    "headers/server-timing",
    "Server-Timing of a prediction names queue, parse, predict, render in ms",
    short=True,
)
async def timing(context: CheckContext) -> None:
    response = await context.post("/predict", context.require_good_request())
    durations = require_server_timing(response)
    missing = [part for part in _PARTS if part not in durations]
    if missing:
        raise ContractViolation(f"Server-Timing has no {', '.join(missing)}")
    if any(duration < 0 for duration in durations.values()):
        raise ContractViolation("a duration is negative")
    if sum(durations.values()) > response.seconds * 1000 + 1:
        raise ContractViolation(
            f"the parts add up to {sum(durations.values()):.1f} ms, the whole took {response.seconds * 1000:.1f} ms"
        )


@check("headers/server-timing-everywhere", "Server-Timing stands on every answer, errors too")
async def timing_everywhere(context: CheckContext) -> None:
    for request, response in context.exchanges:
        try:
            require_server_timing(response)
        except ContractViolation:
            context.last = (request, response)
            raise


@check(
    "headers/no-5xx",
    "what the caller did wrong is a 4xx: twenty 5xx in a row make Cloud Run end the instance",
)
async def no_5xx(context: CheckContext) -> None:
    for request, response in context.exchanges:
        if (
            response.status >= 500
            and response.status not in {503, 504}
            and b"prediction-failed" not in response.body
        ):
            context.last = (request, response)
            raise ContractViolation(f"status {response.status}")


@check("headers/request-id", "X-Request-Id in stands in the problem's request_id", short=True)
async def request_id(context: CheckContext) -> None:
    request = RawRequest("POST", "/predict", (*JSON, ("X-Request-Id", "verify-4711.a_b")), b"{")
    problem = require_problem(request, await context.send_and_record(request), 400, "malformed-json")
    if problem["request_id"] != "verify-4711.a_b":
        raise ContractViolation(f"request_id is {problem['request_id']!r}")


@check("headers/bad-request-id", "a request id that is none is replaced or cleaned, never reflected as it is")
async def bad_request_id(context: CheckContext) -> None:
    for given in ("<script>alert(1)</script>", '"}\u00ff{"', "x" * 5000):
        request = RawRequest("POST", "/predict", (*JSON, ("X-Request-Id", given)), b"{")
        response = await context.send_and_record(request)
        if response.status == 431:  # refused whole, which is fine too
            continue
        if require_problem(request, response, 400, "malformed-json")["request_id"] == given:
            raise ContractViolation(f"request_id is {given[:60]!r}")


@check("headers/bad-trace", "a traceparent that cannot be read is ignored")
async def bad_trace(context: CheckContext) -> None:
    for given in (
        "",
        "00-0-0-0",
        "ff-" + "a" * 32 + "-" + "b" * 16 + "-01",
        "00-" + "0" * 32 + "-" + "0" * 16 + "-01",
        "\u00ff",
    ):
        require_predictions(
            await context.post("/predict", context.require_good_request(), (*JSON, ("traceparent", given)))
        )


@check(
    "headers/deadline",
    "X-Request-Timeout: work that cannot begin before then is refused: 504 deadline-exceeded",
    short=True,
)
async def deadline(context: CheckContext) -> None:
    fields = (*JSON, ("X-Request-Timeout", "0"))
    response = await context.post("/predict", context.require_good_request(), fields)
    require_problem(RawRequest("POST", "/predict", fields), response, 504, "deadline-exceeded")
    await context.require_still_serving()


@check("headers/deadline-later", "time enough is time enough, and what is no number breaks nothing")
async def deadline_later(context: CheckContext) -> None:
    require_predictions(
        await context.post(
            "/predict", context.require_good_request(), (*JSON, ("X-Request-Timeout", "30000"))
        )
    )
    for given in ("soon", "-1", "1e3", "9" * 40, "\u00b2"):
        response = await context.post(
            "/predict", context.require_good_request(), (*JSON, ("X-Request-Timeout", given))
        )
        require_status(response, 200, 400, 504)


@check(
    "headers/kept-alive", "a kept-alive connection serves one request after another, or is closed with notice"
)
async def kept_alive(context: CheckContext) -> None:
    good = context.require_good_request()
    async with context.client.connection() as connection:
        for _ in range(3):
            response = await connection.request(_score(good))
            context.last = (_score(good), response)
            require_status(response, 200)
            if response.get("Connection").lower() == "close":
                return


@check("headers/no-stall", "a kept-alive caller never meets a delayed-acknowledgement stall of 40 ms")
async def no_stall(context: CheckContext) -> None:
    good = context.require_good_request()
    kept: list[float] = []
    async with context.client.connection() as connection:
        for _ in range(12):
            response = await connection.request(_score(good))
            context.last = (_score(good), response)
            if response.get("Connection").lower() == "close":
                raise CheckSkipped("the backend closes each connection")
            kept.append(_beside_the_work(response))
    fresh = [_beside_the_work(await context.send_and_record(_score(good))) for _ in range(4)]
    # The first on a connection does not stall; a slow machine makes all of them slow, a stall all but one.
    stall = statistics.quantiles(kept[1:], n=4)[0] - max(fresh)
    if stall > _STALL_S:
        raise ContractViolation(
            f"a kept-alive request waits {stall * 1000:.0f} ms longer than one on a connection of its own"
        )


def _beside_the_work(response: RawResponse) -> float:
    """Seconds that the request took beyond what the backend says it worked."""
    try:
        worked_ms = sum(require_server_timing(response).values())
    except ContractViolation:
        worked_ms = 0.0
    return response.seconds - worked_ms / 1000


def _score(good: dict[str, object]) -> RawRequest:
    return RawRequest("POST", "/predict", JSON, msgspec.json.encode(good))


CHECKS = (
    served, timing, request_id, bad_request_id, bad_trace, deadline, deadline_later, kept_alive, no_stall,
)  # fmt: skip
LAST = (timing_everywhere, no_5xx)
