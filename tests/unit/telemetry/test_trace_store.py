import sqlite3
from contextlib import ExitStack

import pytest

from gateway.telemetry.request_summary import summarize
from gateway.telemetry.trace_store import Tick, TraceStore, TraceStoreReader
from tests.unit.telemetry.exchanges import make_exchange


def summary(kept="sampled", status=200, took_s=0.1, **fields):
    exchange = make_exchange(took_s=took_s, status=status, **fields)
    side, code = ("backend", "answered-5xx") if status >= 500 else ("", "")
    return summarize(exchange, status=status, kept=kept, side=side, code=code, gateway="test")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "a b#c?.db"


@pytest.fixture
def opened(path):
    """Opens stores, and closes them at the end: Python 3.13 warns of connections that nobody closed."""
    with ExitStack() as stack:

        def open_(**options):
            store = TraceStore(path, limit=100, **options)
            stack.callback(store.close)
            return store

        yield open_


def test_what_is_written_is_found_by_either_id(path, opened):
    store, reader = opened(), TraceStoreReader(path)
    first, second = summary(), summary(status=500)
    store.write([first, second], 1)
    assert reader.find(first.request_id) == [first]
    assert reader.find(second.trace_id) == [second]
    assert reader.find("nothing") == []


def test_a_store_that_is_not_there_is_empty(path):
    reader = TraceStoreReader(path)
    assert reader.newest() == []
    assert reader.last_number() == 0
    assert not path.exists()


def test_good_requests_cannot_push_out_bad_ones(path, opened):
    store, reader = opened(), TraceStoreReader(path)
    bad = [summary(kept="slow") for _ in range(10)]
    store.write(bad, 1)
    for _ in range(10):
        store.write([summary() for _ in range(60)], 1)
    kept = reader.newest(limit=1000)
    assert len(kept) <= 130  # it is trimmed in steps
    assert {k.summary.request_id for k in kept if k.summary.kept == "slow"} == {s.request_id for s in bad}


def test_lists(path, opened):
    store, reader = opened(), TraceStoreReader(path)
    fast, slow, failed, other = (
        summary(),
        summary(kept="slow", took_s=3),
        summary(status=502),
        summary(model="fraud"),
    )
    store.write([fast, slow, failed, other], 1)

    def ids(kept):
        return [k.summary.request_id for k in kept]

    assert ids(reader.newest()) == [s.request_id for s in (other, failed, slow, fast)]
    assert ids(reader.newest(kind="failed")) == [failed.request_id]
    assert ids(reader.newest(kind="bad")) == [failed.request_id, slow.request_id]
    assert ids(reader.newest(model="fraud")) == [other.request_id]
    assert ids(reader.newest(slower_s=1)) == [slow.request_id]
    assert ids(reader.slowest(limit=1)) == [slow.request_id]
    last = reader.last_number()
    assert reader.after(last) == []
    store.write([fast], 1)
    assert ids(reader.after(last)) == [fast.request_id]


def test_two_workers_share_one_file(path, opened):
    first, second = opened(worker="a"), opened(worker="b")
    first.write([summary()], 1)
    second.write([summary()], 1)
    at = 2_000_000_000
    for store in (first, second):
        store.write_ticks([Tick(at, "wine", "1", 5, 1, [1, 4])])
    reader = TraceStoreReader(path)
    assert len(reader.newest()) == 2
    assert reader.counts(since=0) == [("wine", at, 10, 2)]
    assert [t.buckets for t in reader.ticks(since=0, model="wine")] == [[1, 4], [1, 4]]


def test_nobody_else_may_read_it(path, opened):
    opened()
    assert path.stat().st_mode & 0o077 == 0


def test_a_file_of_another_layout_is_begun_anew(path, opened):
    path.parent.mkdir()
    with sqlite3.connect(path) as db:
        db.executescript("CREATE TABLE requests (x); PRAGMA user_version=99;")
    db.close()
    store = opened()
    store.write([summary()], 1)
    assert len(TraceStoreReader(path).newest()) == 1


def test_a_write_that_fails_leaves_no_lock_behind(path, opened):
    store, other = opened(), opened()
    good = Tick(2_000_000_000, "wine", "1", 3, 0, [3])
    with pytest.raises(sqlite3.IntegrityError):  # in mid-transaction
        store.write_ticks([good, good._replace(requests=None)])  # type: ignore[arg-type]
    other._db.execute("PRAGMA busy_timeout = 0")
    for writer in (other, store):
        writer.write_ticks([good])
        writer.write([summary()], 1)
    assert TraceStoreReader(path).counts(since=0) == [("wine", 2_000_000_000, 6, 0)]
    assert len(TraceStoreReader(path).newest()) == 2
    store.close()
    other.close()
