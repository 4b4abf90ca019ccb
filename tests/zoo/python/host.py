"""Serves many artifacts in one process, so that a library is imported once: each on a port of its own, with and without batching.

`python -m tests.zoo.python.host ARTIFACT…` writes one JSON line for each: its ports, or why the start was refused.
Everything is the backend's own code (fetch, check, load, warm up, listen); only the process is shared.
"""

import asyncio
import io
import json
import sys
from typing import Any

from chips_backend.app import App
from chips_backend.artifact import ArtifactError
from chips_backend.config import Config
from chips_backend.logs import Log
from chips_backend.server import listen
from chips_backend.service import load
from chips_backend.warm_up import StartError


async def serve(artifact: str, batch_target_ms: int, log: Log) -> int:
    config = Config(artifact=artifact, port=0, concurrency=2, batch_target_ms=batch_target_ms)
    app = App(config, log)
    runner = await listen(app, 0, stop_grace_s=1.0)
    app.become_ready(await load(config, log))
    port: int = runner.addresses[0][1]
    return port


async def main(artifacts: list[str]) -> None:
    with io.StringIO() as nowhere:
        log = Log(nowhere)
        for artifact in artifacts:
            told: dict[str, Any] = {"artifact": artifact}
            try:
                told["port"] = await serve(artifact, 0, log)
                told["batching"] = await serve(artifact, 50, log)
            except (ArtifactError, StartError) as error:
                told |= {"error": str(error), "code": error.exit_code}
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)  # until whoever started it lets go


if __name__ == "__main__":
    asyncio.new_event_loop().run_until_complete(main(sys.argv[1:]))
