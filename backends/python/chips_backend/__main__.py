"""`python -m chips_backend`: read the environment, listen, load, be ready; on SIGTERM finish what runs and end with 0."""

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import MutableMapping
from typing import NoReturn

from chips_backend.config import Config, ConfigError, available_cpus, read_config
from chips_backend.logs import Log

EX_OSERR = 71
EX_CONFIG = 78
STOP_GRACE_S = 8.0  # for requests that run; Cloud Run kills after 10
WORKERS_GRACE_S = 1.0  # for predictions that are left then


def main() -> int:
    # The first process of a container is not ended by a signal that it does not handle.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    try:
        config = read_config(os.environ)
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        return EX_CONFIG
    share_processors(os.environ, config.concurrency)
    facts = {
        "model": config.model,
        "version": config.version,
        "service": config.service,
        "revision": config.revision,
    }
    log = Log(project=config.project)
    log.add_facts(**{name: fact for name, fact in facts.items() if fact})
    # Not asyncio.run, which would wait at the end for threads: for a download, or for a prediction past its grace.
    return new_event_loop().run_until_complete(serve(config, log))


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, where it is installed: it has no wheel for every platform."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def share_processors(environ: MutableMapping[str, str], concurrency: int) -> None:
    """Predictions that run at once must not each start a thread for every processor. Numeric libraries read this as they are imported."""
    environ.setdefault("OMP_NUM_THREADS", str(max(1, available_cpus() // concurrency)))


async def serve(config: Config, log: Log) -> int:
    """Serve until SIGTERM or SIGINT; return the process's exit code."""
    # Imported here, so that a wrong setting is told at once.
    from chips_backend.app import App
    from chips_backend.artifact import ArtifactError
    from chips_backend.server import listen
    from chips_backend.service import Loaded, load
    from chips_backend.warm_up import StartError

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    app = App(config, log)
    try:
        server = await listen(app, config.port, stop_grace_s=STOP_GRACE_S)
    except OSError as error:
        log.error(f"cannot listen on port {config.port}: {error.strerror or error}; set PORT to another one")
        return EX_OSERR
    port = server.addresses[0][1]
    log.info(f"listening on port {port}, loading {config.artifact}", port=port)
    loaded: Loaded | None = None
    loading = asyncio.create_task(load(config, log), name="load")
    stopped = asyncio.create_task(stopping.wait(), name="stop")
    try:
        await asyncio.wait({loading, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loaded = loading.result()
            gc.collect()
            gc.freeze()  # a full collection would go through libraries and model, and stop every request for a tenth of a second
            app.become_ready(loaded)
            log.info(f"ready: {loaded.served}, {config.concurrency} predictions at once")
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
        await server.cleanup()
        if loaded is not None:
            await loaded.stop(WORKERS_GRACE_S)
        log.flush()
    log.info("stopped")
    return 0


def run() -> NoReturn:
    code = main()
    sys.stdout.flush()
    os._exit(code)  # whatever runs in a thread; the next start throws the draft of a download away


if __name__ == "__main__":
    run()
