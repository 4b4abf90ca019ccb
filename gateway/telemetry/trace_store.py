"""The embedded store of kept requests and recent figures: one SQLite file that all workers of a gateway share.

It is a ring: bad requests (failed, slow, asked for) have a half of their own, so that good ones cannot push them out.
"""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from gateway.telemetry.request_summary import RequestSummary

_SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    request_id TEXT NOT NULL,
    trace_id TEXT NOT NULL,
    model TEXT NOT NULL,
    bad INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    duration_s REAL NOT NULL,
    summary BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS requests_request ON requests (request_id);
CREATE INDEX IF NOT EXISTS requests_trace ON requests (trace_id);
CREATE INDEX IF NOT EXISTS requests_bad ON requests (bad, id);
CREATE INDEX IF NOT EXISTS requests_model ON requests (model, id);
CREATE TABLE IF NOT EXISTS ticks (
    at INTEGER NOT NULL,
    worker TEXT NOT NULL,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    requests INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    buckets BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS ticks_model ON ticks (model, at);
CREATE INDEX IF NOT EXISTS ticks_at ON ticks (at);
"""
_VERSION = 1
_BUSY_S = 2.0
TICK_S = 15
_TICKS_KEPT_S = 2 * 3600
_TRIM_EVERY = 20

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(RequestSummary).decode
_encode_buckets = msgspec.msgpack.Encoder().encode
_decode_buckets = msgspec.msgpack.Decoder(list[int]).decode


class Tick(NamedTuple):
    """What one version of one model did in the `TICK_S` seconds that end at `at`."""

    at: int
    model: str
    version: str
    requests: int
    failed: int
    buckets: list[int]


class StoredRequest(NamedTuple):
    """A recorded request with its number in the store."""

    number: int  # grows with each request kept
    summary: RequestSummary


def is_bad(summary: RequestSummary) -> bool:
    """Whether a recorded request failed, was slow, was asked for, or was left by its caller."""
    return summary.failed or summary.kept in {"slow", "asked", "left"}


class TraceStore:
    """Written from the export queue's thread; `limit` requests are kept. Opening it makes the file."""

    def __init__(self, path: Path, *, limit: int, worker: str = "") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        path.chmod(0o600)  # it names callers and their addresses
        self._limit = limit
        self._worker = worker
        self._writes = 0
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")  # a lost second of traces is no loss worth a disk's wait
        if self._db.execute("PRAGMA user_version").fetchone()[0] not in {0, _VERSION}:
            self._db.executescript("DROP TABLE IF EXISTS requests; DROP TABLE IF EXISTS ticks;")
        self._db.executescript(_SCHEMA + f"PRAGMA user_version={_VERSION};")

    def write(self, batch: Sequence[RequestSummary], timeout_s: float) -> None:  # noqa: ARG002  (SQLite has its own)
        rows = [
            (s.at, s.request_id, s.trace_id, s.model, is_bad(s), s.failed, s.duration_s, _encode(s))
            for s in batch
        ]
        with self._transaction():
            self._db.executemany(
                "INSERT INTO requests (at, request_id, trace_id, model, bad, failed, duration_s, summary)"
                " VALUES (?,?,?,?,?,?,?,?)",
                rows,
            )
            self._writes += 1
            if self._writes % _TRIM_EVERY == 1 or len(batch) > self._limit // 10:
                self._trim()

    def write_ticks(self, ticks: Sequence[Tick]) -> None:
        with self._transaction():
            self._db.executemany(
                "INSERT INTO ticks VALUES (?,?,?,?,?,?,?)",
                [
                    (t.at, self._worker, t.model, t.version, t.requests, t.failed, _encode_buckets(t.buckets))
                    for t in ticks
                ],
            )
            self._db.execute("DELETE FROM ticks WHERE at < ?", (time.time() - _TICKS_KEPT_S,))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """One that fails must not stay open: it would keep the file locked against every other worker."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:  # a full disk may have ended it already
                self._db.execute("ROLLBACK")

    def _trim(self) -> None:
        for bad in (0, 1):
            self._db.execute(
                "DELETE FROM requests WHERE bad = ? AND id <= (SELECT id FROM requests WHERE bad = ?"
                " ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (bad, bad, self._limit // 2),
            )

    def close(self) -> None:
        self._db.close()


class TraceStoreReader:
    """Reads a store, from any process. A store that is not there is an empty one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def find(self, request_or_trace_id: str) -> list[RequestSummary]:
        """All requests with this id; a trace may have several."""
        return [
            kept.summary
            for kept in self._select(
                "SELECT id, summary FROM requests WHERE request_id = ?1 OR trace_id = ?1 ORDER BY id DESC LIMIT 20",
                (request_or_trace_id,),
            )
        ]

    def newest(
        self, *, model: str | None = None, kind: str = "all", slower_s: float = 0.0, limit: int = 100
    ) -> list[StoredRequest]:
        """The newest first. `kind`: all, failed, or bad (failed, slow or asked for)."""
        wheres, values = ["duration_s >= ?"], [slower_s]  # type: tuple[list[str], list[Any]]
        if model is not None:
            wheres.append("model = ?")
            values.append(model)
        if kind != "all":
            wheres.append("failed = 1" if kind == "failed" else "bad = 1")
        return list(
            self._select(
                f"SELECT id, summary FROM requests WHERE {' AND '.join(wheres)} ORDER BY id DESC LIMIT ?",  # noqa: S608
                (*values, limit),
            )
        )

    def slowest(
        self, *, model: str | None = None, since: float = 0.0, limit: int = 50
    ) -> list[StoredRequest]:
        return list(
            self._select(
                "SELECT id, summary FROM requests WHERE at >= ?1 AND (?2 IS NULL OR model = ?2)"
                " ORDER BY duration_s DESC LIMIT ?3",
                (since, model, limit),
            )
        )

    def after(self, number: int, *, limit: int = 200) -> list[StoredRequest]:
        """What was kept after `number`, oldest first: for following."""
        return list(
            self._select("SELECT id, summary FROM requests WHERE id > ? ORDER BY id LIMIT ?", (number, limit))
        )

    def last_number(self) -> int:
        rows = self._rows("SELECT max(id) FROM requests", ())
        return (rows[0][0] or 0) if rows else 0

    def ticks(self, *, since: float, model: str | None = None) -> list[Tick]:
        return [
            Tick(at, name, version, requests, failed, _decode_buckets(buckets))
            for at, name, version, requests, failed, buckets in self._rows(
                "SELECT at, model, version, requests, failed, buckets FROM ticks"
                " WHERE at >= ?1 AND (?2 IS NULL OR model = ?2) ORDER BY at",
                (since, model),
            )
        ]

    def counts(self, *, since: float) -> list[tuple[str, int, int, int]]:
        """Model, time, requests and failures by tick, without the histograms: enough for many small curves."""
        return self._rows(
            "SELECT model, at, sum(requests), sum(failed) FROM ticks WHERE at >= ? GROUP BY model, at ORDER BY at",
            (since,),
        )

    def _select(self, query: str, values: Sequence[Any]) -> Iterator[StoredRequest]:
        for number, blob in self._rows(query, values):
            yield StoredRequest(number, _decode(blob))

    def _rows(self, query: str, values: Sequence[Any]) -> list[Any]:
        if not self._path.exists():
            return []
        with closing(
            sqlite3.connect(
                f"{self._path.absolute().as_uri()}?mode=ro",
                uri=True,
                timeout=_BUSY_S,
                check_same_thread=False,
            )
        ) as db:
            try:
                return db.execute(query, values).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return []
                raise
