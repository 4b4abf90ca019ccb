"""A fleet of real gateways on one SQLite registry, two versions of a model in the test's own process, and callers."""

import asyncio
import itertools
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from gateway.core.model import Backend, Model, Policy, parse_model
from gateway.core.model_updates import merge_document, to_document
from gateway.core.rollout_document import Rollout, RolloutPlan, new_rollout, parse_rollout, with_traffic
from gateway.registry.base import MODELS, ROLLOUTS, Change, Put
from gateway.registry.open_by_url import open_registry
from gateway.rollout.lease import LEASES
from tests.patience import eventually, patience

ROOT = Path(__file__).resolve().parents[2]
CALLERS = 12
# Short, and generous where a busy machine could make a difference between two equal versions.
PLAN = RolloutPlan(
    steps=(5, 25, 50, 100),
    every_s=1.0,
    min_requests=20,
    max_errors=0.01,
    slower=10.0,
    window_s=0.5,
    settle_s=0.0,
)


class Version:
    """A backend of one version. `fails_every` 33: each 33rd request gets 500; `dead`: connections are cut."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests = 0
        self.fails_every = 0
        self.refuses_every = 0
        self.delay_s = 0.0
        self.cold_every = 0  # each such request waits as for an instance that starts
        self.dead = False

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _answer(self, request: web.Request) -> web.Response:
        self.requests += 1
        await request.read()
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.dead:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=503)
        fields = {"Server-Timing": "predict;dur=0.1"} if self.cold_every else {}
        if self.cold_every and not self.requests % self.cold_every:
            await asyncio.sleep(1.5)
        status = 200
        if self.fails_every and not self.requests % self.fails_every:
            status = 500
        if self.refuses_every and not self.requests % self.refuses_every:
            status = 422
        return web.json_response({"version": self.name}, status=status, headers=fields)

    async def stop(self) -> None:
        await self._runner.cleanup()


class Fleet:
    """`start` gateways and controllers; `begin` a rollout; `load` runs until it is left."""

    def __init__(self, folder: Path, registry_url: str = "", processes_url: str = "") -> None:
        """`processes_url`: the registry as gateways and controllers reach it."""
        self.folder = folder
        registry_url = registry_url or f"sqlite://{folder}/registry.db"
        self.registry_url = processes_url or registry_url
        self.registry = open_registry(registry_url)
        self.stable, self.candidate = Version("3"), Version("4")
        self.processes: list[subprocess.Popen[bytes]] = []
        self.ports: list[int] = []
        self.answers: Counter[tuple[str, int]] = Counter()
        self.seen: dict[str, list[str]] = {}  # by user: the versions that answered, without repetitions
        self._numbers = itertools.count()

    async def set_up(self, **changes: Any) -> None:
        for version in (self.stable, self.candidate):
            await version.start()
        model = Model(
            name="wine",
            policy=Policy(access="public"),
            backends=tuple(Backend(version=one.name, url=one.url) for one in (self.stable, self.candidate)),
            traffic={"3": 100, "4": 0},
            **changes,
        )
        await self.registry.write(
            Put(kind=MODELS, name="wine", body=merge_document(None, model), expected=0), author="ana"
        )

    def _start(self, *arguments: str, **environ: str) -> tuple[subprocess.Popen[bytes], Path]:
        log = self.folder / f"process{next(self._numbers)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                env={
                    **os.environ,
                    "CHIPS_REGISTRY": self.registry_url,
                    "CHIPS_LOG__FORMAT": "json",
                    **environ,
                },
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.processes.append(process)
        return process, log

    async def start_gateway(self, *flags: str, **environ: str) -> subprocess.Popen[bytes]:
        common = ("--server.host=127.0.0.1", "--server.port=0", "--trace.store=off", "--log.ratio=0")
        process, log = self._start("gateway", *common, *flags, **environ)

        async def port() -> int | None:
            assert process.poll() is None, log.read_text()
            found = re.search(r"listens on http://127\.0\.0\.1:(\d+)", log.read_text())
            return int(found[1]) if found else None

        self.ports.append(await eventually(port))
        return process

    def start_controller(self, lease_s: float = 3.0) -> subprocess.Popen[bytes]:
        return self._start("gateway.cli", "rollouts", "run", CHIPS_ROLLOUTS__LEASE_S=str(lease_s))[0]

    async def lease_holder(self, *, others_than: set[int]) -> int:
        """The process that takes the steps, once that is another one than these."""

        async def look() -> int | None:
            for one in await self.registry.list_ephemeral(LEASES):
                pid = int(str(one.body["holder"]).partition("-")[0] or 0)
                if pid and pid not in others_than:
                    return pid
            await asyncio.sleep(0.02)
            return None

        return await eventually(look)

    async def begin(self, plan: RolloutPlan = PLAN) -> None:
        """A rollout of version 4; where there was one before, from the beginning."""
        document = await self.registry.read(MODELS, "wine")
        before = await self.registry.read(ROLLOUTS, "wine")
        assert document is not None
        model = with_traffic(parse_model(document.body), {"3": 100})
        identity = f"r{next(self._numbers)}"
        rollout = new_rollout(model, "4", plan, identity=identity, by="ana", reason="rehearsal")
        changes = [
            Put(
                kind=ROLLOUTS,
                name="wine",
                body=to_document(rollout),
                expected=0 if before is None else before.revision,
            )
        ]
        if before is not None:
            body = merge_document(document.body, model)
            changes.append(Put(kind=MODELS, name="wine", body=body, expected=document.revision))
        await self.registry.write(*changes, author="ana")

    async def rollout(self) -> Rollout:
        document = await self.registry.read(ROLLOUTS, "wine")
        assert document is not None
        return parse_rollout(document.body)

    async def until(self, *states: str, percent: int | None = None, within_s: float = 40.0) -> Rollout:
        async def look() -> Rollout | None:
            rollout = await self.rollout()
            fits = rollout.state in states and (percent is None or rollout.percent >= percent)
            if not fits and not rollout.active:
                raise AssertionError(f"the rollout has ended: {rollout.state}: {rollout.reason}")
            await asyncio.sleep(0.1)
            return rollout if fits else None

        return await eventually(look, within_s=within_s)

    async def __aenter__(self) -> "Fleet":
        """Callers call while this is open."""
        self._done = asyncio.Event()
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=patience(20)))
        self._callers = [asyncio.create_task(self._call(number)) for number in range(CALLERS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._done.set()
        await asyncio.gather(*self._callers)
        await self._session.close()

    async def _call(self, number: int) -> None:
        """One user after the other; each stays with one gateway, since gateways see a step a moment apart."""
        for turn in itertools.count():
            if self._done.is_set():
                return
            user = number + CALLERS * (turn % 20)
            url = f"http://127.0.0.1:{self.ports[user % len(self.ports)]}/wine"
            fields = {"X-User": f"u{user}"}
            async with self._session.post(url, json={"instances": [[1]]}, headers=fields) as answer:
                body = await answer.json(content_type=None)
            version = body.get("version", body.get("code", "?"))
            self.answers[version, answer.status] += 1
            versions = self.seen.setdefault(fields["X-User"], [])
            if version not in versions[-1:]:
                versions.append(version)
            await asyncio.sleep(0.005)

    async def splits(self) -> list[dict[str, int]]:
        """The model's split after each write, the oldest first."""
        changes = await self.changes(MODELS)
        return [change.after["traffic"] for change in changes if change.after is not None]

    async def changes(self, kind: str) -> list[Change]:
        return list(reversed(await self.registry.history(kind=kind, name="wine", limit=1000)))

    async def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()
        for version in (self.stable, self.candidate):
            await version.stop()
        await self.registry.close()
