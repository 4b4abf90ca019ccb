"""Start a second instance of the checked backend, with something changed.

The change is in its environment or in its copy of the artifact.
"""

import asyncio
import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway.verify.backend_process import BackendProcess
from gateway.verify.conformance_check_type import CheckContext, CheckSkipped, ContractViolation
from gateway.verify.raw_http import NoCompleteResponse, RawClient, RawRequest

MANIFEST = "manifest.json"
START_S = 120.0
_POLL_S = 0.1


@contextlib.contextmanager
def artifact_copy_to_corrupt(context: CheckContext) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A copy of the artifact that a check may corrupt. It comes with its manifest. Only for an artifact in a local folder."""
    given = context.require_process().environment.get("CHIPS_ARTIFACT", "").removeprefix("file://")
    folder = Path(given)
    if not given or not (folder / MANIFEST).is_file():
        raise CheckSkipped("CHIPS_ARTIFACT is no local folder, so the kit cannot damage a copy of it")
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "artifact"
        shutil.copytree(folder, copy)
        yield copy, json.loads((copy / MANIFEST).read_bytes())


@contextlib.asynccontextmanager
async def start_second_instance(
    context: CheckContext,
    port: int,
    environment: Mapping[str, str],
    health: str = "/v2/health/ready",
    command: str = "",
) -> AsyncIterator[tuple[RawClient, BackendProcess]]:
    """Start a second instance of the backend at `port`.

    It has this environment, and the same command or another one. Raises ContractViolation where it does not get ready.
    """
    process = BackendProcess(command or context.require_process().command, environment)
    client = RawClient(f"http://127.0.0.1:{port}")
    await process.spawn()
    try:
        give_up_at = time.monotonic() + START_S
        while not await _is_ready(client, health):
            if process.exit_code is not None or time.monotonic() > give_up_at:
                said = "\n".join([*process.lines, *process.errors])[-600:]
                ended = (
                    "has not got ready" if process.exit_code is None else f"ended with {process.exit_code}"
                )
                raise ContractViolation(f"it {ended}; it said: {said}")
            await asyncio.sleep(_POLL_S)
        yield client, process
    finally:
        await process.stop()


async def _is_ready(client: RawClient, health: str) -> bool:
    try:
        return (await client.request(RawRequest("GET", health))).status == 200
    except NoCompleteResponse:
        return False
