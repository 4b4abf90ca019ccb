"""Gateways of a fleet, as far as usage and budgets are concerned: real reporters and keepers, a clock that is set."""

import contextlib

from gateway.core.budget import Budget
from gateway.core.model import Backend, Model, Resources
from gateway.core.model_updates import to_document
from gateway.cost.registry_price_tables import read_default_prices
from gateway.cost.track_budgets import BudgetKeeper
from gateway.cost.usage_documents import NOTHING, InstanceSize, Usage, UsageKey
from gateway.cost.usage_reporter import UsageReporter
from gateway.registry.base import BUDGETS, MODELS, Delete, Put, Registry, RegistryError
from gateway.registry.snapshot import compile_snapshot
from gateway.thread_and_task_supervisor import Supervisor

NOON = 1_795_867_200.0  # 2026-11-28T12:00:00Z
SIZE = InstanceSize(cpu=1, memory_gib=1, declared=True)
KEY = UsageKey("wine", "1", "ana", "cellar")
SECOND = round(
    (read_default_prices().cloud_run.cpu_active + read_default_prices().cloud_run.memory_gib_active) * 1e6, 6
)


class FleetGateway:
    """One gateway process: `serve` is a second of work for each request, unless its budget refuses it."""

    def __init__(self, registry: Registry, *, store: Registry | None = None, now: float = NOON) -> None:
        self.registry = registry
        self.totals: dict[UsageKey, Usage] = {}
        self.now = now
        self.served = self.refused = 0
        figures = store or registry
        self.reporter = UsageReporter(
            figures,
            lambda: dict(self.totals),
            lambda _model, _version: SIZE,
            interval_s=15,
            supervisor=Supervisor(),
            now=lambda: self.now,
        )
        self.keeper = BudgetKeeper(figures, self.reporter, now=lambda: self.now)

    async def begin(self) -> "FleetGateway":
        """As a gateway begins, or hears of a change: the snapshot, then what is spent."""
        self.keeper.follow(compile_snapshot(await self.registry.load_mirrored()))
        await self.keeper.refresh()  # as `start` does, but however long the store takes
        return self

    async def interval(self) -> None:
        """What happens once an interval."""
        self.now += 15
        with contextlib.suppress(RegistryError):
            await self.reporter.write()
        with contextlib.suppress(RegistryError):
            await self.keeper.refresh()

    def serve(self, requests: int = 1, key: UsageKey = KEY) -> None:
        for _ in range(requests):
            places = (("model", key.model), ("key", key.caller), ("team", key.team))
            if any(place in self.keeper.exhausted for place in places):
                self.refused += 1
                continue
            self.served += 1
            self.totals[key] = self.totals.get(key, NOTHING) + Usage(
                requests=1, backend_us=1_000_000, reached=1
            )


async def set_budget(registry: Registry, budget: Budget) -> None:
    known = await registry.read(BUDGETS, budget.id)
    revision = known.revision if known is not None else 0
    change = Put(kind=BUDGETS, name=budget.id, body=to_document(budget), expected=revision)
    await registry.write(change, author="test")


async def remove_budget(registry: Registry, budget: Budget) -> None:
    known = await registry.read(BUDGETS, budget.id)
    assert known is not None
    await registry.write(Delete(kind=BUDGETS, name=budget.id, expected=known.revision), author="test")


async def put_wine(registry: Registry) -> None:
    backend = Backend(version="1", url="http://127.0.0.1:9", resources=Resources())
    model = Model(name="wine", backends=(backend,), traffic={"1": 100})
    change = Put(kind=MODELS, name="wine", body=to_document(model), expected=0)
    await registry.write(change, author="test")
