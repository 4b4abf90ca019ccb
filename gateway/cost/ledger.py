"""The ledger of costs by day, version and caller.

It says what usage costs. Amounts are whole millionths, so that every grouping adds up to the same. A cell is one
caller's use of one version on one day. Its cost is rounded once; everything else is addition.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from gateway.core.budget import MICRO
from gateway.core.model import Model, Resources
from gateway.core.prices import Prices, prices_at
from gateway.cost.usage_documents import NOTHING, DailyUsage, InstanceSize, Usage
from gateway.registry.base import Change

IDLE: Final = "(kept warm)"
UNAUTHENTICATED: Final = "(not authenticated)"
NO_TEAM: Final = "(no team)"
_GIB: Final = 1024.0**3


class Cost(NamedTuple):
    """A cost by its parts.

    They are in millionths of the currency. `used_of_allocated` is a part of `allocated`; the total is the sum of the other
    four. An instance is billed while at least one request is under way in it. `allocated` gives each request an instance of
    its own for the backend's time; `used_of_allocated` only the share of the instance that it occupied, by the declared
    concurrency. What Cloud Run bills lies between the two.
    """

    allocated: int = 0
    used_of_allocated: int = 0
    idle: int = 0
    requests: int = 0
    egress: int = 0

    @property
    def total(self) -> int:
        return self.allocated + self.idle + self.requests + self.egress

    def plus(self, other: "Cost") -> "Cost":
        return Cost(*(mine + its for mine, its in zip(self, other, strict=True)))


class LedgerEntry(NamedTuple):
    """The usage and cost of one caller's requests to one version on one day. It is an entry of the ledger."""

    day: date
    model: str
    version: str
    caller: str
    team: str
    size: InstanceSize
    usage: Usage
    idle_s: float
    cost: Cost

    @property
    def backend_s(self) -> float:
        """The backend's time on its requests, in seconds: the instance time allocated to them. Idle time is not in it."""
        return self.usage.backend_us / MICRO

    @property
    def used_s(self) -> float:
        return self.backend_s / self.size.concurrency


class WarmInstances(NamedTuple):
    """The warm instances of a version and size on one day. It says how long `min_instances` were kept, in instance seconds."""

    day: date
    model: str
    version: str
    size: InstanceSize
    seconds: float


def request_cost(size: InstanceSize, usage: Usage, prices: Prices) -> Cost:
    """The cost of the requests in `usage`. Kept-warm instances are not in it."""
    run = prices.cloud_run
    per_s = size.cpu * run.cpu_active + size.memory_gib * run.memory_gib_active
    allocated = round(usage.backend_us * per_s)  # microseconds x units a second = millionths
    return Cost(
        allocated=allocated,
        used_of_allocated=round(allocated / size.concurrency),
        # Two requests are billed: the caller's at the gateway, and the gateway's at the backend.
        requests=round((usage.requests + usage.reached) * run.per_million_requests),
        egress=round(usage.bytes_out / _GIB * prices.network.egress_gib * MICRO),
    )


def cost_of_reached_requests(size: InstanceSize, usage: Usage, prices: Prices) -> int:
    """The cost of the requests that reached a backend, in millionths. It is what counts against budgets.

    Others were refused. If they counted, anybody could use up a model's budget for those who may call it.
    """
    if not usage.reached:
        return 0
    return request_cost(size, msgspec.structs.replace(usage, requests=usage.reached), prices).total


def make_ledger(
    rows: Iterable[DailyUsage], warm: Iterable[WarmInstances], tables: Sequence[Prices]
) -> list[LedgerEntry]:
    """Make the ledger from usage, warm instances and prices.

    It has the cost of all of them, by the price tables in force on their day.
    """
    entries = []
    active: dict[tuple[date, str, str], float] = {}
    for row in rows:
        key = row.key
        cost = request_cost(row.size, row.usage, prices_at(tables, row.day))
        entry = LedgerEntry(row.day, *key, size=row.size, usage=row.usage, idle_s=0.0, cost=cost)
        entries.append(entry)
        place = row.day, key.model, key.version
        active[place] = active.get(place, 0.0) + entry.backend_s
    for kept in warm:
        place = kept.day, kept.model, kept.version
        busy_s = min(active.get(place, 0.0), kept.seconds)
        idle_s = kept.seconds - busy_s
        active[place] = active.get(place, 0.0) - busy_s
        run = prices_at(tables, kept.day).cloud_run
        per_s = kept.size.cpu * run.cpu_idle + kept.size.memory_gib * run.memory_gib_idle
        cost = Cost(idle=round(idle_s * per_s * MICRO))
        entries.append(
            LedgerEntry(kept.day, kept.model, kept.version, IDLE, IDLE, kept.size, NOTHING, idle_s, cost)
        )
    return entries


class LedgerLine(NamedTuple):
    """One line of a cost report: all entries of a group, added up."""

    name: str
    usage: Usage
    allocated_s: float
    used_s: float
    idle_s: float
    cost: Cost


def group_entries(entries: Iterable[LedgerEntry], group: Callable[[LedgerEntry], str]) -> list[LedgerLine]:
    """Group the entries and add up each group. The dearest group comes first."""
    lines: dict[str, list[LedgerLine]] = {}
    for entry in entries:
        line = LedgerLine("", entry.usage, entry.backend_s, entry.used_s, entry.idle_s, entry.cost)
        lines.setdefault(group(entry), []).append(line)
    found = [sum_lines(name, parts) for name, parts in lines.items()]
    return sorted(found, key=lambda line: (-line.cost.total, line.name))


def sum_lines(name: str, lines: Iterable[LedgerLine]) -> LedgerLine:
    """The sum of `lines`, under a name of its own."""
    total = LedgerLine(name, NOTHING, 0.0, 0.0, 0.0, Cost())
    for line in lines:
        total = LedgerLine(
            name,
            total.usage + line.usage,
            total.allocated_s + line.allocated_s,
            total.used_s + line.used_s,
            total.idle_s + line.idle_s,
            total.cost.plus(line.cost),
        )
    return total


def warm_instances(changes: Iterable[Change], days: Sequence[date], now: datetime) -> list[WarmInstances]:
    """The instances that `min_instances` kept warm, by day, version and size.

    `changes`: the history of models, oldest first.
    """
    spans: list[tuple[str, str, InstanceSize, int, datetime, datetime]] = []
    running: dict[tuple[str, str], tuple[InstanceSize, int, datetime]] = {}
    for change in changes:
        at = datetime.fromisoformat(change.at)
        _close(spans, running, change.name, at)
        for version, size, count in _warm_versions(change):
            running[change.name, version] = size, count, at
    for name in sorted({name for name, _ in running}):
        _close(spans, running, name, now)
    found: dict[tuple[date, str, str, InstanceSize], WarmInstances] = {}
    for day in days:
        begins = datetime(day.year, day.month, day.day, tzinfo=UTC)
        ends = begins + timedelta(days=1)
        for model, version, size, count, since, until in spans:
            seconds = (min(ends, until, now) - max(begins, since)).total_seconds() * count
            if seconds > 0:
                known = found.get((day, model, version, size))
                total = seconds + (known.seconds if known is not None else 0.0)
                found[day, model, version, size] = WarmInstances(day, model, version, size, total)
    return list(found.values())


def _close(
    spans: list[tuple[str, str, InstanceSize, int, datetime, datetime]],
    running: dict[tuple[str, str], tuple[InstanceSize, int, datetime]],
    model: str,
    at: datetime,
) -> None:
    for place in [place for place in running if place[0] == model]:
        size, count, since = running.pop(place)
        spans.append((*place, size, count, since, at))


def _warm_versions(change: Change) -> list[tuple[str, InstanceSize, int]]:
    try:
        model = msgspec.convert(change.after, Model) if change.after is not None else None
    except msgspec.ValidationError:
        return []
    found = []
    for backend in model.backends if model is not None else ():
        resources = backend.resources or Resources()
        if resources.min_instances:
            size = InstanceSize(
                cpu=resources.cpu,
                memory_gib=resources.memory_gib,
                concurrency=backend.concurrency or 1,
                declared=True,
            )
            found.append((backend.version, size, resources.min_instances))
    return found
