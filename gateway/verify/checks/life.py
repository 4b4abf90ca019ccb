"""The end, and starts that must fail: for a process that the kit started itself. These run last."""

import asyncio
import contextlib
import json
import re

import msgspec

from gateway.verify.check import JSON, Bench, Wrong, check, predictions_of
from gateway.verify.process import Process, free_port
from gateway.verify.wire import Ask, Came, NoAnswer

EX_CONFIG = 78
_STOP_S = 10.0
_START_S = 120.0


async def _must_not_start(bench: Bench, **environment: str | None) -> Process:
    """Start the command once more with a changed environment (None: without the name); it must end by itself."""
    running = bench.need_process()
    changed = {**running.environment, "PORT": str(free_port())}
    for name, value in environment.items():
        changed.pop(name, None)
        if value is not None:
            changed[name] = value
    process = Process(running.command, changed)
    await process.start()
    try:
        code = await process.ended(timeout_s=_START_S)
    finally:
        await process.stop()
    said = "\n".join([*process.lines, *process.errors])[-600:]
    given = ", ".join(
        f"{name}={value}" if value is not None else f"no {name}" for name, value in environment.items()
    )
    if code is None:
        raise Wrong(f"with {given} it starts all the same")
    if code != EX_CONFIG:
        raise Wrong(f"with {given} it ends with {code} instead of {EX_CONFIG}; it said: {said}")
    return process


@check("life/unknown-setting", "an unknown CHIPS_ name stops the start with one clear line and exit code 78")
async def unknown_setting(bench: Bench) -> None:
    process = await _must_not_start(bench, CHIPS_CONCURENCY="2")
    if not any("CHIPS_CONCURENCY" in line for line in (*process.lines, *process.errors)):
        raise Wrong("nothing it said names CHIPS_CONCURENCY")


@check("life/bad-setting", "a value that does not parse stops the start with one clear line and exit code 78")
async def bad_setting(bench: Bench) -> None:
    process = await _must_not_start(bench, CHIPS_CONCURRENCY="many")
    if not any("CHIPS_CONCURRENCY" in line for line in (*process.lines, *process.errors)):
        raise Wrong("nothing it said names CHIPS_CONCURRENCY")


@check("life/missing-setting", "without CHIPS_MODEL it does not start: exit code 78")
async def missing_setting(bench: Bench) -> None:
    await _must_not_start(bench, CHIPS_MODEL=None)


@check(
    "life/progress",
    "never ready before warm: the log tells of the start, and no request was scored before it was ready",
)
async def progress(bench: Bench) -> None:
    process = bench.need_process()
    ready_at = next(
        (at for at, line in enumerate(process.lines) if re.search(r"\bready\b", line, re.IGNORECASE)), None
    )
    scored_at = next((at for at, line in enumerate(process.lines) if _is_score(line)), None)
    if scored_at is not None and ready_at is not None and scored_at < ready_at:
        raise Wrong(
            f"it answered a prediction before it said that it was ready: {process.lines[scored_at][:300]}"
        )


def _is_score(line: str) -> bool:
    with contextlib.suppress(ValueError, AttributeError):
        http = json.loads(line).get("httpRequest") or {}
        return http.get("requestUrl", "").endswith("/predict") and http.get("status") == 200
    return False


@check(
    "life/stop", "on SIGTERM it stops accepting, finishes what is running, and ends with 0 within 10 seconds"
)
async def stop(bench: Bench) -> None:
    process = bench.need_process()
    first = bench.need_good()["instances"][0]
    ask = Ask("POST", "/predict", JSON, msgspec.json.encode({"instances": [first] * 2000}))
    async with contextlib.AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(bench.wire.connection()) for _ in range(4)]
        under_way = [asyncio.create_task(connection.ask(ask)) for connection in connections]
        # One whole answer shows that the others have been read as well: they came before it.
        await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
        process.terminate()
        outcomes = await asyncio.gather(*under_way, return_exceptions=True)
    code = await process.ended(timeout_s=_STOP_S)
    for outcome in outcomes:
        bench.last = (ask, outcome) if isinstance(outcome, Came | NoAnswer) else bench.last
        if not isinstance(outcome, Came):
            raise Wrong(f"a request that was under way when SIGTERM came got no whole answer: {outcome}")
        if outcome.status != 503:
            predictions_of(outcome)
    if code is None:
        raise Wrong(f"it still runs {_STOP_S:g} seconds after SIGTERM")
    if code != 0:
        raise Wrong(
            f"it ended with {code}; its last words: {' '.join([*process.lines, *process.errors])[-400:]}"
        )
    with contextlib.suppress(NoAnswer):
        await bench.wire.ask(Ask("GET", "/v2/health/live"))
        raise Wrong("after it ended, something still answers at its address")


CHECKS = (progress, unknown_setting, bad_setting, missing_setting, stop)
