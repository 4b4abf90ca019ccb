"""A scene: a whole gateway in this process, its registry in memory, scripted backends behind it."""

import io
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

from gateway.app import Gateway
from gateway.core.api_key_document import Key
from gateway.core.api_keys import digest_key, make_key
from gateway.core.model import Backend, Model, Policy
from gateway.core.model_updates import to_document
from gateway.registry.base import KEYS, MODELS, NETWORKS, REVOCATIONS, Put
from gateway.registry.memory import MemoryRegistry
from gateway.settings import Settings, load_settings
from gateway.telemetry.logs import LogWriter
from tests.flow.scripted import Caller, Message, Script, ScriptedBackend, echo, request
from tests.patience import patience


class Scene:
    path = "fast"  # tests/flow/conftest.py plays every scene on both paths

    def __init__(self, **flags: str) -> None:
        self.flags = {
            "server.host": "127.0.0.1",
            "server.port": "0",
            "log.format": "json",
            "trace.store": "off",
            "server.path": self.path,
            "server.stop_linger_s": "0",
            **flags,
        }
        self.settings: Settings = load_settings(flags=self.flags, environ={})
        self.registry = MemoryRegistry()
        self._log_bytes = io.BytesIO()
        self._logs = LogWriter(io.TextIOWrapper(self._log_bytes), interval_s=0.01)
        self.gateway = Gateway(self.settings, self._logs, registry=self.registry)
        self.backends: list[ScriptedBackend] = []
        self._callers: list[Caller] = []
        self.key = ""

    async def __aenter__(self) -> Self:
        self._logs.start()
        self.key = await self.make_key("*")
        await self.gateway.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        for caller in self._callers:
            await caller.close()
        await self.gateway.stop()
        for backend in self.backends:
            await backend.stop()
        await self.registry.close()
        self._logs.stop(patience(10))

    @asynccontextmanager
    async def another_gateway(self, **flags: str) -> AsyncIterator[None]:
        """Another gateway at the same registry takes the calls meanwhile."""
        settings = load_settings(flags={**self.flags, **flags}, environ={})
        first, self.gateway = self.gateway, Gateway(settings, self._logs, registry=self.registry)
        await self.gateway.start()
        try:
            yield
        finally:
            await self.gateway.stop()
            self.gateway = first

    # -- the registry

    async def model(self, name: str = "wine", script: Script = echo, **changes: Any) -> ScriptedBackend:
        """Put a model with one scripted backend into the registry, and wait until the gateway serves it."""
        backend = ScriptedBackend(script)
        await backend.start()
        self.backends.append(backend)
        model = Model(
            name=name,
            policy=changes.pop("policy", Policy()),
            backends=changes.pop("backends", None) or (Backend(version="1", url=backend.url),),
            traffic=changes.pop("traffic", {"1": 100}),
            **changes,
        )
        await self.put_model(model)
        return backend

    async def put_model(self, model: Model) -> None:
        old = await self.registry.read(MODELS, model.name)
        await self._write(
            Put(
                kind=MODELS,
                name=model.name,
                body=to_document(model),
                expected=old.revision if old else 0,
            )
        )

    async def make_key(self, *models: str, **fields: Any) -> str:
        key = make_key()
        label = fields.pop("label", "test")
        body = Key(label=label, models=models, created="2026-01-01T00:00:00Z", **fields)
        await self.registry.write(
            Put(kind=KEYS, name=digest_key(key), body=to_document(body), expected=0), author="test"
        )
        return key

    async def admit(self, *networks: str) -> None:
        await self._write(
            *(Put(kind=NETWORKS, name=n.replace("/", "_"), body={"network": n}, expected=0) for n in networks)
        )

    async def revoke_key(self, key: str) -> None:
        await self._write(Put(kind=REVOCATIONS, name=digest_key(key), body={}, expected=0))

    async def _write(self, *changes: Put) -> None:
        generation = await self.registry.write(*changes, author="test")
        if self.gateway.port:
            assert await self.gateway.mirror.wait_for_generation(generation, timeout_s=patience(5))

    # -- callers

    async def caller(self) -> Caller:
        caller = await Caller(self.gateway.port).connect()
        self._callers.append(caller)
        return caller

    async def raw(self, raw: bytes) -> Message:
        caller = await self.caller()
        await caller.send(raw)
        return await caller.answer()

    async def call(
        self,
        method: str = "POST",
        target: str = "/wine",
        *,
        body: bytes | None = b'{"instances": []}',
        key: str | None = "",
        fields: Sequence[tuple[str, str]] = (),
    ) -> Message:
        """Send a request on a connection of its own and read the answer. `key` None: without one."""
        caller = await Caller(self.gateway.port).connect()
        try:
            await caller.send(self.request(method, target, body=body, key=key, fields=fields))
            return await caller.answer(head_only=method == "HEAD")
        finally:
            await caller.close()

    def request(
        self,
        method: str = "POST",
        target: str = "/wine",
        *,
        body: bytes | None = b'{"instances": []}',
        key: str | None = "",
        fields: Sequence[tuple[str, str]] = (),
    ) -> bytes:
        given = list(fields)
        if key is not None:
            given.append(("X-Api-Key", key or self.key))
        return request(method, target, body=None if method in {"GET", "HEAD"} else body, fields=given)

    async def still_good(self, backend: ScriptedBackend) -> None:
        """After whatever happened, the next good request is answered."""
        script, backend.script = backend.script, echo
        answer = await self.call()
        backend.script = script
        assert answer.status == 200, answer

    async def registry_state(self) -> dict[str, Any]:
        """What `/-/ready` tells those who can name the registry."""
        snapshot = self.gateway.mirror.snapshot
        assert snapshot is not None
        ready = await self.call("GET", f"/-/ready?registry={snapshot.registry_id}", key=None)
        assert ready.status == 200
        state: dict[str, Any] = ready.json()["registry"]
        return state

    # -- logs

    def log_lines(self) -> list[dict[str, Any]]:
        """The log so far. The writer is stopped first, so call it last."""
        self._logs.stop(patience(10))
        return [json.loads(line) for line in self._log_bytes.getvalue().splitlines()]


def assert_problem(answer: Message, status: int, code: str) -> dict[str, Any]:
    """Every refusal has the same shape."""
    assert answer.status == status, (answer.status, answer.body)
    assert answer.get("Content-Type") == "application/problem+json"
    assert answer.get("chips-error") == code
    problem: dict[str, Any] = answer.json()
    assert problem["code"] == code
    assert problem["status"] == status
    assert problem["request_id"] == answer.get("X-Request-Id")
    assert problem["detail"]
    return problem
