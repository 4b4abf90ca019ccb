"""Checks how a backend downloads its artifact.

It downloads from Cloud Storage. The kit starts the backend itself, and serves as Cloud Storage.
"""

import asyncio
import hashlib
import json
import random
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.free_ports import claim_free_port
from gateway.verify.backend_process import BackendProcess
from gateway.verify.changed_second_instance import MANIFEST, artifact_copy_to_corrupt, start_second_instance
from gateway.verify.conformance_check_type import (
    JSON,
    CheckContext,
    ContractViolation,
    check,
    require_predictions,
)
from gateway.verify.raw_http import RawRequest

if TYPE_CHECKING:  # it needs aiohttp's server, which few commands need
    from gateway.verify.fake_gcs import FakeGcs

_BALLAST = "verify-ballast.bin"
_BALLAST_BYTES = 16 * 1024 * 1024
_PREFIX = "artifact"
_REQUEST_ID = "verify-fetched"
_LOG_S = 10.0
_STALL_S = 120.0
_PERCENT = re.compile(r"\b(\d{1,3})\s?%")
_TENTHS = 8  # of ten: blocks may be larger than a tenth is apart


@asynccontextmanager
async def _stored(context: CheckContext) -> AsyncIterator[tuple["FakeGcs", dict[str, str]]]:
    """The artifact with a large file next to it, as objects; and the environment of a backend that fetches it from there."""
    from gateway.verify.fake_gcs import BUCKET, FakeGcs

    with artifact_copy_to_corrupt(context) as (folder, manifest), tempfile.TemporaryDirectory() as cache:
        ballast = random.Random(1).randbytes(_BALLAST_BYTES)  # noqa: S311
        manifest["files"].append(
            {"path": _BALLAST, "bytes": len(ballast), "sha256": hashlib.sha256(ballast).hexdigest()}
        )
        objects = {file["path"]: (folder / file["path"]).read_bytes() for file in manifest["files"][:-1]}
        objects |= {_BALLAST: ballast, MANIFEST: json.dumps(manifest).encode()}
        store = FakeGcs({f"{_PREFIX}/{name}": content for name, content in objects.items()})
        environment = {
            **context.require_process().environment,
            "STORAGE_EMULATOR_HOST": await store.start(),
            "CHIPS_ARTIFACT": f"gs://{BUCKET}/{_PREFIX}/",
            "CHIPS_CACHE_DIR": cache,
        }
        environment.pop("CHIPS_ARTIFACT_DIGEST", None)  # of the artifact as it is, not of this
        try:
            yield store, environment
        finally:
            await store.stop()


async def _serve_once(context: CheckContext, environment: dict[str, str]) -> list[str]:
    """Start the command, get one prediction of it, end it. Its log until then."""
    port = claim_free_port()
    fields = (*JSON, ("X-Request-Id", _REQUEST_ID))
    request = RawRequest("POST", "/predict", fields, msgspec.json.encode(context.require_good_request()))
    async with start_second_instance(context, port, {**environment, "PORT": str(port)}) as (client, process):
        response = await client.request(request)
        context.last = (request, response)
        require_predictions(response)
        # Its own line comes after all that the start has said.
        await process.wait_for_line(_REQUEST_ID, timeout_s=_LOG_S)
        return list(process.lines)


@check("fetch/progress", "while the artifact is fetched, each ten percent of it is one line of the log")
async def progress(context: CheckContext) -> None:
    async with _stored(context) as (_, environment):
        log = await _serve_once(context, environment)
    on_result = [int(found[1]) for line in log if (found := _PERCENT.search(_message(line)))]
    if len(set(on_result)) < _TENTHS:
        raise ContractViolation(
            f"of {_BALLAST_BYTES >> 20} MiB it told {on_result or 'no percentage at all'}"
        )
    if len(on_result) > 11:
        raise ContractViolation(f"it wrote {len(on_result)} lines about the progress of one download")


def _message(line: str) -> str:
    try:
        entry: Any = json.loads(line)
    except ValueError:
        return ""
    return str(entry.get("message", "")) if isinstance(entry, dict) else ""


@check(
    "fetch/recovers",
    "killed in the middle of a download, the next start is whole, and the one after that fetches nothing",
)
async def recovers(context: CheckContext) -> None:
    async with _stored(context) as (store, environment):
        store.stalls_at = f"{_PREFIX}/{_BALLAST}"
        await _kill_while_it_fetches(context, store, environment)
        store.stalls_at = None
        await _serve_once(context, environment)
        store.fetched.clear()
        await _serve_once(context, environment)
        again = [name for name in store.fetched if not name.endswith(MANIFEST)]
        if again:
            raise ContractViolation(f"with everything in the cache it fetched {', '.join(again)} again")


async def _kill_while_it_fetches(
    context: CheckContext, store: "FakeGcs", environment: dict[str, str]
) -> None:
    process = BackendProcess(
        context.require_process().command, {**environment, "PORT": str(claim_free_port())}
    )
    await process.spawn()
    stalled = asyncio.create_task(store.stalled.wait())
    ended = asyncio.create_task(process.wait_for_exit(timeout_s=_STALL_S))
    try:
        await asyncio.wait({stalled, ended}, timeout=_STALL_S, return_when=asyncio.FIRST_COMPLETED)
        if not stalled.done():
            said = "\n".join([*process.lines, *process.errors])[-600:]
            raise ContractViolation(f"it did not fetch {_BALLAST}, which its manifest names; it said: {said}")
    finally:
        stalled.cancel()
        ended.cancel()
        await asyncio.gather(stalled, ended, return_exceptions=True)
        await process.stop()


CHECKS = (progress, recovers)
