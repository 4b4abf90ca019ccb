"""A model with two versions, gateways that report what the test says, controllers, and a clock that the test moves."""

from typing import Any

import msgspec

from gateway.core.model import Backend, Model, parse_model
from gateway.core.model_updates import to_document
from gateway.core.rollout_document import Rollout, RolloutPlan, new_rollout, parse_rollout
from gateway.registry.base import MODELS, ROLLOUTS, MirroredListing, Put, Registry
from gateway.registry.memory import MemoryRegistry, SharedStore
from gateway.registry.snapshot import Snapshot, compile_snapshot
from gateway.rollout.controller import RolloutController
from gateway.rollout.request_count_reporter import FIGURES, RolloutReport, RolloutWindow
from gateway.rollout.request_counter import Tally, latency_bucket
from gateway.thread_and_task_supervisor import Supervisor

PLAN = RolloutPlan(steps=(5, 25, 100), every_s=60.0, min_requests=500)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FixedMirror:
    """What the controller sees of the registry: as it is now, unless the test holds it back."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.snapshot: Snapshot | None = None
        self.is_authoritative = True

    async def catch_up(self) -> None:
        listing: MirroredListing = await self._registry.load_mirrored()
        self.snapshot = compile_snapshot(listing, self.snapshot)


def wine(**changes: Any) -> Model:
    model = Model(
        name="wine",
        backends=(Backend(version="3", url="http://a"), Backend(version="4", url="http://b")),
        traffic={"3": 100, "4": 0},
    )
    return msgspec.structs.replace(model, **changes)


def rollout_of(model: Model | None = None, plan: RolloutPlan = PLAN, **changes: Any) -> Rollout:
    begun = new_rollout(model or wine(), "4", plan, identity="r1", by="ana", reason="a better scaler")
    return msgspec.structs.replace(begun, **changes)


def tally(requests: int, errors: int = 0, *, refusals: int = 0, seconds: float = 0.02) -> Tally:
    return Tally(
        requests=requests,
        errors=errors,
        refusals=refusals,
        latency={latency_bucket(seconds): requests} if requests else {},
    )


class ReportingGateway:
    """One gateway: `report` writes what it counted in a window."""

    def __init__(self, registry: Registry, name: str = "g1", rollout: str = "r1", process: str = "") -> None:
        self.registry = registry
        self.process = process
        self.name = name
        self.rollout = rollout
        self.windows: list[RolloutWindow] = []
        self.revision = 0

    async def report(
        self,
        position: int,
        *,
        candidate: Tally,
        stable: Tally,
        after_s: float = 60.0,
        final: bool = False,
        versions: tuple[str, str] = ("4", "3"),
    ) -> None:
        self.windows.append(
            RolloutWindow(
                number=len(self.windows) + 1,
                position=position,
                after_s=after_s,
                versions=dict(zip(versions, (candidate, stable), strict=True)),
            )
        )
        report = RolloutReport(
            rollout=self.rollout,
            gateway=self.name,
            windows=tuple(self.windows[-8:]),
            final=final,
            process=self.process,
        )
        self.revision = await self.registry.write_ephemeral(
            FIGURES, f"wine.{self.name}", to_document(report), expected=self.revision
        )


def shared_registry() -> Registry:
    return MemoryRegistry(SharedStore())


class Scene:
    def __init__(self, clock: Clock, registry: Registry | None = None) -> None:
        self.clock = clock
        self.registry = registry or shared_registry()
        self.mirror = FixedMirror(self.registry)
        self.gateway = ReportingGateway(self.registry)

    def controller(self, registry: Registry | None = None, *, secret: str = "") -> RolloutController:
        return RolloutController(
            registry or self.registry,
            self.registry,
            self.mirror,  # type: ignore[arg-type]
            secret=secret,
            supervisor=Supervisor(),
            clock=self.clock,
        )

    async def begin(self, plan: RolloutPlan = PLAN, model: Model | None = None, **changes: Any) -> None:
        model = model or wine()
        await self.registry.write(
            Put(kind=MODELS, name="wine", body={**to_document(model), "future": 1}, expected=0),
            Put(kind=ROLLOUTS, name="wine", body=to_document(rollout_of(model, plan, **changes)), expected=0),
            author="ana",
        )

    async def put(self, model: Model) -> None:
        document = await self.registry.read(MODELS, "wine")
        assert document is not None
        body = {**to_document(model), "future": 1}
        await self.registry.write(
            Put(kind=MODELS, name="wine", body=body, expected=document.revision), author="bea"
        )

    async def write(self, rollout: Rollout, revision: int) -> None:
        change = Put(kind=ROLLOUTS, name="wine", body=to_document(rollout), expected=revision)
        await self.registry.write(change, author="ana")

    async def turn(self, *controllers: RolloutController, seconds: float = 3.0) -> None:
        self.clock.now += seconds
        await self.mirror.catch_up()
        for controller in controllers:
            await controller.reconcile()

    async def rollout(self) -> Rollout:
        document = await self.registry.read(ROLLOUTS, "wine")
        assert document is not None
        return parse_rollout(document.body)

    async def model(self) -> Model:
        document = await self.registry.read(MODELS, "wine")
        assert document is not None
        assert document.body["future"] == 1  # what another release has written is not lost
        return parse_model(document.body)

    async def traffic(self) -> dict[str, int]:
        return dict((await self.model()).traffic)

    async def serve(self, controller: RolloutController, *, windows: int, errors: int = 0) -> None:
        """Windows of 15 s at the step that is in force."""
        for _ in range(windows):
            rollout = await self.rollout()
            if not rollout.active:
                return
            position = rollout.position
            await self.gateway.report(position, candidate=tally(100, errors), stable=tally(900))
            await self.turn(controller, seconds=15.0)
