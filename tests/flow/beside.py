"""What runs beside a command: backends and a gateway, on a loop in a thread of their own."""

import asyncio
import io
import json
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from gateway.app import Gateway
from gateway.settings import load_settings
from gateway.telemetry.logs import LogWriter
from tests.flow.scripted import Message, Peer, Script, ScriptedBackend

Result = TypeVar("Result")


class Beside:
    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="beside")
        self._thread.start()
        self._stops: list[Any] = []

    def await_(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def backend(self, script: Script) -> ScriptedBackend:
        backend = ScriptedBackend(script)
        self.await_(backend.start())
        self._stops.append(backend.stop)
        return backend

    def gateway(self, registry: str) -> Gateway:
        """A gateway that listens on a free port of this machine and reads the registry at the URL."""
        flags = {"server.host": "127.0.0.1", "server.port": "0", "log.format": "json", "registry": registry}
        logs = LogWriter(io.TextIOWrapper(io.BytesIO()), interval_s=0.01)

        async def start() -> Gateway:
            gateway = Gateway(load_settings(flags=flags, environ={}), logs)
            await gateway.start()
            return gateway

        logs.start()
        gateway = self.await_(start())

        async def stop() -> None:
            await gateway.stop()
            logs.stop()

        self._stops.append(stop)
        return gateway

    def close(self) -> None:
        for stop in reversed(self._stops):
            self.await_(stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


JSON = [("Content-Type", "application/json")]


class Contract:
    """A backend that keeps the contract, as a script; `routes` overrides what a path answers."""

    def __init__(self, name: str = "wine", *versions: str, **metadata: Any) -> None:
        self.metadata: dict[str, Any] = {
            "name": name,
            "versions": list(versions or ("1",)),
            "platform": "sklearn_joblib",
            "inputs": [{"name": "alcohol", "datatype": "FP64", "shape": [-1]}],
            "outputs": [{"name": "prediction", "datatype": "INT64", "shape": [-1]}],
            "parameters": {"concurrency": 2},
            **metadata,
        }
        self.routes: dict[str, tuple[int, bytes, list[tuple[str, str]]]] = {}
        self.not_ready = 0  # so many readiness checks are answered 503

    async def __call__(self, request: Message, peer: Peer) -> None:
        if request.target in self.routes:
            await peer.answer(*self.routes[request.target])
        elif request.target == "/v2/health/live":
            await peer.answer()
        elif request.target == "/v2/health/ready":
            self.not_ready -= 1
            await peer.answer(503 if self.not_ready >= 0 else 200)
        elif request.target == f"/v2/models/{self.metadata['name']}":
            await peer.answer(200, json.dumps(self.metadata).encode(), JSON)
        else:
            await peer.answer(404, b'{"code": "not-found"}', JSON)
