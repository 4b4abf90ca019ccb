# Long: one story of an outage, told in order.
"""A gateway whose registry is killed while callers call: requests go on, it says so, and recovers by itself."""

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.app import Gateway
from gateway.core.api_key_document import Key
from gateway.core.api_keys import digest_key, make_key
from gateway.core.model import Backend, Model
from gateway.core.model_updates import to_document
from gateway.registry.base import KEYS, MODELS, Put, Registry, Unavailable
from gateway.registry.open_by_url import open_registry
from gateway.settings import load_settings
from gateway.telemetry.logs import LogWriter
from tests.firestore.emulator import Emulator
from tests.firestore.fixture import registry_url
from tests.flow.scripted import Caller, ScriptedBackend, echo, request
from tests.patience import patience

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


class Callers:
    """Three who score all the time, on connections of their own, and what they were answered."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._request = request("POST", "/wine", body=b'{"instances": []}', fields=[("X-Api-Key", key)])
        self.answered: list[int] = []
        self._tasks = [asyncio.create_task(self._call()) for _ in range(3)]

    async def _call(self) -> None:
        caller = await Caller(self._port).connect()
        try:
            while True:
                await caller.send(self._request)
                self.answered.append((await caller.answer()).status)
        finally:
            await caller.close()

    async def some_more(self) -> None:
        goal = len(self.answered) + 60
        while len(self.answered) < goal:
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def fill_after_restart(registry: Registry, backend: ScriptedBackend, key: str) -> int:
    """As `fill`. For a moment after an outage, gRPC refuses without asking the server again: nothing is written then."""
    async with asyncio.timeout(patience(60)):
        while True:
            try:
                return await fill(registry, backend, key)
            except Unavailable:
                await asyncio.sleep(0.05)


async def fill(registry: Registry, backend: ScriptedBackend, key: str) -> int:
    model = Model(name="wine", backends=(Backend(version="1", url=backend.url),), traffic={"1": 100})
    entry = Key(label="app", models=("*",), verbs=("score", "operate"), created="2026-01-01T00:00:00Z")
    return await registry.write(
        Put(kind=MODELS, name="wine", body=to_document(model), expected=0),
        Put(kind=KEYS, name=digest_key(key), body=to_document(entry), expected=0),
        author="ana",
    )


@pytest.fixture
async def backend() -> AsyncIterator[ScriptedBackend]:
    backend = ScriptedBackend(echo)
    await backend.start()
    yield backend
    await backend.stop()


async def test_requests_go_on_while_the_registry_is_killed_and_comes_back(
    own_emulator: Emulator, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("gateway.registry.mirror._LONGEST_DELAY_S", 0.2)
    url, key = registry_url(own_emulator), make_key()
    registrar = open_registry(url)
    await fill(registrar, backend, key)
    flags = {
        "server.host": "127.0.0.1",
        "server.port": "0",
        "trace.store": "off",
        "registry": url,
        "server.registry_hold_s": "0.5",
        "server.registry_wait_s": f"{patience(60):g}",
    }
    logs = LogWriter(io.TextIOWrapper(io.BytesIO()), interval_s=0.01)
    logs.start()
    gateway = Gateway(load_settings(flags=flags, environ={}), logs)
    await gateway.start()
    callers = Callers(gateway.port, key)

    async def look(path: str) -> Any:
        caller = await Caller(gateway.port).connect()
        await caller.send(request("GET", path, fields=[("X-Api-Key", key)]))
        answer = await caller.answer()
        await caller.close()
        return answer

    async def until(**wanted: Any) -> dict[str, Any]:
        async with asyncio.timeout(patience(60)):
            while True:
                state: dict[str, Any] = (await look("/-/ready")).json()["registry"]
                if all(state[name] == value for name, value in wanted.items()):
                    return state
                await asyncio.sleep(0.02)

    try:
        await callers.some_more()
        own_emulator.kill()
        state = await until(connected=False)
        await callers.some_more()
        later = await until(connected=False)
        assert later["age_s"] > state["age_s"]
        assert later["generation"] == state["generation"]
        metrics = (await look("/-/metrics")).body.decode()
        assert "\nchips_registry_connected 0" in metrics
        assert "\nchips_registry_held 0" in metrics
        own_emulator.start()  # and it is empty
        await callers.some_more()
        assert (await until(connected=False))["models"] == 1
        generation = await fill_after_restart(registrar, backend, key)
        state = await until(connected=True, held=None)
        assert (state["generation"], state["models"], state["source"]) == (generation, 1, "registry")
        assert state["age_s"] < 60
        await callers.some_more()
        assert set(callers.answered) == {200}
    finally:
        await callers.stop()
        await gateway.stop()
        await registrar.close()
        logs.stop(patience(10))
