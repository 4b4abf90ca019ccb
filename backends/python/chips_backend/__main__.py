"""`python -m chips_backend`: read the environment, listen, load, be ready; on SIGTERM finish what runs and end with 0."""

import asyncio
import contextlib
import os
import signal
import sys

from chips_backend.app import App, listen
from chips_backend.artifact import ArtifactError
from chips_backend.config import Config, ConfigError, read_config
from chips_backend.logs import Log
from chips_backend.service import StartError, load

EX_OSERR = 71
EX_CONFIG = 78
STOP_GRACE_S = 8.0  # Cloud Run kills after 10


def main() -> int:
    try:
        config = read_config(os.environ)
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        return EX_CONFIG
    log = Log(project=config.project, facts={"model": config.model, "version": config.version})
    return asyncio.run(serve(config, log))


async def serve(config: Config, log: Log) -> int:
    """Serve until SIGTERM or SIGINT; return the process's exit code."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    app = App(config, log)
    try:
        runner = await listen(app, config.port, stop_grace_s=STOP_GRACE_S)
    except OSError as error:
        log.error(f"cannot listen on port {config.port}: {error.strerror or error}; set PORT to another one")
        return EX_OSERR
    port = runner.addresses[0][1]
    log.info(
        f"listening on port {port}, loading {config.model}@{config.version} from {config.artifact}", port=port
    )
    loading = asyncio.create_task(load(config, log), name="load")
    stopped = asyncio.create_task(stopping.wait(), name="stop")
    try:
        await asyncio.wait({loading, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            app.become_ready(loading.result())
            log.info(f"ready: {config.model}@{config.version}, {config.concurrency} predictions at once")
            await stopped
        log.info("stopping: no new requests are taken; what runs may finish")
    except (ArtifactError, StartError) as error:
        log.error(f"cannot start: {error}")
        return error.exit_code
    finally:
        stopped.cancel()
        if not loading.done():
            loading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await loading
        await runner.cleanup()
        if app.loaded is not None:
            await app.loaded.workers.stop()
    log.info("stopped")
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # A download that is still under way in a thread must not hold up the end: the next start throws its draft away.
    os._exit(code)
