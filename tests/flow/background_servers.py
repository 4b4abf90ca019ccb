"""What runs next to a command: backends and a gateway, on a loop in a thread of their own."""

import asyncio
import io
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from gateway.app import Gateway
from gateway.settings import load_settings
from gateway.telemetry.logs import LogWriter
from tests.flow.scripted import Script, ScriptedBackend
from tests.patience import patience

Result = TypeVar("Result")


class BackgroundServers:
    """Starts backends and gateways that a command under test can call; `close` stops them in reverse order."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="background servers")
        self._thread.start()
        self._stops: list[Any] = []

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(patience(20))

    def backend(self, script: Script) -> ScriptedBackend:
        backend = ScriptedBackend(script)
        self.run(backend.start())
        self._stops.append(backend.stop)
        return backend

    def gateway(self, registry: str) -> Gateway:
        """A gateway that listens on a free port of this machine and reads the registry at the URL."""
        flags = {"server.host": "127.0.0.1", "server.port": "0", "log.format": "json", "registry": registry}
        flags |= {"server.stop_linger_s": "0"}
        logs = LogWriter(io.TextIOWrapper(io.BytesIO()), interval_s=0.01)

        async def start() -> Gateway:
            gateway = Gateway(load_settings(flags=flags, environ={}), logs)
            await gateway.start()
            return gateway

        logs.start()
        gateway = self.run(start())

        async def stop() -> None:
            await gateway.stop()
            logs.stop(patience(10))

        self._stops.append(stop)
        return gateway

    def close(self) -> None:
        for stop in reversed(self._stops):
            self.run(stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
