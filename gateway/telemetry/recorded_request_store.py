"""The SQLite store of recorded requests.

It holds recent ticks, too. All workers of a gateway share its one file. It is a ring: bad requests (failed, slow, asked
for) have a half of their own, so that good ones cannot push them out.
"""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from gateway.telemetry.recorded_request import RecordedRequest

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
    version TEXT NOT NULL,
    status INTEGER NOT NULL,
    side TEXT NOT NULL,
    caller TEXT NOT NULL,
    caller_label TEXT NOT NULL,
    text TEXT NOT NULL,
    summary BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS requests_request ON requests (request_id);
CREATE INDEX IF NOT EXISTS requests_trace ON requests (trace_id);
CREATE INDEX IF NOT EXISTS requests_bad ON requests (bad, id);
CREATE INDEX IF NOT EXISTS requests_model ON requests (model, id);
CREATE TABLE IF NOT EXISTS ticks (
    seconds INTEGER NOT NULL,
    at INTEGER NOT NULL,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    requests INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    late INTEGER NOT NULL,
    figures BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS ticks_model ON ticks (model, seconds, at);
CREATE INDEX IF NOT EXISTS ticks_at ON ticks (seconds, at);
"""
_VERSION = 2
_BUSY_S = 2.0
FINE_S = 5
COARSE_S = 60
KEPT_S = {FINE_S: 10 * 60, COARSE_S: 2 * 3600}  # how long ticks of each length are kept
_TRIM_EVERY = 20

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(RecordedRequest).decode
_encode_figures = msgspec.msgpack.Encoder().encode
_decode_figures = msgspec.msgpack.Decoder(tuple[list[int], list[int], dict[str, int]]).decode


class Tick(NamedTuple):
    """The counts of one version of one model in one tick.

    The tick is the `seconds` that end at `at`. `at` is a multiple of `seconds` since the epoch.
    """

    seconds: int
    at: int
    model: str
    version: str
    requests: int
    failed: int  # on the gateway's or the backend's side
    late: int  # later than the model's objective
    buckets: list[int]  # of the latency, as in LATENCY_BOUNDS
    backend: list[int]
    errors: dict[str, int]  # by "side code"


class RequestFilter(msgspec.Struct, frozen=True, kw_only=True):
    """A filter of recorded requests. Each field that is set narrows the result further."""

    kind: str = "all"  # failed; bad: failed, slow or asked for
    model: str | None = None
    version: str | None = None
    status: str = ""  # 404, or a class: 4xx
    side: str = ""  # of the error: gateway, backend, caller
    caller: str = ""  # its id or its label
    since: float = 0.0  # seconds since the epoch
    until: float = 0.0  # 0: now
    text: str = ""  # in the path, the ids, the error, its detail and its cause
    slower_s: float = 0.0

    def sql_conditions(self) -> tuple[str, list[Any]]:
        """The filter as SQL conditions, and their values. They are for a WHERE clause."""
        low, high = self._statuses()
        found: list[tuple[str, list[Any]]] = [("1", [])]
        given: tuple[tuple[bool, str, list[Any]], ...] = (
            (self.kind == "failed", "failed = 1", []),
            (self.kind == "bad", "bad = 1", []),
            (self.model is not None, "model = ?", [self.model]),
            (self.version is not None, "version = ?", [self.version]),
            (bool(self.status), "status BETWEEN ? AND ?", [low, high]),
            (bool(self.side), "side = ?", [self.side]),
            (bool(self.caller), "? IN (caller, caller_label)", [self.caller]),
            (self.since > 0, "at >= ?", [self.since]),
            (self.until > 0, "at < ?", [self.until]),
            (bool(self.text), "instr(text, ?)", [self.text.lower()]),
            (self.slower_s > 0, "duration_s >= ?", [self.slower_s]),
        )
        found += [(condition, values) for applies, condition, values in given if applies]
        return " AND ".join(condition for condition, _ in found), [v for _, vs in found for v in vs]

    def _statuses(self) -> tuple[int, int]:
        if not self.status:
            return 0, 0
        if self.status[1:] == "xx":
            return int(self.status[0]) * 100, int(self.status[0]) * 100 + 99
        return int(self.status), int(self.status)


ALL_REQUESTS = RequestFilter()


class StoredRequest(NamedTuple):
    """A recorded request with its number in the store."""

    number: int  # grows with each request kept
    request: RecordedRequest


def is_notable(request: RecordedRequest) -> bool:
    """Whether a recorded request is notable, such as failed or slow.

    Those that were asked for, or whose caller left, are notable, too.
    """
    return request.failed or request.kept in {"slow", "asked", "left"}


class RequestAndTickWriter:
    """Writes recorded requests and ticks to the store.

    The store keeps at most `limit` requests. It is called from the export queue's thread. Opening creates the file.
    """

    def __init__(self, path: Path, *, limit: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        self._limit = limit
        self._writes = 0
        try:
            path.chmod(0o600)  # it names callers and their addresses
            self._make_tables()
        except BaseException:
            self._db.close()
            raise

    def _make_tables(self) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")  # a lost second of traces is no loss worth a disk's wait
        if self._db.execute("PRAGMA user_version").fetchone()[0] not in {0, _VERSION}:
            self._db.executescript("DROP TABLE IF EXISTS requests; DROP TABLE IF EXISTS ticks;")
        self._db.executescript(_SCHEMA + f"PRAGMA user_version={_VERSION};")

    def write(self, batch: Sequence[RecordedRequest], timeout_s: float) -> None:  # noqa: ARG002  (SQLite has its own)
        with self._transaction():
            self._db.executemany(
                "INSERT INTO requests (at, request_id, trace_id, model, bad, failed, duration_s, version, status, side,"
                " caller, caller_label, text, summary) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                [_row(request) for request in batch],
            )
            self._writes += 1
            if self._writes % _TRIM_EVERY == 1 or len(batch) > self._limit // 10:
                self._trim()

    def write_ticks(self, ticks: Sequence[Tick]) -> None:
        now = time.time()
        with self._transaction():
            self._db.executemany(
                "INSERT INTO ticks VALUES (?,?,?,?,?,?,?,?)",
                [(*tick[:7], _encode_figures((tick.buckets, tick.backend, tick.errors))) for tick in ticks],
            )
            for seconds in {tick.seconds for tick in ticks}:
                self._db.execute(
                    "DELETE FROM ticks WHERE seconds = ? AND at < ?", (seconds, now - KEPT_S[seconds])
                )

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


def _row(s: RecordedRequest) -> tuple[Any, ...]:
    text = "\n".join(
        (
            s.request_id,
            s.trace_id,
            f"{s.method} {s.path}",
            s.error,
            s.detail,
            s.cause,
            s.caller,
            s.caller_label,
        )
    )
    numbers = (s.at, s.request_id, s.trace_id, s.model, is_notable(s), s.failed, s.duration_s)
    return (*numbers, s.version, s.status, s.side, s.caller, s.caller_label, text.lower(), _encode(s))


class RequestAndTickReader:
    """Reads recorded requests and ticks from the store. Any process may do it. A file that does not exist is an empty store."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def find(self, request_or_trace_id: str) -> list[RecordedRequest]:
        """Find the requests with this request or trace id. A trace may have several."""
        return [
            kept.request
            for kept in self._select(
                "SELECT id, summary FROM requests WHERE request_id = ?1 OR trace_id = ?1 ORDER BY id DESC LIMIT 20",
                (request_or_trace_id,),
            )
        ]

    def newest(
        self, wanted: RequestFilter = ALL_REQUESTS, *, before: int = 0, limit: int = 100
    ) -> list[StoredRequest]:
        """The newest recorded requests that match. The newest is first. With `before`, only those with a lower number."""
        where, values = wanted.sql_conditions()
        older = " AND id < ?" if before else ""
        return list(
            self._select(
                f"SELECT id, summary FROM requests WHERE {where}{older} ORDER BY id DESC LIMIT ?",  # noqa: S608
                (*values, *([before] if before else []), limit),
            )
        )

    def slowest(
        self, wanted: RequestFilter = ALL_REQUESTS, *, skip: int = 0, limit: int = 50
    ) -> list[StoredRequest]:
        """The slowest recorded requests that match. The slowest is first. The first `skip` are left out."""
        where, values = wanted.sql_conditions()
        return list(
            self._select(
                f"SELECT id, summary FROM requests WHERE {where} ORDER BY duration_s DESC, id DESC LIMIT ? OFFSET ?",  # noqa: S608
                (*values, limit, skip),
            )
        )

    def count(self, wanted: RequestFilter) -> int:
        where, values = wanted.sql_conditions()
        rows = self._rows(f"SELECT count(*) FROM requests WHERE {where}", values)  # noqa: S608
        return int(rows[0][0]) if rows else 0

    def stored_after(self, number: int, *, limit: int = 200) -> list[StoredRequest]:
        """The requests stored after `number`, oldest first. Call it again to follow new ones."""
        return list(
            self._select("SELECT id, summary FROM requests WHERE id > ? ORDER BY id LIMIT ?", (number, limit))
        )

    def last_number(self) -> int:
        rows = self._rows("SELECT max(id) FROM requests", ())
        return (rows[0][0] or 0) if rows else 0

    def worker_ticks(
        self, seconds: int, *, after: float, until: float | None = None, model: str | None = None
    ) -> list[Tick]:
        """The ticks of each worker and version, of this length, between two times.

        The oldest is first. They end after `after` and by `until`.
        """
        return [
            Tick(seconds, at, name, version, requests, failed, late, *_decode_figures(blob))
            for seconds, at, name, version, requests, failed, late, blob in self._rows(
                "SELECT seconds, at, model, version, requests, failed, late, figures FROM ticks"
                " WHERE seconds = ?1 AND at > ?2 AND (?3 IS NULL OR at <= ?3) AND (?4 IS NULL OR model = ?4)"
                " ORDER BY at",
                (seconds, after, until, model),
            )
        ]

    def requests_and_failures_by_tick(
        self, seconds: int, *, after: float, until: float
    ) -> list[tuple[str, int, int, int]]:
        """The requests and failures by model and tick: (model, time, requests, failures).

        Without the histograms, this is enough for many small curves.
        """
        return self._rows(
            "SELECT model, at, sum(requests), sum(failed) FROM ticks WHERE seconds = ? AND at > ?"
            " AND at <= ? GROUP BY model, at ORDER BY at",
            (seconds, after, until),
        )

    def oldest_tick_end(self, seconds: int) -> int | None:
        """When the oldest tick of this length ends, in seconds since the epoch. None where there is none."""
        rows = self._rows("SELECT min(at) FROM ticks WHERE seconds = ?", (seconds,))
        return rows[0][0] if rows else None

    def _select(self, query: str, values: Sequence[Any]) -> Iterator[StoredRequest]:
        for number, blob in self._rows(query, values):
            yield StoredRequest(number, _decode(blob))

    def _rows(self, query: str, values: Sequence[Any]) -> list[Any]:
        path = self.path
        if path is None or not path.exists():
            return []
        with closing(
            sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro",
                uri=True,
                timeout=_BUSY_S,
                check_same_thread=False,
            )
        ) as db:
            try:
                return db.execute(query, values).fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error) or "no such column" in str(error):  # of another release
                    return []
                raise
