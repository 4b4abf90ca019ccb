"""Checks of a backend process's start and stop. Bad settings and artifacts end it, SIGTERM drains it. These run last."""

import asyncio
import contextlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from gateway.free_ports import claim_free_port
from gateway.verify.backend_process import BackendProcess
from gateway.verify.changed_second_instance import (
    MANIFEST,
    START_S,
    artifact_copy_to_corrupt,
    start_second_instance,
)
from gateway.verify.conformance_check_type import (
    JSON,
    CheckContext,
    CheckSkipped,
    ContractViolation,
    NotPossibleOnThisMachine,
    check,
    require_predictions,
)
from gateway.verify.raw_http import EmptyResponse, NoCompleteResponse, RawRequest, RawResponse

EX_CONFIG = 78
_STOP_S = 10.0
_TRIAL_S = 30.0
_BEGUN_S = 0.05  # after one answer, another request has begun by then, or all are done


@check(
    "life/never-early",
    "never ready before warm: no prediction is answered while the backend says that it is not ready",
)
async def never_early(context: CheckContext) -> None:
    context.require_process()
    for predicted, ready in context.early:
        if predicted == 200 and ready == 503:
            raise ContractViolation(
                "POST /predict was answered with 200 while GET /v2/health/ready answered 503"
            )


async def _must_not_start(context: CheckContext, code: int | None, **environment: str | None) -> str:
    """Start the command once more with a changed environment (None: without the name); it must end by itself.

    With `code`, or, where that is None, with anything but 0. Gives what it said.
    """
    running = context.require_process()
    changed = {**running.environment, "PORT": str(claim_free_port())}
    for name, value in environment.items():
        changed.pop(name, None)
        if value is not None:
            changed[name] = value
    process = BackendProcess(running.command, changed)
    await process.spawn()
    try:
        ended_with = await process.wait_for_exit(timeout_s=START_S)
    finally:
        await process.stop()
    said = "\n".join([*process.lines, *process.errors])
    given = ", ".join(f"{n}={v}" if v is not None else f"no {n}" for n, v in environment.items())
    context.last = (
        RawRequest("", "", raw=f"the command, with {given}".encode()),
        NoCompleteResponse(said[-600:]),
    )
    if ended_with is None:
        raise ContractViolation(f"with {given} it starts all the same")
    if ended_with == 0 or ended_with != (code or ended_with):
        raise ContractViolation(f"with {given} it ends with {ended_with} instead of {code or 'an error'}")
    return said


def _require_named(what: str, said: str) -> None:
    if what not in said:
        raise ContractViolation(f"nothing it said names {what}")


@check("life/unknown-setting", "an unknown CHIPS_ name stops the start with one clear line and exit code 78")
async def unknown_setting(context: CheckContext) -> None:
    _require_named("CHIPS_CONCURENCY", await _must_not_start(context, EX_CONFIG, CHIPS_CONCURENCY="2"))


@check("life/bad-setting", "a value that does not parse stops the start with one clear line and exit code 78")
async def bad_setting(context: CheckContext) -> None:
    _require_named("CHIPS_CONCURRENCY", await _must_not_start(context, EX_CONFIG, CHIPS_CONCURRENCY="many"))


@check("life/missing-setting", "without CHIPS_ARTIFACT and AIP_STORAGE_URI it does not start: exit code 78")
async def missing_setting(context: CheckContext) -> None:
    await _must_not_start(context, EX_CONFIG, CHIPS_ARTIFACT=None, AIP_STORAGE_URI=None)


async def _must_not_start_from(context: CheckContext, artifact: Path) -> str:
    cache = str(artifact.parent / "cache")
    return await _must_not_start(context, None, CHIPS_ARTIFACT=str(artifact), CHIPS_CACHE_DIR=cache)


@check(
    "life/artifact-digest",
    "a manifest with another digest than CHIPS_ARTIFACT_DIGEST stops the start, and what was expected is named",
)
async def artifact_digest(context: CheckContext) -> None:
    other = "sha256:" + "0123456789abcdef" * 4
    said = await _must_not_start(context, None, CHIPS_ARTIFACT_DIGEST=other)
    _require_named(other, said)
    if "unknown" in said or "not known" in said:
        raise ContractViolation("it does not know CHIPS_ARTIFACT_DIGEST")


@check("life/corrupt-file", "a file with another digest than the manifest's stops the start, and is named")
async def corrupt_file(context: CheckContext) -> None:
    with artifact_copy_to_corrupt(context) as (artifact, manifest):
        path = artifact / manifest["files"][0]["path"]
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)
        _require_named(path.name, await _must_not_start_from(context, artifact))


@check("life/missing-file", "a file of the manifest that is not there stops the start, and is named")
async def missing_file(context: CheckContext) -> None:
    with artifact_copy_to_corrupt(context) as (artifact, manifest):
        path = artifact / manifest["files"][0]["path"]
        path.unlink()
        _require_named(path.name, await _must_not_start_from(context, artifact))


@check(
    "life/wrong-sample",
    "the manifest's first sample is scored as warm-up and must match: else the start stops",
)
async def wrong_sample(context: CheckContext) -> None:
    with artifact_copy_to_corrupt(context) as (artifact, manifest):
        if not manifest.get("samples"):
            raise CheckSkipped("the manifest has no samples")
        response = manifest["samples"][0]["response"]
        response["predictions"] = ["verify" for _ in response["predictions"]]
        (artifact / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        await _must_not_start_from(context, artifact)


@check(
    "life/vertex",
    "it also starts as Vertex AI starts it: with AIP_HTTP_PORT, AIP_STORAGE_URI and AIP_…_ROUTE, which hold a colon",
)
async def vertex(context: CheckContext) -> None:
    request = RawRequest(
        "POST", "/verify/9:predict", JSON, msgspec.json.encode(context.require_good_request())
    )
    port = claim_free_port()
    environment = context.require_process().environment
    environment["AIP_STORAGE_URI"] = environment.pop("CHIPS_ARTIFACT", environment.get("AIP_STORAGE_URI", ""))
    environment["AIP_HTTP_PORT"] = str(port)
    environment["AIP_PREDICT_ROUTE"], environment["AIP_HEALTH_ROUTE"] = request.path, "/verify/health"
    for ours in ("PORT", "CHIPS_MODEL", "CHIPS_VERSION"):
        environment.pop(ours, None)
    async with start_second_instance(context, port, environment, "/verify/health") as (client, _):
        response = await client.request(request)
        context.last = (request, response)
        require_predictions(response)


@check("life/two-at-once", "two processes on one machine may start at once, with nothing in the cache")
async def two_at_once(context: CheckContext) -> None:
    request = RawRequest("POST", "/predict", JSON, msgspec.json.encode(context.require_good_request()))
    environment = context.require_process().environment

    async def one(cache: str) -> None:
        port = claim_free_port()
        changed = {**environment, "PORT": str(port), "CHIPS_CACHE_DIR": cache}
        async with start_second_instance(context, port, changed) as (client, _):
            response = await client.request(request)
            context.last = (request, response)
            require_predictions(response)

    with tempfile.TemporaryDirectory() as cache:
        results = await asyncio.gather(one(cache), one(cache), return_exceptions=True)
    for result in results:
        if result is not None:
            raise result


@check("life/process-1", "on SIGTERM it ends with 0 also as process 1, as in a container")
async def process_1(context: CheckContext) -> None:
    running = context.require_process()
    port = claim_free_port()
    environment = {**running.environment, "PORT": str(port)}
    command = f"{await _namespace(environment)} {running.command}"
    async with start_second_instance(context, port, environment, command=command) as (_, process):
        process.terminate_wrapped_process()
        code = await process.wait_for_exit(timeout_s=_STOP_S)
        if code is None:
            raise ContractViolation(f"as process 1 it still runs {_STOP_S:g} seconds after SIGTERM")
        if code != 0:
            said = " ".join([*process.lines, *process.errors])[-400:]
            raise ContractViolation(f"as process 1 it ended with {code}; its last words: {said}")


async def _namespace(environment: Mapping[str, str]) -> str:
    """What to put before a command so that it is process 1; as root, and where a user may."""
    common = "--pid --fork --mount-proc --kill-child"
    for way in (f"unshare {common}", f"unshare --user --map-root-user {common}"):
        trial = BackendProcess(f"{way} true", environment)
        try:
            await trial.spawn()
        except OSError:
            break
        try:
            if await trial.wait_for_exit(timeout_s=_TRIAL_S) == 0:
                return way
        finally:
            await trial.stop()
    raise NotPossibleOnThisMachine(
        "no process can be made process 1 here: `unshare --pid` is missing or refused"
    )


@check(
    "life/stop", "on SIGTERM it stops accepting, finishes what is running, and ends with 0 within 10 seconds"
)
async def stop(context: CheckContext) -> None:
    process = context.require_process()
    first = context.require_good_request()["instances"][0]
    request = RawRequest("POST", "/predict", JSON, msgspec.json.encode({"instances": [first] * 2000}))
    async with contextlib.AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(context.client.connection()) for _ in range(4)]
        asked = [asyncio.create_task(connection.request(request)) for connection in connections]
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(_BEGUN_S)
        under_way = [task for task in asked if not task.done()]
        process.terminate()
        await asyncio.wait(asked)
    _require_finished(context, request, asked, under_way)
    code = await process.wait_for_exit(timeout_s=_STOP_S)
    if code is None:
        raise ContractViolation(f"it still runs {_STOP_S:g} seconds after SIGTERM")
    if code != 0:
        raise ContractViolation(
            f"it ended with {code}; its last words: {' '.join([*process.lines, *process.errors])[-400:]}"
        )
    with contextlib.suppress(NoCompleteResponse):
        await context.client.request(RawRequest("GET", "/v2/health/live"))
        raise ContractViolation("after it ended, something still answers at its address")


def _require_finished(
    context: CheckContext,
    request: RawRequest,
    asked: list[asyncio.Task[RawResponse]],
    under_way: list[asyncio.Task[RawResponse]],
) -> None:
    """What was answered is whole; and of what was under way at least one was running, and is answered.

    How many of them were running and how many still waited in the system's own queues, nobody outside can tell.
    """
    answered = 0
    for task in asked:
        error = task.exception()
        context.last = (request, error if isinstance(error, NoCompleteResponse) else task.result())
        if error is None:
            answered += task in under_way
            if task.result().status != 503:
                require_predictions(task.result())
        elif not isinstance(error, EmptyResponse):
            raise ContractViolation(
                f"a request that was under way when SIGTERM came got half an answer: {error}"
            )
    if under_way and not answered:
        raise ContractViolation(
            f"of {len(under_way)} requests that were under way when SIGTERM came none was answered"
        )


CHECKS = (
    never_early, unknown_setting, bad_setting, missing_setting, artifact_digest, corrupt_file, missing_file,
    wrong_sample, vertex, two_at_once, process_1, stop,
)  # fmt: skip
