# Long: one scene with its whole cast.
"""A gateway with something to see: three versions of one model, of which one is slow; a model that fails; others."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.app import Gateway
from gateway.core.api_key_document import Key
from gateway.core.api_keys import digest_key, make_key
from gateway.core.model import Backend, Model, Policy, Tensor
from gateway.core.model_updates import to_document
from gateway.core.principal import VERBS
from gateway.free_ports import claim_free_port
from gateway.registry.base import KEYS, MODELS, Put
from gateway.settings import load_settings
from tests.flow.scene import Scene, assert_problem
from tests.flow.scripted import Message, Peer, Script, ScriptedBackend
from tests.patience import eventually, patience

INPUTS = tuple(
    Tensor(name=name, datatype="FP64", shape=(-1,)) for name in ("alcohol", "malic_acid", "ash", "magnesium")
)
OUTPUTS = (Tensor(name="prediction", datatype="INT64", shape=(-1,)),)
_CHANCE = random.Random("the stage")


def scores(version: str, *, typical_ms: float, failing: float = 0.0) -> Script:
    """A backend that takes about `typical_ms` and says in Server-Timing where the time went."""

    async def script(request: Message, peer: Peer) -> None:
        took_ms = typical_ms * _CHANCE.lognormvariate(0, 0.25)
        await asyncio.sleep(took_ms / 1000)
        if _CHANCE.random() < failing:
            body = {"status": 500, "code": "prediction-failed", "detail": "The model raised."}
            await peer.answer(500, json.dumps(body).encode(), [("Content-Type", "application/problem+json")])
            return
        timing = (
            f"queue;dur={took_ms * 0.02:.2f}, parse;dur=0.3, predict;dur={took_ms * 0.9:.2f}, render;dur=0.2"
        )
        await peer.answer(
            200,
            json.dumps({"predictions": [1], "model": "wine", "version": version}).encode(),
            [("Content-Type", "application/json"), ("Server-Timing", timing)],
        )

    return script


class Stage(Scene):
    """A scene with a store, an operator's key, and a cast."""

    def __init__(self, folder: Path, **flags: str) -> None:
        own = {
            # Not one of the system's own choice: another process's connection could have it when restarted() wants it back.
            "server.port": str(claim_free_port()),
            "trace.store": str(folder / "requests.db"),
            "trace.recent_per_s": "20",
        }
        super().__init__(**{**own, **flags})
        self.operator = ""

    async def make_operator(self) -> str:
        key = make_key()
        document = Key(label="operator", models=("*",), verbs=VERBS, created="2026-01-01T00:00:00Z")
        await self.registry.write(
            Put(kind=KEYS, name=digest_key(key), body=to_document(document), expected=0), author="ana"
        )
        return key

    async def backend(self, script: Script) -> ScriptedBackend:
        backend = ScriptedBackend(script)
        await backend.start()
        self.backends.append(backend)
        return backend

    async def score(self, model: str, version: str) -> None:
        pinned = [("X-Chips-Version", version)]
        assert (await self.call("POST", f"/{model}", key=self.operator, fields=pinned)).status == 200

    @asynccontextmanager
    async def restarted(self, port: int) -> AsyncIterator[None]:
        """A gateway at the same registry in the place of this one, which has been stopped."""
        settings = load_settings(flags={**self.flags, "server.port": str(port)}, environ={})
        self.gateway = Gateway(settings, self._logs, registry=self.registry)
        await self.gateway.start()
        yield

    async def cast(self) -> None:
        _CHANCE.seed(7)
        speeds = {"1": 9.0, "2": 11.0, "3": 95.0}
        backends = []
        for version, typical_ms in speeds.items():
            backend = await self.backend(scores(version, typical_ms=typical_ms))
            backends.append(
                Backend(
                    version=version,
                    url=backend.url,
                    inputs=INPUTS,
                    outputs=OUTPUTS,
                    platform="scikit-learn",
                    artifact_digest=f"sha256:{version * 64}",
                )
            )
        await self.put(
            Model(
                name="wine",
                description="Which of three vineyards a wine comes from",
                owner="ana@example.com",
                policy=Policy(latency_s=0.05, availability=0.999),
                backends=tuple(backends),
                traffic={"1": 70, "2": 20, "3": 10},
            ),
            "send a tenth to version 3",
        )
        flaky = await self.backend(scores("7", typical_ms=20, failing=0.15))
        await self.put(
            Model(
                name="fraud-cards",
                description="How likely a card payment is a fraud",
                policy=Policy(availability=0.99),
                backends=(Backend(version="7", url=flaky.url, inputs=INPUTS, outputs=OUTPUTS),),
                traffic={"7": 100},
            ),
            "first version",
        )
        steady = await self.backend(scores("2026.11", typical_ms=4))
        for name, text in (
            ("demand-north", "Tomorrow's demand, north"),
            ("demand-south", "Tomorrow's demand, south"),
        ):
            await self.put(
                Model(
                    name=name,
                    description=text,
                    backends=(Backend(version="2026.11", url=steady.url, inputs=INPUTS, outputs=OUTPUTS),),
                    traffic={"2026.11": 100},
                ),
                "first version",
            )

    async def put(self, model: Model, reason: str) -> None:
        old = await self.registry.read(MODELS, model.name)
        generation = await self.registry.write(
            Put(kind=MODELS, name=model.name, body=to_document(model), expected=old.revision if old else 0),
            author="ana",
            reason=reason,
        )
        assert await self.gateway.mirror.wait_for_generation(generation, timeout_s=patience(10))

    async def kept(self, request_id: str | None) -> Any:
        """The request, as soon as it is in the store, which a thread writes."""

        async def look() -> Any:
            answer = await self.call("GET", f"/-/requests/{request_id}", key=self.operator)
            if answer.status == 200:
                (request,) = answer.json()["requests"]
                return request
            assert_problem(answer, 404, "not-found")
            return None

        return await eventually(look)

    async def traffic(self, requests: int, *, callers: int = 6) -> None:
        """Send `requests` requests to the cast, a few at a time."""
        names = ["wine"] * 6 + ["fraud-cards"] * 2 + ["demand-north", "demand-south"]
        keys = [await self.make_key("*") for _ in range(2)]
        waiting = iter(range(requests))

        async def one_caller() -> None:
            caller = await self.caller()
            for _ in waiting:
                key = _CHANCE.choice(keys)
                await caller.send(self.request("POST", f"/{_CHANCE.choice(names)}", key=key))
                await caller.answer()

        await asyncio.gather(*(one_caller() for _ in range(callers)))


@asynccontextmanager
async def staged(folder: Path, **flags: str) -> AsyncIterator[Stage]:
    stage = Stage(folder, **flags)
    async with stage:
        stage.operator = await stage.make_operator()
        await stage.cast()
        yield stage
