"""The embedded registry: one SQLite file, shared by any number of processes on one machine.

All of it runs in one thread of its own, so no statement ever blocks the event loop.
"""

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import SplitResult, unquote
from uuid import uuid4

import msgspec

from gateway.registry.base import (
    MIRRORED,
    Change,
    Conflict,
    Delete,
    Document,
    Listing,
    Put,
    Registry,
    RegistryError,
    Unavailable,
    decode_document,
    decode_history_body,
    now_text,
)
from gateway.registry.schemes import refuse_query

_log = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 1
_POLL_S: Final = 0.1  # `PRAGMA data_version` costs some ten microseconds
_BUSY_TIMEOUT_S: Final = 5.0

_SCHEMA: Final = """
CREATE TABLE registry (id TEXT NOT NULL, generation INTEGER NOT NULL) STRICT;
CREATE TABLE documents (
  kind TEXT NOT NULL, name TEXT NOT NULL, revision INTEGER NOT NULL,
  body TEXT,  -- JSON; NULL is a tombstone, which keeps the revision growing when the name comes back
  PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE history (
  sequence INTEGER PRIMARY KEY, generation INTEGER NOT NULL, at TEXT NOT NULL, author TEXT NOT NULL,
  reason TEXT NOT NULL, action TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, revision INTEGER NOT NULL,
  before TEXT, after TEXT
) STRICT;
CREATE INDEX history_by_name ON history (kind, name, sequence);
CREATE TRIGGER history_is_not_rewritten BEFORE UPDATE ON history
  BEGIN SELECT RAISE(ABORT, 'the history is append-only'); END;
CREATE TRIGGER history_is_not_erased BEFORE DELETE ON history
  BEGIN SELECT RAISE(ABORT, 'the history is append-only'); END;
"""

_DOCUMENT: Final = "SELECT kind, name, revision, body FROM documents"
_KINDS: Final = tuple(sorted(MIRRORED))
_MIRRORED: Final = f"kind IN ({', '.join('?' * len(_KINDS))})"
_NEVER: Final = 2**62  # later than any entry of the history
# How many generations the history holds after its entry ?1, its last entry, and that one.
_WHERE_WE_ARE: Final = """
SELECT registry.id, registry.generation, (SELECT count(DISTINCT generation) FROM history WHERE sequence > ?1),
  last.sequence, last.generation, last.at, known.sequence, known.generation, known.at
FROM registry
LEFT JOIN history AS last ON last.sequence = (SELECT max(sequence) FROM history)
LEFT JOIN history AS known ON known.sequence = ?1
"""
_CHANGED: Final = (
    f"{_DOCUMENT} WHERE (kind, name) IN (SELECT kind, name FROM history WHERE sequence > ? AND {_MIRRORED})"  # noqa: S608
)

Result = TypeVar("Result")


def open_url(parts: SplitResult) -> Registry:
    """`sqlite:///absolute/path.db`, or `sqlite:relative/path.db` as seen from the working directory."""
    refuse_query(parts)
    path = unquote(parts.path)
    if parts.netloc or not path or path.endswith("/"):
        raise ValueError("a SQLite registry is written sqlite:///absolute/path.db or sqlite:relative/path.db")
    return SqliteRegistry(Path(path))


class SqliteRegistry:
    """A registry in the file at `path`, which is made with its folder when it is first used, and never a second time.

    A file that this process has used and that is gone was deleted, or its disk is not mounted: an empty one in its place
    would look like a registry that lists nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite")
        self._connection: sqlite3.Connection | None = None
        self._existed = False  # when this process last looked
        self._inode = 0
        self._connections = 0
        self._closed = False

    # -- the contract

    async def load(self) -> Listing:
        return await self._run(_load)

    async def watch(self, since: Listing | None = None) -> AsyncIterator[Listing | None]:  # noqa: ARG002  (near)
        held: _Held | None = None
        while True:
            found = await self._run(partial(self._read_on, held=held))
            yield found.listing() if found is not None else None
            held = found or held
            await asyncio.sleep(_POLL_S)

    async def read(self, kind: str, name: str) -> Document | None:
        found = await self._run(lambda db: _documents(db, "WHERE kind = ? AND name = ?", (kind, name)))
        return found[0] if found else None

    async def list(self, kind: str) -> tuple[Document, ...]:
        return await self._run(lambda db: _documents(db, "WHERE kind = ?", (kind,)))

    async def write(self, *changes: Put | Delete, author: str, reason: str = "") -> int:
        return await self._run(lambda db: _write(db, changes, author, reason))

    async def history(
        self, *, kind: str | None = None, name: str | None = None, limit: int = 100
    ) -> tuple[Change, ...]:
        return await self._run(lambda db: _history(db, kind, name, limit))

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown()

    # -- the thread

    async def _run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        if self._closed:
            raise RegistryError("the registry is closed")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._perform, work)

    def _perform(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        try:
            if self._connection is not None and self.path.stat().st_ino != self._inode:
                self._disconnect()  # the file was replaced, by a restored backup for example
            if self._connection is None:
                self._inode = self._file()  # before it is opened: what replaces it meanwhile is noticed
                self._connection = _connect(self.path, may_make=not self._existed)
                self._existed = True
                self._connections += 1  # each counts changes from a beginning of its own
                self._inode = self._inode or self._file()
            return work(self._connection)
        except (sqlite3.Error, OSError) as error:
            # A connection that failed is not trusted again: the file may have been replaced under it.
            self._disconnect()
            if self._existed and isinstance(error, FileNotFoundError):
                raise _gone(self.path) from error
            raise _explain(error, self.path) from error

    def _file(self) -> int:
        try:
            return self.path.stat().st_ino
        except FileNotFoundError:
            return 0

    def _read_on(self, db: sqlite3.Connection, *, held: "_Held | None") -> "_Held | None":
        """What the registry holds now; None where nothing was committed since `held`."""
        if held is not None and held.seen == self._seen(db):
            return None
        with _transaction(db, "DEFERRED"):
            seen = self._seen(db)  # as of the transaction's own moment
            if held is not None and held.seen[:2] != seen[:2]:
                held = None  # another connection, and perhaps another file
            return _read(db, held)._replace(seen=seen)

    def _seen(self, db: sqlite3.Connection) -> tuple[int, ...]:
        """Changes when anybody commits: SQLite's own number counts other connections only, the last one ours."""
        version = int(db.execute("PRAGMA data_version").fetchone()[0])
        return self._inode, self._connections, version, db.total_changes

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _connect(path: Path, *, may_make: bool) -> sqlite3.Connection:
    """Raises RegistryError; Unavailable where the file is gone and may not be made."""
    if not path.exists():
        if not may_make:
            raise _gone(path)
        log = path.with_name(f"{path.name}-wal")
        if log.exists():  # a process that is running has the file that was deleted still open
            raise _gone(path, begin_anew=f"stop what uses it and remove {log}")
        path.parent.mkdir(parents=True, exist_ok=True)
        # Key digests and addresses of backends are for the owner of the file only.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",  # never made by opening it
        uri=True,
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            if not may_make:
                raise _gone(path)
            if _create(db, path):
                _log.warning(
                    "a new, empty registry was made: %s. If there was one before, stop here and put it back: "
                    "docs/how-to/restore.md",
                    path,
                )
        elif version != SCHEMA_VERSION:
            raise RegistryError(
                f"the registry {path} was written by another release of CHIPS (schema {version}, this one "
                f"reads {SCHEMA_VERSION}). Upgrade CHIPS, or use another file."
            )
        db.execute("PRAGMA synchronous = FULL")  # what was acknowledged survives a power cut
    except BaseException:
        db.close()
        raise
    return db


def _use_wal(db: sqlite3.Connection) -> None:
    """Readers and a writer do not wait for each other then. To switch needs the file alone, and SQLite does not wait for that."""
    give_up_at = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up_at:
                raise
            time.sleep(0.01)  # another process makes the registry at this moment
        else:
            return


def _gone(path: Path, *, begin_anew: str = "start again") -> Unavailable:
    return Unavailable(
        f"the registry {path} is gone: it was deleted or emptied, or its disk is not mounted. Put it back "
        f"(docs/how-to/restore.md); to begin with an empty one, {begin_anew}"
    )


def _create(db: sqlite3.Connection, path: Path) -> bool:
    """Make the tables; False where another process was first."""
    _use_wal(db)
    with _transaction(db):
        if db.execute("PRAGMA user_version").fetchone()[0]:
            return False
        if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise RegistryError(f"{path} is the database of another program; name another file")
        for statement in _statements(_SCHEMA):
            db.execute(statement)
        db.execute("INSERT INTO registry VALUES (?, 0)", (uuid4().hex,))
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    return True


def _statements(script: str) -> list[str]:
    """Split `script`; `executescript` would commit the transaction we are in."""
    statements, current = [], ""
    for line in script.splitlines(keepends=True):
        current += line
        if sqlite3.complete_statement(current):
            statements.append(current)
            current = ""
    return statements


class _transaction:  # noqa: N801  (reads as a keyword: `with _transaction(db):`)
    """BEGIN IMMEDIATE … COMMIT: the write lock is taken first, so what is read inside cannot change before the commit."""

    def __init__(self, db: sqlite3.Connection, mode: str = "IMMEDIATE") -> None:
        self._db = db
        self._mode = mode

    def __enter__(self) -> None:
        self._db.execute(f"BEGIN {self._mode}")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._db.execute("COMMIT")
        elif self._db.in_transaction:  # a full disk has ended it already
            self._db.execute("ROLLBACK")


class _Held(NamedTuple):
    """What a watch holds: the mirrored documents as of a generation, and the last entry of the history by then."""

    registry_id: str
    generation: int
    last: tuple[Any, ...]  # its sequence, generation and time
    documents: dict[tuple[str, str], Document]
    seen: tuple[int, ...] = ()  # what tells whether anybody has committed since

    def listing(self) -> Listing:
        return Listing(
            registry_id=self.registry_id,
            generation=self.generation,
            documents=tuple(self.documents.values()),
        )


def _load(db: sqlite3.Connection) -> Listing:
    with _transaction(db, "DEFERRED"):
        return _read(db, None).listing()


def _read(db: sqlite3.Connection, held: _Held | None) -> _Held:
    """What the registry holds at this moment; of that, only what has changed since `held` is read.

    Few statements, for each gives up the interpreter's lock and may wait long for it.
    """
    since = _NEVER if held is None else held.last[0]
    registry_id, generation, told, *entries = db.execute(_WHERE_WE_ARE, (since,)).fetchall()[0]
    last, known = tuple(entries[:3]), tuple(entries[3:])
    # The history must account for every generation since: all writes of any release are in it. It does not where a
    # backup was restored, or somebody has edited the file by hand: then all is read anew.
    if (
        held is not None
        and (registry_id, known) == (held.registry_id, held.last)
        and told == generation - held.generation > 0
    ):
        documents = dict(held.documents)
        rows = db.execute(_CHANGED, (since, *_KINDS))
    else:
        documents = {}
        rows = db.execute(f"{_DOCUMENT} WHERE {_MIRRORED} ORDER BY kind, name", _KINDS)
    for kind, name, revision, body in rows:
        if body is None:
            documents.pop((kind, name), None)
        else:
            documents[kind, name] = decode_document(kind, name, revision, body)
    return _Held(registry_id, generation, last, documents)


def _documents(db: sqlite3.Connection, where: str, values: tuple[str, ...]) -> tuple[Document, ...]:
    rows = db.execute(f"{_DOCUMENT} {where} AND body IS NOT NULL ORDER BY kind, name", values)
    return tuple(decode_document(kind, name, revision, body) for kind, name, revision, body in rows)


def _write(db: sqlite3.Connection, changes: tuple[Put | Delete, ...], author: str, reason: str) -> int:
    at = now_text()
    with _transaction(db):
        generation: int = db.execute(
            "UPDATE registry SET generation = generation + 1 RETURNING generation"
        ).fetchall()[0][0]
        for change in changes:
            _write_one(db, change, generation, at, author, reason)
    return generation


def _write_one(
    db: sqlite3.Connection, change: Put | Delete, generation: int, at: str, author: str, reason: str
) -> None:
    row = db.execute(
        "SELECT revision, body FROM documents WHERE kind = ? AND name = ?", (change.kind, change.name)
    ).fetchone()
    last_revision, before = row if row is not None else (0, None)
    actual = last_revision if before is not None else 0
    if actual != change.expected:
        raise Conflict(change.kind, change.name, expected=change.expected, actual=actual)
    after = msgspec.json.encode(change.body).decode() if isinstance(change, Put) else None
    db.execute(
        "INSERT INTO documents VALUES (?, ?, ?, ?) "
        "ON CONFLICT (kind, name) DO UPDATE SET revision = excluded.revision, body = excluded.body",
        (change.kind, change.name, last_revision + 1, after),
    )
    action = "delete" if after is None else "create" if before is None else "update"
    db.execute(
        "INSERT INTO history (generation, at, author, reason, action, kind, name, revision, before, after) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (generation, at, author, reason, action, change.kind, change.name, last_revision + 1, before, after),
    )


def _history(db: sqlite3.Connection, kind: str | None, name: str | None, limit: int) -> tuple[Change, ...]:
    rows = db.execute(
        "SELECT generation, at, author, reason, action, kind, name, revision, before, after FROM history "
        "WHERE (?1 IS NULL OR kind = ?1) AND (?2 IS NULL OR name = ?2) ORDER BY sequence DESC LIMIT ?3",
        (kind, name, limit),
    )
    return tuple(_change(row) for row in rows)


def _change(row: tuple[Any, ...]) -> Change:
    *plain, before, after = row
    fields = dict(zip(Change.__struct_fields__, plain, strict=False))
    return Change(
        **fields,
        before=decode_history_body(before),
        after=decode_history_body(after),
    )


def _explain(error: sqlite3.Error | OSError, path: Path) -> RegistryError:
    """Say what to do. What may pass by itself is Unavailable."""
    text = str(error)
    if "locked" in text or "busy" in text:
        return Unavailable(
            f"the registry {path} has been locked by another process for {_BUSY_TIMEOUT_S:.0f} s"
        )
    if "not a database" in text or "malformed" in text:
        return RegistryError(
            f"{path} is not a CHIPS registry, or is damaged; move it away or name another file"
        )
    if "readonly" in text or "read-only" in text or isinstance(error, PermissionError):
        return RegistryError(f"no permission to write the registry {path}: check its owner and mode")
    if "disk is full" in text or "disk full" in text:
        return Unavailable(f"the disk that holds the registry {path} is full; nothing was written")
    return Unavailable(f"the registry {path} cannot be used: {text}")
