"""Usage documents: the fleet's sum is what was counted, whatever happens between a count and its write."""

import itertools
import random
from collections import Counter
from datetime import date, timedelta

import msgspec
import pytest

from gateway.cost.usage_documents import (
    NOTHING,
    InstanceSize,
    Usage,
    UsageKey,
    month_days,
    read_usage,
    usage_kind,
    utc_day,
)
from gateway.cost.usage_reporter import PART_ROWS, UsageReporter
from gateway.registry.base import Unavailable
from gateway.registry.firestore.document_layout import MAX_BODY_BYTES
from gateway.registry.memory import MemoryRegistry
from gateway.telemetry.metrics import OTHER, RequestMetrics
from gateway.thread_and_task_supervisor import Supervisor
from gateway.usage_from_metrics import usage_from_metrics
from tests.patience import eventually
from tests.unit.telemetry.exchanges import make_exchange

NOON = 1_795_867_200.0  # 2026-11-28T12:00:00Z
DAY = date(2026, 11, 28)
WINE = UsageKey("wine", "1", "ana", "cellar")


class Process:
    """One gateway process, as far as usage is concerned."""

    def __init__(self, store: MemoryRegistry) -> None:
        self.totals: dict[UsageKey, Usage] = {}
        self.now = NOON
        self.size = InstanceSize(cpu=2, declared=True)
        self.reporter = UsageReporter(
            store,
            lambda: dict(self.totals),
            lambda _model, _version: self.size,
            interval_s=15,
            supervisor=Supervisor(),
            now=lambda: self.now,
        )

    def count(self, requests: int, key: UsageKey = WINE) -> None:
        self.totals[key] = self.totals.get(key, NOTHING) + Usage(
            requests=requests, backend_us=requests * 1000, reached=requests
        )


async def requests_of(store: MemoryRegistry, *days: date) -> dict[str, int]:
    usage = await read_usage(store, days or (DAY,))
    assert not usage.problems
    found: Counter[str] = Counter()
    for row in usage.rows:
        found[row.key.caller] += row.usage.requests
    return dict(found)


async def test_several_processes_add_up_and_writing_again_changes_nothing():
    store = MemoryRegistry()
    first, second = Process(store), Process(store)
    first.count(3)
    second.count(4)
    for process in (first, second, first, second):
        await process.reporter.write()
    first.count(5)
    await first.reporter.write()
    usage = await read_usage(store, [DAY])
    assert [(row.key, row.usage.requests, row.size.cpu) for row in usage.rows] == [(WINE, 12, 2.0)]


class Flaky(MemoryRegistry):
    """Half of its writes fail: some before they are done, some after."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)

    async def write_ephemeral(self, *arguments, **fields):
        fate = self.random.random()
        if fate < 0.25:
            raise Unavailable("nothing was written")
        revision = await super().write_ephemeral(*arguments, **fields)
        if fate < 0.5:
            raise Unavailable("it was written, and nobody said so")
        return revision


@pytest.mark.parametrize("seed", range(20))
async def test_writes_that_fail_or_go_unconfirmed_lose_and_double_nothing(seed: int):
    store = Flaky(seed)
    processes = [Process(store) for _ in range(3)]
    counted: Counter[str] = Counter()
    for _ in range(60):
        process = store.random.choice(processes)
        caller = store.random.choice(["ana", "bea"])
        process.count(1, WINE._replace(caller=caller))
        counted[caller] += 1
        try:
            await process.reporter.write()
        except Unavailable:
            continue
    for process in processes:
        for _ in range(100):
            try:
                await process.reporter.write()
            except Unavailable:
                continue
            break
        else:
            pytest.fail("a hundred writes in a row failed")
    assert await requests_of(store) == counted


async def test_a_stop_writes_what_is_left_and_a_restart_begins_a_document_of_its_own():
    store = MemoryRegistry()
    for _ in range(3):
        process = Process(store)
        await process.reporter.start()
        process.count(2)
        await process.reporter.stop()
    assert await requests_of(store) == {"ana": 6}
    assert len(await store.list_ephemeral(usage_kind(DAY))) == 3


async def test_midnight_begins_a_new_day_and_the_old_one_is_written_when_the_store_is_back():
    store = Flaky(0)
    store.random.random = lambda: 0.0  # type: ignore[method-assign]
    process = Process(store)
    process.count(2)
    with pytest.raises(Unavailable):
        await process.reporter.write()
    process.now += 12 * 3600
    process.count(3)
    store.random.random = lambda: 1.0  # type: ignore[method-assign]
    await process.reporter.write()
    assert await requests_of(store, DAY) == {"ana": 2}
    assert await requests_of(store, utc_day(process.now)) == {"ana": 3}


async def test_usage_keeps_the_size_that_its_instances_had():
    store = MemoryRegistry()
    process = Process(store)
    for size, requests in (
        (InstanceSize(cpu=2, declared=True), 3),
        (InstanceSize(cpu=8, declared=True), 4),
        (InstanceSize(), 5),  # the version is gone from the registry
    ):
        process.size = size
        process.count(requests)
        await process.reporter.write()
    usage = await read_usage(store, [DAY])
    assert [(row.size.cpu, row.usage.requests) for row in usage.rows] == [(2.0, 3), (8.0, 9)]


async def test_what_was_counted_until_midnight_belongs_to_the_day_that_ends():
    store = MemoryRegistry()
    process = Process(store)
    midnight = NOON + 12 * 3600
    times = itertools.chain([midnight - 0.01], itertools.repeat(midnight + 1))
    process.reporter._now = lambda: next(times)
    process.count(3)

    async def written() -> bool | None:
        return bool(await requests_of(store, DAY, DAY + timedelta(days=1))) or None

    await process.reporter.start()
    await eventually(written)
    await process.reporter.stop()
    assert await requests_of(store, DAY) == {"ana": 3}


async def test_a_clock_that_is_set_back_over_midnight_loses_nothing_of_either_day():
    store = MemoryRegistry()
    process = Process(store)
    process.count(10)
    await process.reporter.write()
    process.now += 12 * 3600
    process.count(3)
    await process.reporter.write()
    process.now -= 1
    process.count(2)
    await process.reporter.write()
    process.now += 2
    process.count(4)
    await process.reporter.write()
    assert await requests_of(store, DAY) == {"ana": 12}
    assert await requests_of(store, DAY + timedelta(days=1)) == {"ana": 7}


async def test_a_restored_store_gets_the_days_total_again():
    process = Process(MemoryRegistry())
    process.count(2)
    await process.reporter.write()
    process.count(1)
    restored = MemoryRegistry()
    process.reporter._store = restored
    await process.reporter.write()
    assert await requests_of(restored) == {"ana": 3}


async def test_many_callers_are_spread_over_documents_of_bounded_size():
    store = MemoryRegistry()
    process = Process(store)
    for number in range(2 * PART_ROWS + 1):
        process.count(1, WINE._replace(caller=f"c{number}"))
    await process.reporter.write()
    process.count(1, WINE._replace(caller="c0"))
    await process.reporter.write()
    documents = await store.list_ephemeral(usage_kind(DAY))
    assert [document.revision for document in documents] == [2, 1, 1]
    assert sum((await requests_of(store)).values()) == 2 * PART_ROWS + 2


async def test_a_document_with_the_longest_names_fits_each_store():
    store = MemoryRegistry()
    process = Process(store)
    most = Usage(*(2**53 - 1,) * 7)
    for number in range(PART_ROWS):
        caller = f"{'r' * 32}:{'s' * 195}{number:05d}"
        process.totals[UsageKey("m" * 63, "v" * 64, caller, "t" * 63)] = most
    await process.reporter.write()
    (document,) = await store.list_ephemeral(usage_kind(DAY))
    assert len(msgspec.json.encode(document.body)) < MAX_BODY_BYTES


async def test_usage_of_more_than_400_days_is_deleted():
    store = MemoryRegistry()
    process = Process(store)
    for _ in range(3):
        process.count(1)
        await process.reporter.write()
        process.now += 86_400
    process.now = NOON + 401 * 86_400
    assert await process.reporter.delete_old_usage() == 2
    assert await requests_of(store, DAY, DAY + timedelta(days=1)) == {}
    assert await requests_of(store, DAY + timedelta(days=2)) == {"ana": 1}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"gateway": "g", "rows": [{"model": "wine", "version": "1", "usage": {"requests": -1}}]},
        {"gateway": "g", "rows": [{"model": "wine", "version": "1", "size": {"cpu": 1e308}, "usage": {}}]},
        {
            "gateway": "g",
            "rows": [{"model": "wine", "version": "1", "size": {"memory_gib": 1e308}, "usage": {}}],
        },
    ],
)
async def test_a_document_that_cannot_be_read_is_named_and_hides_no_other(body):
    store = MemoryRegistry()
    process = Process(store)
    process.count(2)
    await process.reporter.write()
    await store.write_ephemeral(usage_kind(DAY), "broken", body, expected=0)
    usage = await read_usage(store, [DAY])
    assert [row.usage.requests for row in usage.rows] == [2]
    assert len(usage.problems) == 1
    assert "usage-2026-11-28/broken" in usage.problems[0]


def test_usage_has_every_request_that_named_a_model_once():
    metrics = RequestMetrics()
    for status in (200, 200, 404, 503):
        metrics.observe(make_exchange(status=status, took_s=0.102, bytes_in=10, bytes_out=20), status)
    metrics.observe(make_exchange(caller=None, attempts=0, bytes_out=7), 401)
    metrics.observe(make_exchange(model=None), 404)
    assert usage_from_metrics(metrics) == {
        UsageKey("wine", "1", "key-1", ""): Usage(4, 1, 1, 400_000, 40, 80, 4),
        UsageKey("wine", "1", "", ""): Usage(1, 1, 0, 0, 0, 7),
    }


def test_callers_that_a_budget_names_are_counted_by_themselves_whatever_the_bound():
    metrics = RequestMetrics(limit=5)
    metrics.overflow_caller_labels = lambda principal: (principal.id if principal.id == "c49" else OTHER, "")
    for number in range(50):
        metrics.observe(make_exchange(caller=f"c{number}"), 200)
    by_caller = {key.caller: usage.requests for key, usage in usage_from_metrics(metrics).items()}
    assert by_caller["c49"] == 1
    assert by_caller[OTHER] == 50 - 6
    assert sum(by_caller.values()) == 50


def test_months():
    assert (month_days("2028-02")[0], month_days("2028-02")[-1]) == (date(2028, 2, 1), date(2028, 2, 29))
    for wrong in ("2026-13", "2026-1", "november", "2026-11-01"):
        with pytest.raises(ValueError, match="is not a month"):
            month_days(wrong)
