"""A Cloud Storage server for tests: `python -m tests.gcs --port 0 --bucket NAME` prints where it listens."""

import argparse
import asyncio
import signal

from aiohttp import web

from tests.gcs.app import CloudStorage


async def serve(port: int, buckets: list[str]) -> None:
    storage = CloudStorage()
    for name in buckets:
        storage.store.create(name)
    # A request that hangs on purpose must not hold up its end: aiohttp would wait a minute for it.
    runner = web.AppRunner(
        storage.application(), access_log=None, handler_cancellation=False, shutdown_timeout=0.1
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    print(f"listening on http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--bucket", action="append", default=[])
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.port, arguments.bucket))
