"""The start that must fail, and the end: of a process that the kit started itself. These run last."""

import asyncio
import contextlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from gateway.verify.beside import MANIFEST, START_S, another, copied_artifact
from gateway.verify.check import JSON, Bench, NotChecked, NotPossibleHere, Wrong, check, predictions_of
from gateway.verify.process import Process, free_port
from gateway.verify.wire import Ask, Came, NoAnswer, Nothing

EX_CONFIG = 78
_STOP_S = 10.0
_TRIAL_S = 30.0
_BEGUN_S = 0.05  # after one answer, another request has begun by then, or all are done


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
        ended_with = await process.ended(timeout_s=START_S)
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


async def _must_not_start_from(bench: Bench, artifact: Path) -> str:
    cache = str(artifact.parent / "cache")
    return await _must_not_start(bench, None, CHIPS_ARTIFACT=str(artifact), CHIPS_CACHE_DIR=cache)


@check(
    "life/artifact-digest",
    "a manifest with another digest than CHIPS_ARTIFACT_DIGEST stops the start, and what was expected is named",
)
async def artifact_digest(bench: Bench) -> None:
    other = "sha256:" + "0123456789abcdef" * 4
    said = await _must_not_start(bench, None, CHIPS_ARTIFACT_DIGEST=other)
    _require_named(other, said)
    if "unknown" in said or "not known" in said:
        raise Wrong("it does not know CHIPS_ARTIFACT_DIGEST")


@check("life/corrupt-file", "a file with another digest than the manifest's stops the start, and is named")
async def corrupt_file(bench: Bench) -> None:
    with copied_artifact(bench) as (artifact, manifest):
        path = artifact / manifest["files"][0]["path"]
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
        _require_named(path.name, await _must_not_start_from(bench, artifact))


@check("life/missing-file", "a file of the manifest that is not there stops the start, and is named")
async def missing_file(bench: Bench) -> None:
    with copied_artifact(bench) as (artifact, manifest):
        path = artifact / manifest["files"][0]["path"]
        path.unlink()
        _require_named(path.name, await _must_not_start_from(bench, artifact))


@check(
    "life/wrong-sample",
    "the manifest's first sample is scored as warm-up and must match: else the start stops",
)
async def wrong_sample(bench: Bench) -> None:
    with copied_artifact(bench) as (artifact, manifest):
        if not manifest.get("samples"):
            raise NotChecked("the manifest has no samples")
        response = manifest["samples"][0]["response"]
        response["predictions"] = ["verify" for _ in response["predictions"]]
        (artifact / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        await _must_not_start_from(bench, artifact)


@check(
    "life/vertex",
    "it also starts as Vertex AI starts it: with AIP_HTTP_PORT, AIP_STORAGE_URI and AIP_…_ROUTE, which hold a colon",
)
async def vertex(bench: Bench) -> None:
    ask = Ask("POST", "/verify/9:predict", JSON, msgspec.json.encode(bench.need_good()))
    port = free_port()
    environment = bench.need_process().environment
    environment["AIP_STORAGE_URI"] = environment.pop("CHIPS_ARTIFACT", environment.get("AIP_STORAGE_URI", ""))
    environment["AIP_HTTP_PORT"] = str(port)
    environment["AIP_PREDICT_ROUTE"], environment["AIP_HEALTH_ROUTE"] = ask.path, "/verify/health"
    for ours in ("PORT", "CHIPS_MODEL", "CHIPS_VERSION"):
        environment.pop(ours, None)
    async with another(bench, port, environment, "/verify/health") as (wire, _):
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
        async with another(bench, port, changed) as (wire, _):
            came = await wire.ask(ask)
            bench.last = (ask, came)
            predictions_of(came)

    with tempfile.TemporaryDirectory() as cache:
        results = await asyncio.gather(one(cache), one(cache), return_exceptions=True)
    for result in results:
        if result is not None:
            raise result


@check("life/process-1", "on SIGTERM it ends with 0 also as process 1, as in a container")
async def process_1(bench: Bench) -> None:
    running = bench.need_process()
    port = free_port()
    environment = {**running.environment, "PORT": str(port)}
    command = f"{await _namespace(environment)} {running.command}"
    async with another(bench, port, environment, command=command) as (_, process):
        process.terminate_child()
        code = await process.ended(timeout_s=_STOP_S)
        if code is None:
            raise Wrong(f"as process 1 it still runs {_STOP_S:g} seconds after SIGTERM")
        if code != 0:
            said = " ".join([*process.lines, *process.errors])[-400:]
            raise Wrong(f"as process 1 it ended with {code}; its last words: {said}")


async def _namespace(environment: Mapping[str, str]) -> str:
    """What to put before a command so that it is process 1; as root, and where a user may."""
    common = "--pid --fork --mount-proc --kill-child"
    for way in (f"unshare {common}", f"unshare --user --map-root-user {common}"):
        trial = Process(f"{way} true", environment)
        try:
            await trial.start()
        except OSError:
            break
        try:
            if await trial.ended(timeout_s=_TRIAL_S) == 0:
                return way
        finally:
            await trial.stop()
    raise NotPossibleHere("no process can be made process 1 here: `unshare --pid` is missing or refused")


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
    never_early, unknown_setting, bad_setting, missing_setting, artifact_digest, corrupt_file, missing_file,
    wrong_sample, vertex, two_at_once, process_1, stop,
)  # fmt: skip
