"""Header fields in and out: who answered, how long each part took, whose request it was, how long the caller waits."""

import statistics

import msgspec

from gateway.verify.check import (
    JSON,
    Bench,
    NotChecked,
    Wrong,
    check,
    predictions_of,
    require_problem,
    require_status,
    server_timing,
)
from gateway.verify.wire import Ask, Came

_PARTS = ("queue", "parse", "predict", "render")
_STALL_S = 0.03  # what a delayed acknowledgement costs is 40 ms on Linux


@check("headers/x-chips-model", "X-Chips-Model: {model}@{version} says which version answered", short=True)
async def served(bench: Bench) -> None:
    for came in (await bench.post("/predict", bench.good or {}), await bench.get(bench.open_inference)):
        if came.get("X-Chips-Model") != f"{bench.model}@{bench.version}":
            raise Wrong(f"X-Chips-Model is {came.get('X-Chips-Model')!r}")


@check(
    "headers/server-timing",
    "Server-Timing of a prediction names queue, parse, predict, render in ms",
    short=True,
)
async def timing(bench: Bench) -> None:
    came = await bench.post("/predict", bench.need_good())
    durations = server_timing(came)
    missing = [part for part in _PARTS if part not in durations]
    if missing:
        raise Wrong(f"Server-Timing has no {', '.join(missing)}")
    if any(duration < 0 for duration in durations.values()):
        raise Wrong("a duration is negative")
    if sum(durations.values()) > came.seconds * 1000 + 1:
        raise Wrong(
            f"the parts add up to {sum(durations.values()):.1f} ms, the whole took {came.seconds * 1000:.1f} ms"
        )


@check("headers/server-timing-everywhere", "Server-Timing stands on every answer, errors too")
async def timing_everywhere(bench: Bench) -> None:
    for ask, came in bench.exchanges:
        try:
            server_timing(came)
        except Wrong:
            bench.last = (ask, came)
            raise


@check(
    "headers/no-5xx",
    "what the caller did wrong is a 4xx: twenty 5xx in a row make Cloud Run end the instance",
)
async def no_5xx(bench: Bench) -> None:
    for ask, came in bench.exchanges:
        if came.status >= 500 and came.status not in {503, 504} and b"prediction-failed" not in came.body:
            bench.last = (ask, came)
            raise Wrong(f"status {came.status}")


@check("headers/request-id", "X-Request-Id in stands in the problem's request_id", short=True)
async def request_id(bench: Bench) -> None:
    ask = Ask("POST", "/predict", (*JSON, ("X-Request-Id", "verify-4711.a_b")), b"{")
    problem = require_problem(ask, await bench.ask(ask), 400, "malformed-json")
    if problem["request_id"] != "verify-4711.a_b":
        raise Wrong(f"request_id is {problem['request_id']!r}")


@check("headers/bad-request-id", "a request id that is none is replaced or cleaned, never reflected as it is")
async def bad_request_id(bench: Bench) -> None:
    for given in ("<script>alert(1)</script>", '"}\u00ff{"', "x" * 5000):
        ask = Ask("POST", "/predict", (*JSON, ("X-Request-Id", given)), b"{")
        came = await bench.ask(ask)
        if came.status == 431:  # refused whole, which is fine too
            continue
        if require_problem(ask, came, 400, "malformed-json")["request_id"] == given:
            raise Wrong(f"request_id is {given[:60]!r}")


@check("headers/bad-trace", "a traceparent that cannot be read is ignored")
async def bad_trace(bench: Bench) -> None:
    for given in (
        "",
        "00-0-0-0",
        "ff-" + "a" * 32 + "-" + "b" * 16 + "-01",
        "00-" + "0" * 32 + "-" + "0" * 16 + "-01",
        "\u00ff",
    ):
        predictions_of(await bench.post("/predict", bench.need_good(), (*JSON, ("traceparent", given))))


@check(
    "headers/deadline",
    "X-Request-Timeout: work that cannot begin before then is refused: 504 deadline-exceeded",
    short=True,
)
async def deadline(bench: Bench) -> None:
    fields = (*JSON, ("X-Request-Timeout", "0"))
    came = await bench.post("/predict", bench.need_good(), fields)
    require_problem(Ask("POST", "/predict", fields), came, 504, "deadline-exceeded")
    await bench.still_good()


@check("headers/deadline-later", "time enough is time enough, and what is no number breaks nothing")
async def deadline_later(bench: Bench) -> None:
    predictions_of(await bench.post("/predict", bench.need_good(), (*JSON, ("X-Request-Timeout", "30000"))))
    for given in ("soon", "-1", "1e3", "9" * 40, "\u00b2"):
        came = await bench.post("/predict", bench.need_good(), (*JSON, ("X-Request-Timeout", given)))
        require_status(came, 200, 400, 504)


@check(
    "headers/kept-alive", "a kept-alive connection serves one request after another, or is closed with notice"
)
async def kept_alive(bench: Bench) -> None:
    good = bench.need_good()
    async with bench.wire.connection() as connection:
        for _ in range(3):
            came = await connection.ask(_score(good))
            bench.last = (_score(good), came)
            require_status(came, 200)
            if came.get("Connection").lower() == "close":
                return


@check("headers/no-stall", "a kept-alive caller never meets a delayed-acknowledgement stall of 40 ms")
async def no_stall(bench: Bench) -> None:
    good = bench.need_good()
    kept: list[float] = []
    async with bench.wire.connection() as connection:
        for _ in range(12):
            came = await connection.ask(_score(good))
            bench.last = (_score(good), came)
            if came.get("Connection").lower() == "close":
                raise NotChecked("the backend closes each connection")
            kept.append(_beside_the_work(came))
    fresh = [_beside_the_work(await bench.ask(_score(good))) for _ in range(4)]
    # The first on a connection does not stall; a slow machine makes all of them slow, a stall all but one.
    stall = statistics.quantiles(kept[1:], n=4)[0] - max(fresh)
    if stall > _STALL_S:
        raise Wrong(
            f"a kept-alive request waits {stall * 1000:.0f} ms longer than one on a connection of its own"
        )


def _beside_the_work(came: Came) -> float:
    """Seconds that the request took beyond what the backend says it worked."""
    try:
        worked_ms = sum(server_timing(came).values())
    except Wrong:
        worked_ms = 0.0
    return came.seconds - worked_ms / 1000


def _score(good: dict[str, object]) -> Ask:
    return Ask("POST", "/predict", JSON, msgspec.json.encode(good))


CHECKS = (
    served, timing, request_id, bad_request_id, bad_trace, deadline, deadline_later, kept_alive, no_stall,
)  # fmt: skip
LAST = (timing_everywhere, no_5xx)
