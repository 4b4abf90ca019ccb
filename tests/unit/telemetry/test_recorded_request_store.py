import sqlite3
from contextlib import ExitStack

import pytest

from gateway.telemetry.recorded_request import recorded_request_of
from gateway.telemetry.recorded_request_store import (
    COARSE_S,
    FINE_S,
    RequestAndTickReader,
    RequestAndTickWriter,
    RequestFilter,
    Tick,
)
from tests.unit.telemetry.exchanges import make_exchange


def recorded(kept="sampled", status=200, took_s=0.1, **fields):
    exchange = make_exchange(took_s=took_s, status=status, **fields)
    side, code = "", ""
    if status >= 400:
        side, code = ("backend", "answered-5xx") if status >= 500 else ("caller", "answered-4xx")
    return recorded_request_of(exchange, status=status, kept=kept, side=side, code=code, gateway="test")


def tick(*, at, seconds=FINE_S, model="wine", requests=1, failed=0, buckets=(1,)):
    return Tick(seconds, at, model, "1", requests, failed, 0, list(buckets), [], {})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "a b#c?.db"


@pytest.fixture
def opened(path):
    """Opens stores, and closes them at the end: Python 3.13 warns of connections that nobody closed."""
    with ExitStack() as stack:

        def open_(**options):
            store = RequestAndTickWriter(path, limit=100, **options)
            stack.callback(store.close)
            return store

        yield open_


def test_what_is_written_is_found_by_either_id(path, opened):
    store, reader = opened(), RequestAndTickReader(path)
    first, second = recorded(), recorded(status=500)
    store.write([first, second], 1)
    assert reader.find(first.request_id) == [first]
    assert reader.find(second.trace_id) == [second]
    assert reader.find("nothing") == []


def test_a_store_that_is_not_there_is_empty(path):
    reader = RequestAndTickReader(path)
    assert reader.newest() == []
    assert reader.last_number() == 0
    assert not path.exists()


def test_good_requests_cannot_push_out_bad_ones(path, opened):
    store, reader = opened(), RequestAndTickReader(path)
    bad = [recorded(kept="slow") for _ in range(10)]
    store.write(bad, 1)
    for _ in range(10):
        store.write([recorded() for _ in range(60)], 1)
    kept = reader.newest(limit=1000)
    assert len(kept) <= 130  # it is trimmed in steps
    assert {k.request.request_id for k in kept if k.request.kept == "slow"} == {s.request_id for s in bad}


def test_lists(path, opened):
    store, reader = opened(), RequestAndTickReader(path)
    fast, slow, failed, other = (
        recorded(),
        recorded(kept="slow", took_s=3),
        recorded(status=502),
        recorded(model="fraud"),
    )
    store.write([fast, slow, failed, other], 1)

    def ids(kept):
        return [k.request.request_id for k in kept]

    assert ids(reader.newest()) == [s.request_id for s in (other, failed, slow, fast)]
    assert ids(reader.newest(RequestFilter(kind="failed"))) == [failed.request_id]
    assert ids(reader.newest(RequestFilter(kind="bad"))) == [failed.request_id, slow.request_id]
    assert ids(reader.newest(RequestFilter(model="fraud"))) == [other.request_id]
    assert ids(reader.newest(RequestFilter(slower_s=1))) == [slow.request_id]
    assert ids(reader.slowest(limit=1)) == [slow.request_id]
    last = reader.last_number()
    assert reader.stored_after(last) == []
    store.write([fast], 1)
    assert ids(reader.stored_after(last)) == [fast.request_id]


def test_two_workers_share_one_file(path, opened):
    first, second = opened(), opened()
    first.write([recorded()], 1)
    second.write([recorded()], 1)
    at = 2_000_000_000
    for store in (first, second):
        store.write_ticks([tick(at=at, requests=5, failed=1, buckets=[1, 4])])
    reader = RequestAndTickReader(path)
    assert len(reader.newest()) == 2
    assert reader.requests_and_failures_by_tick(FINE_S, after=0, until=at) == [("wine", at, 10, 2)]
    assert [t.buckets for t in reader.worker_ticks(FINE_S, after=0, model="wine")] == [[1, 4], [1, 4]]


def test_nobody_else_may_read_it(path, opened):
    opened()
    assert path.stat().st_mode & 0o077 == 0


def test_a_file_of_another_layout_is_begun_anew(path, opened):
    path.parent.mkdir()
    with sqlite3.connect(path) as db:
        db.executescript("CREATE TABLE requests (x); PRAGMA user_version=99;")
    db.close()
    store = opened()
    store.write([recorded()], 1)
    assert len(RequestAndTickReader(path).newest()) == 1


def test_a_write_that_fails_leaves_no_lock_behind(path, opened):
    store, other = opened(), opened()
    at = 2_000_000_000
    good = tick(at=at, requests=3)
    with pytest.raises(sqlite3.IntegrityError):  # in mid-transaction
        store.write_ticks([good, good._replace(requests=None)])
    other._db.execute("PRAGMA busy_timeout = 0")
    for writer in (other, store):
        writer.write_ticks([good])
        writer.write([recorded()], 1)
    assert RequestAndTickReader(path).requests_and_failures_by_tick(FINE_S, after=0, until=at) == [
        ("wine", at, 6, 0)
    ]
    assert len(RequestAndTickReader(path).newest()) == 2
    store.close()
    other.close()


def test_each_filter_narrows_the_list(path, opened):
    store, reader = opened(), RequestAndTickReader(path)
    fine = recorded(model="wine", took_s=0.5)
    broken = recorded(status=502, model="wine")
    other = recorded(status=404, model="fraud")
    store.write([fine, broken, other], 1)

    def found(**fields):
        wanted = RequestFilter(**fields)
        ids = {kept.request.request_id for kept in reader.newest(wanted)}
        assert reader.count(wanted) == len(ids)
        assert {kept.request.request_id for kept in reader.slowest(wanted)} == ids
        return ids

    everything = {fine.request_id, broken.request_id, other.request_id}
    assert found() == everything
    assert found(status="502") == found(status="5xx") == found(side="backend") == {broken.request_id}
    assert found(status="4xx", model="fraud") == {other.request_id}
    assert found(status="4xx", model="wine") == set()
    assert found(version=fine.version) == everything
    assert found(version="nothing") == set()
    assert found(caller=fine.caller) == everything
    assert found(caller=fine.caller[:-1]) == set()
    assert found(since=fine.at + 3600) == found(until=fine.at - 3600) == set()
    assert found(since=fine.at - 3600, until=fine.at + 3600) == everything
    assert found(slower_s=0.4) == {fine.request_id}
    assert found(text=broken.request_id.upper()) == {broken.request_id}
    assert found(text="%") == set()


def test_pages_follow_each_other_without_a_gap(path, opened):
    store, reader = opened(), RequestAndTickReader(path)
    store.write([recorded(took_s=0.1 + i / 100) for i in range(7)], 1)
    everything = [kept.number for kept in reader.newest()]
    pages, before = [], 0
    while page := reader.newest(before=before, limit=3):
        pages += [kept.number for kept in page]
        before = page[-1].number
    assert pages == everything
    slowest = [kept.number for kept in reader.slowest(limit=3)]
    assert slowest + [kept.number for kept in reader.slowest(skip=3, limit=10)] == everything


def test_ticks_of_each_length_are_kept_apart_and_for_their_time(path, opened, monkeypatch):
    store, reader = opened(), RequestAndTickReader(path)
    at = 2_000_000_000
    monkeypatch.setattr("time.time", lambda: float(at))
    store.write_ticks([tick(at=at - 3600, seconds=COARSE_S), tick(at=at - 300), tick(at=at)])
    assert [t.at for t in reader.worker_ticks(FINE_S, after=0)] == [at - 300, at]
    assert [t.at for t in reader.worker_ticks(FINE_S, after=at - 300, until=at)] == [at]
    assert [t.at for t in reader.worker_ticks(COARSE_S, after=0)] == [at - 3600]
    assert reader.oldest_tick_end(FINE_S) == at - 300
    monkeypatch.setattr("time.time", lambda: float(at + 500))
    store.write_ticks([tick(at=at + 500)])
    assert [t.at for t in reader.worker_ticks(FINE_S, after=0)] == [at, at + 500]
    assert [t.at for t in reader.worker_ticks(COARSE_S, after=0)] == [at - 3600]


def test_the_store_of_another_release_is_an_empty_one(path):
    path.parent.mkdir()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE requests (id, summary)")
    db.close()
    assert RequestAndTickReader(path).newest(RequestFilter(status="4xx")) == []


def test_a_file_that_is_no_store_is_closed_again(tmp_path):
    """The test's own end would find it open."""
    (tmp_path / "requests.db").write_text("a diary, and not a short one: " * 20)
    with pytest.raises(sqlite3.DatabaseError):
        RequestAndTickWriter(tmp_path / "requests.db", limit=10)
