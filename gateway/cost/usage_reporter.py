"""Writes this process's usage to the registry once an interval. It writes once more at the stop.

Requests are counted by the metrics, which every request pays for anyway; here only differences of those totals are looked at.
A process that is killed loses what it counted since its last write: one interval at most.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import date, timedelta
from itertools import count
from typing import Any, Final
from uuid import uuid4

from gateway.core.model_updates import to_document
from gateway.cost.usage_documents import (
    DailyUsageDocument,
    InstanceSize,
    Usage,
    UsageKey,
    UsageRow,
    usage_kind,
    utc_day,
)
from gateway.registry.base import Conflict, Registry, RegistryError
from gateway.thread_and_task_supervisor import HelperHealth, Supervisor

_log = logging.getLogger(__name__)

PART_ROWS: Final = 400  # of one document: Firestore takes 450 000 bytes
_STOP_S: Final = 1.0
_DAY_S: Final = 86_400
_KEPT_DAYS: Final = 400  # of usage: this year and last year's same month
_SWEPT_DAYS: Final = 10  # before those, looked at once a day: gateways may have been away for a while

Totals = Callable[[], Mapping[UsageKey, Usage]]
Sizes = Callable[[str, str], InstanceSize]


class _Part:
    """One document of this process: up to PART_ROWS rows."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: dict[tuple[UsageKey, InstanceSize], UsageRow] = {}
        self.revision = 0
        self.unwritten = False


class _Day:
    """What this process counted in one day. `name` begins the names of its documents: no other day's may begin so."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._where: dict[tuple[UsageKey, InstanceSize], _Part] = {}
        self._sizes: dict[UsageKey, InstanceSize] = {}  # as last declared
        self.parts: list[_Part] = []

    def add(self, key: UsageKey, usage: Usage, size: InstanceSize) -> None:
        if size.declared:
            self._sizes[key] = size
        else:  # it may have been removed meanwhile
            size = self._sizes.get(key, size)
        place = key, size  # what was used before keeps the size that it had
        part = self._where.get(place)
        if part is None:
            if not self.parts or len(self.parts[-1].rows) >= PART_ROWS:
                self.parts.append(_Part(f"{self._name}-{len(self.parts)}"))
            part = self._where[place] = self.parts[-1]
        known = part.rows.get(place)
        part.rows[place] = UsageRow(
            model=key.model,
            version=key.version,
            caller=key.caller,
            team=key.team,
            size=size,
            usage=usage if known is None else known.usage + usage,
        )
        part.unwritten = True


class UsageReporter:
    """Writes the usage that this process has counted to the registry.

    Call `start` and `stop`. `totals` returns what this process has counted since it started; `sizes` a version's size.
    `after_write` is awaited after each round; it may raise RegistryError.
    """

    def __init__(
        self,
        store: Registry,
        totals: Totals,
        sizes: Sizes,
        *,
        interval_s: float,
        supervisor: Supervisor,
        after_write: Callable[[], Awaitable[None]] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._totals = totals
        self._sizes = sizes
        self._interval_s = interval_s
        self._supervisor = supervisor
        self.after_write = after_write
        self._now = now
        self._before: dict[UsageKey, Usage] = {}
        self._days: dict[date, _Day] = {}
        self._numbers = count()
        self._swept: date | None = None
        self._task: asyncio.Task[None] | None = None
        self.gateway = uuid4().hex[:12]

    async def start(self) -> None:
        self._task = self._supervisor.start_retrying_task("usage", self._run)

    async def stop(self) -> None:
        """Stop, after one last write, as far as that is quick."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        try:
            async with asyncio.timeout(_STOP_S):
                await self.write()
        except (TimeoutError, RegistryError) as error:
            _log.error("the usage of the last %g s is not written: %s", self._interval_s, error)

    def collect_new_usage(self, day: date | None = None) -> None:
        """Collect the usage that was counted since the last time, in memory. It is added to `day`; None: today (UTC)."""
        day = day or utc_day(self._now())
        for key, total in self._totals().items():
            before = self._before.get(key)
            if before == total:
                continue
            self._before[key] = total
            into = self._days.get(day)
            if into is None:
                # A clock that is set back may begin a day again: its documents must not replace those that were written.
                into = self._days[day] = _Day(f"{self.gateway}-{next(self._numbers)}")
            into.add(
                key, total - before if before is not None else total, self._sizes(key.model, key.version)
            )

    def own_documents(self, day: date) -> dict[str, dict[str, Any]]:
        """This process's own usage documents of a day, by name. They are as they are now: newer than what the store has."""
        known = self._days.get(day)
        return {} if known is None else {part.name: self._body(part) for part in known.parts}

    def _body(self, part: _Part) -> dict[str, Any]:
        return to_document(DailyUsageDocument(gateway=self.gateway, rows=tuple(part.rows.values())))

    async def write(self) -> None:
        """Write the usage documents that have changed. It first collects what was counted.

        Raises RegistryError; what was not written is written with the next.
        """
        self.collect_new_usage()
        for day, counted in sorted(self._days.items()):
            for part in counted.parts:
                if part.unwritten:
                    await self._write_part(day, part)
        over = [day for day in self._days if day < utc_day(self._now())]
        for day in over:
            del self._days[day]

    async def _write_part(self, day: date, part: _Part) -> None:
        part.unwritten = False
        body = self._body(part)
        try:
            for _ in range(3):
                try:
                    part.revision = await self._store.write_ephemeral(
                        usage_kind(day), part.name, body, expected=part.revision
                    )
                except Conflict as conflict:  # an earlier write was done, though nobody said so; or a restore
                    part.revision = conflict.actual
                else:
                    return
            raise RegistryError(f"{usage_kind(day)}/{part.name} changes while it is written")
        except BaseException:
            part.unwritten = True
            raise

    async def delete_old_usage(self) -> int:
        """Delete usage that is older than what is kept. Returns how many documents. Raises RegistryError."""
        day, deleted = utc_day(self._now()), 0
        for age in range(_KEPT_DAYS, _KEPT_DAYS + _SWEPT_DAYS):
            kind = usage_kind(day - timedelta(days=age))
            for document in await self._store.list_ephemeral(kind):
                await self._store.delete_ephemeral(kind, document.name)
                deleted += 1
        self._swept = day
        return deleted

    async def _run(self, helper: HelperHealth) -> None:
        while True:
            now = self._now()
            left_s = _DAY_S - now % _DAY_S
            await asyncio.sleep(min(self._interval_s, left_s))
            if (
                left_s <= self._interval_s
            ):  # midnight: what was counted until now belongs to the day that ends
                self.collect_new_usage(utc_day(now))
            try:
                await self._write_and_tell()
            except RegistryError as error:
                helper.failed(error)
            else:
                helper.succeeded()

    async def _write_and_tell(self) -> None:
        try:
            await self.write()
        finally:  # budgets count on with what is known here
            if self.after_write is not None:
                await self.after_write()
        if self._swept != utc_day(self._now()):
            await self.delete_old_usage()
