"""The start that must fail, and the end: of a process that the kit started itself. These run last."""

import asyncio
import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from gateway.verify.check import JSON, Bench, NotChecked, Wrong, check, predictions_of
from gateway.verify.process import Process, free_port
from gateway.verify.wire import Ask, Came, NoAnswer, Nothing, Wire

EX_CONFIG = 78
_MANIFEST = "manifest.json"
_STOP_S = 10.0
_BEGUN_S = 0.05  # after one answer, another request has begun by then, or all are done
_START_S = 120.0
_POLL_S = 0.1


@check(
    "life/never-early",
    "never ready before warm: no prediction is answered while the backend says that it is not ready",
)
async def never_early(bench: Bench) -> None:
    bench.need_process()
    for predicted, ready in bench.early:
        if predicted == 200 and ready == 503:
            raise Wrong("POST /predict was answered with 200 while GET /v2/health/ready answered 503")


async def _must_not_start(bench: Bench, code: int | None, **environment: str | None) -> str:
    """Start the command once more with a changed environment (None: without the name); it must end by itself.

    With `code`, or, where that is None, with anything but 0. Gives what it said.
    """
    running = bench.need_process()
    changed = {**running.environment, "PORT": str(free_port())}
    for name, value in environment.items():
        changed.pop(name, None)
        if value is not None:
            changed[name] = value
    process = Process(running.command, changed)
    await process.start()
    try:
        ended_with = await process.ended(timeout_s=_START_S)
    finally:
        await process.stop()
    said = "\n".join([*process.lines, *process.errors])
    given = ", ".join(f"{n}={v}" if v is not None else f"no {n}" for n, v in environment.items())
    bench.last = (Ask("", "", raw=f"the command, with {given}".encode()), NoAnswer(said[-600:]))
    if ended_with is None:
        raise Wrong(f"with {given} it starts all the same")
    if ended_with == 0 or ended_with != (code or ended_with):
        raise Wrong(f"with {given} it ends with {ended_with} instead of {code or 'an error'}")
    return said


def _require_named(what: str, said: str) -> None:
    if what not in said:
        raise Wrong(f"nothing it said names {what}")


@check("life/unknown-setting", "an unknown CHIPS_ name stops the start with one clear line and exit code 78")
async def unknown_setting(bench: Bench) -> None:
    _require_named("CHIPS_CONCURENCY", await _must_not_start(bench, EX_CONFIG, CHIPS_CONCURENCY="2"))


@check("life/bad-setting", "a value that does not parse stops the start with one clear line and exit code 78")
async def bad_setting(bench: Bench) -> None:
    _require_named("CHIPS_CONCURRENCY", await _must_not_start(bench, EX_CONFIG, CHIPS_CONCURRENCY="many"))


@check("life/missing-setting", "without CHIPS_ARTIFACT and AIP_STORAGE_URI it does not start: exit code 78")
async def missing_setting(bench: Bench) -> None:
    await _must_not_start(bench, EX_CONFIG, CHIPS_ARTIFACT=None, AIP_STORAGE_URI=None)


@contextlib.contextmanager
def _copied_artifact(bench: Bench) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A copy of the artifact, to spoil, and its manifest. Only of one in a local folder."""
    given = bench.need_process().environment.get("CHIPS_ARTIFACT", "").removeprefix("file://")
    folder = Path(given)
    if not given or not (folder / _MANIFEST).is_file():
        raise NotChecked("CHIPS_ARTIFACT is no local folder, so the kit cannot spoil a copy of it")
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "artifact"
        shutil.copytree(folder, copy)
        yield copy, json.loads((copy / _MANIFEST).read_bytes())


async def _must_not_start_from(bench: Bench, artifact: Path) -> str:
    cache = str(artifact.parent / "cache")
    return await _must_not_start(bench, None, CHIPS_ARTIFACT=str(artifact), CHIPS_CACHE_DIR=cache)


@check("life/corrupt-file", "a file with another digest than the manifest's stops the start, and is named")
async def corrupt_file(bench: Bench) -> None:
    with _copied_artifact(bench) as (artifact, manifest):
        path = artifact / manifest["files"][0]["path"]
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
        _require_named(path.name, await _must_not_start_from(bench, artifact))


@check("life/missing-file", "a file of the manifest that is not there stops the start, and is named")
async def missing_file(bench: Bench) -> None:
    with _copied_artifact(bench) as (artifact, manifest):
        path = artifact / manifest["files"][0]["path"]
        path.unlink()
        _require_named(path.name, await _must_not_start_from(bench, artifact))


@check(
    "life/wrong-sample",
    "the manifest's first sample is scored as warm-up and must match: else the start stops",
)
async def wrong_sample(bench: Bench) -> None:
    with _copied_artifact(bench) as (artifact, manifest):
        if not manifest.get("samples"):
            raise NotChecked("the manifest has no samples")
        response = manifest["samples"][0]["response"]
        response["predictions"] = ["verify" for _ in response["predictions"]]
        (artifact / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        await _must_not_start_from(bench, artifact)


@contextlib.asynccontextmanager
async def _another(
    bench: Bench, port: int, environment: Mapping[str, str], health: str = "/v2/health/ready"
) -> AsyncIterator[Wire]:
    """The same command once more, ready at `port`. Raises Wrong where it does not get ready."""
    process = Process(bench.need_process().command, environment)
    wire = Wire(f"http://127.0.0.1:{port}")
    await process.start()
    try:
        give_up_at = time.monotonic() + _START_S
        while not await _is_ready(wire, health):
            if process.exit_code is not None or time.monotonic() > give_up_at:
                said = "\n".join([*process.lines, *process.errors])[-600:]
                ended = (
                    "has not got ready" if process.exit_code is None else f"ended with {process.exit_code}"
                )
                raise Wrong(f"it {ended}; it said: {said}")
            await asyncio.sleep(_POLL_S)
        yield wire
    finally:
        await process.stop()


async def _is_ready(wire: Wire, health: str) -> bool:
    try:
        return (await wire.ask(Ask("GET", health))).status == 200
    except NoAnswer:
        return False


@check(
    "life/vertex",
    "it also starts as Vertex AI starts it: with AIP_HTTP_PORT, AIP_STORAGE_URI and AIP_…_ROUTE",
)
async def vertex(bench: Bench) -> None:
    ask = Ask("POST", "/verify/predict", JSON, msgspec.json.encode(bench.need_good()))
    port = free_port()
    environment = bench.need_process().environment
    environment["AIP_STORAGE_URI"] = environment.pop("CHIPS_ARTIFACT", environment.get("AIP_STORAGE_URI", ""))
    environment["AIP_HTTP_PORT"] = str(port)
    environment["AIP_PREDICT_ROUTE"], environment["AIP_HEALTH_ROUTE"] = ask.path, "/verify/health"
    del environment["PORT"]
    async with _another(bench, port, environment, "/verify/health") as wire:
        came = await wire.ask(ask)
        bench.last = (ask, came)
        predictions_of(came)


@check("life/two-at-once", "two processes on one machine may start at once, with nothing in the cache")
async def two_at_once(bench: Bench) -> None:
    ask = Ask("POST", "/predict", JSON, msgspec.json.encode(bench.need_good()))
    environment = bench.need_process().environment

    async def one(cache: str) -> None:
        port = free_port()
        changed = {**environment, "PORT": str(port), "CHIPS_CACHE_DIR": cache}
        async with _another(bench, port, changed) as wire:
            came = await wire.ask(ask)
            bench.last = (ask, came)
            predictions_of(came)

    with tempfile.TemporaryDirectory() as cache:
        results = await asyncio.gather(one(cache), one(cache), return_exceptions=True)
    for result in results:
        if result is not None:
            raise result


@check(
    "life/stop", "on SIGTERM it stops accepting, finishes what is running, and ends with 0 within 10 seconds"
)
async def stop(bench: Bench) -> None:
    process = bench.need_process()
    first = bench.need_good()["instances"][0]
    ask = Ask("POST", "/predict", JSON, msgspec.json.encode({"instances": [first] * 2000}))
    async with contextlib.AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(bench.wire.connection()) for _ in range(4)]
        asked = [asyncio.create_task(connection.ask(ask)) for connection in connections]
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(_BEGUN_S)
        under_way = [task for task in asked if not task.done()]
        process.terminate()
        await asyncio.wait(asked)
    _require_finished(bench, ask, asked, under_way)
    code = await process.ended(timeout_s=_STOP_S)
    if code is None:
        raise Wrong(f"it still runs {_STOP_S:g} seconds after SIGTERM")
    if code != 0:
        raise Wrong(
            f"it ended with {code}; its last words: {' '.join([*process.lines, *process.errors])[-400:]}"
        )
    with contextlib.suppress(NoAnswer):
        await bench.wire.ask(Ask("GET", "/v2/health/live"))
        raise Wrong("after it ended, something still answers at its address")


def _require_finished(
    bench: Bench, ask: Ask, asked: list[asyncio.Task[Came]], under_way: list[asyncio.Task[Came]]
) -> None:
    """What was answered is whole; and of what was under way at least one was running, and is answered.

    How many of them were running and how many still waited in the system's own queues, nobody outside can tell.
    """
    answered = 0
    for task in asked:
        error = task.exception()
        bench.last = (ask, error if isinstance(error, NoAnswer) else task.result())
        if error is None:
            answered += task in under_way
            if task.result().status != 503:
                predictions_of(task.result())
        elif not isinstance(error, Nothing):
            raise Wrong(f"a request that was under way when SIGTERM came got half an answer: {error}")
    if under_way and not answered:
        raise Wrong(f"of {len(under_way)} requests that were under way when SIGTERM came none was answered")


CHECKS = (
    never_early, unknown_setting, bad_setting, missing_setting, corrupt_file, missing_file, wrong_sample,
    vertex, two_at_once, stop,
)  # fmt: skip
