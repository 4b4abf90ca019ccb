"""Daily documents of each caller's usage of each model version.

Counts are whole numbers that add up. Each gateway process keeps one set of documents a day (UTC) in the store of
figures, under the kind `usage-YYYY-MM-DD`. A document holds the day's totals of that process, never a difference:
writing it twice changes nothing, and the sum over all documents is the fleet's usage.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta

from gateway.core.model import Backend, Resources
from gateway.registry.base import Document, Registry

_KIND: Final = "usage-"
_MONTH: Final = re.compile(r"([12][0-9]{3})-(0[1-9]|1[0-2])")
_DEFAULT: Final = Resources()
_LARGEST: Final = 1e6  # processors or GiB of an instance

# A gateway that was broken into may have written a document.
Count = Annotated[int, Meta(ge=0, le=2**53)]


class UsageKey(NamedTuple):
    """The key that usage is counted by: model, version, caller and team.

    `caller` is empty for requests that were refused before it was known who sent them.
    """

    model: str
    version: str
    caller: str
    team: str


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """The usage by requests: counts, time and bytes. Times are microseconds, sizes bytes."""

    requests: Count = 0
    refused: Count = 0  # 4xx
    failed: Count = 0  # 5xx
    backend_us: Count = 0  # of the backend's time
    bytes_in: Count = 0
    bytes_out: Count = 0
    reached: Count = 0  # of the requests: sent to the backend

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*(mine + its for mine, its in zip(_fields(self), _fields(other), strict=True)))

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(*(mine - its for mine, its in zip(_fields(self), _fields(other), strict=True)))


NOTHING: Final = Usage()


def _fields(usage: Usage) -> tuple[int, ...]:
    return (
        usage.requests,
        usage.refused,
        usage.failed,
        usage.backend_us,
        usage.bytes_in,
        usage.bytes_out,
        usage.reached,
    )


class InstanceSize(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The size of a version's instances: CPU, memory and concurrency.

    `concurrency` is how many predictions an instance runs at once.
    """

    cpu: Annotated[float, Meta(gt=0, le=_LARGEST)] = 1.0
    memory_gib: Annotated[float, Meta(gt=0, le=_LARGEST)] = 1.0
    concurrency: Annotated[int, Meta(ge=1, le=2**53)] = 1
    declared: bool = False  # otherwise nothing is known of it, and these are defaults


UNKNOWN_SIZE: Final = InstanceSize()


def instance_size_of(backend: Backend) -> InstanceSize:
    """The declared size of a backend's instances, or the default. The default is for a backend that declares none."""
    resources = backend.resources or _DEFAULT
    return InstanceSize(
        cpu=resources.cpu,
        memory_gib=resources.memory_gib,
        concurrency=backend.concurrency or 1,
        declared=backend.resources is not None,
    )


class UsageRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row of a usage document: the usage of one key and instance size."""

    model: str
    version: str
    caller: str = ""
    team: str = ""
    size: InstanceSize = InstanceSize()
    usage: Usage

    @property
    def key(self) -> UsageKey:
        return UsageKey(self.model, self.version, self.caller, self.team)


class DailyUsageDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A usage document: what one gateway process counted in one day, or a part of that. The day is in its kind."""

    gateway: str
    rows: tuple[UsageRow, ...]


class DailyUsage(NamedTuple):
    """The fleet's usage of one day, by one key and size."""

    day: date
    key: UsageKey
    size: InstanceSize
    usage: Usage


class FleetUsage(NamedTuple):
    """The usage of a fleet, and the problems of unreadable documents."""

    rows: list[DailyUsage]
    problems: list[str]


def usage_kind(day: date) -> str:
    """The kind of the usage documents of a day."""
    return f"{_KIND}{day.isoformat()}"


def utc_day(now: float) -> date:
    """The day (UTC) of a time in seconds since the epoch."""
    return datetime.fromtimestamp(now, UTC).date()


def month_days(month: str) -> list[date]:
    """All days of a month such as 2026-11. ValueError says what is wrong."""
    found = _MONTH.fullmatch(month)
    if found is None:
        raise ValueError(f"{month[:40]!r} is not a month, such as 2026-11")
    day = date(int(found[1]), int(found[2]), 1)
    days = []
    while day.month == int(found[2]):
        days.append(day)
        day += timedelta(days=1)
    return days


async def read_usage(store: Registry, days: Iterable[date]) -> FleetUsage:
    """The fleet's usage of `days`, added up over all gateways. Raises RegistryError."""
    rows: list[DailyUsage] = []
    problems: list[str] = []
    for day in days:
        documents = await store.list_ephemeral(usage_kind(day))
        rows += sum_documents(day, documents, problems)
    return FleetUsage(rows, problems)


def sum_documents(day: date, documents: Iterable[Document], problems: list[str]) -> list[DailyUsage]:
    """Sum a day's usage documents. One that cannot be read is named in `problems`."""
    total: dict[tuple[UsageKey, InstanceSize], Usage] = {}
    for document in documents:
        for row in _rows(document, problems):
            place = row.key, row.size
            total[place] = total.get(place, NOTHING) + row.usage
    return [DailyUsage(day, key, size, usage) for (key, size), usage in sorted(total.items(), key=_order)]


def _order(item: tuple[tuple[UsageKey, InstanceSize], Usage]) -> Any:
    (key, size), _ = item
    return (*key, size.cpu, size.memory_gib, size.concurrency)


def _rows(document: Document, problems: list[str]) -> Iterator[UsageRow]:
    if document.problem:
        problems.append(f"{document.kind}/{document.name}: {document.problem}")
        return
    try:
        yield from msgspec.convert(document.body, DailyUsageDocument).rows
    except msgspec.ValidationError as error:
        problems.append(f"{document.kind}/{document.name}: {error}")
