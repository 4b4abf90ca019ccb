"""Opens connections to the registry's SQLite file.

It creates the file, makes transactions, and explains errors to an operator.
"""

import logging
import os
import sqlite3
import time
from pathlib import Path
from typing import Final
from uuid import uuid4

from gateway.registry.base import (
    RegistryError,
    RegistryStoreDamaged,
    Unavailable,
)

_log = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 2
UNCHAINED_VERSION: Final = 1  # its history is not a hash chain yet; the first write makes it one


_BUSY_TIMEOUT_S: Final = 5.0


_SCHEMA: Final = """
CREATE TABLE registry (
  id TEXT NOT NULL, generation INTEGER NOT NULL,
  sequence INTEGER NOT NULL, digest TEXT NOT NULL  -- the head of the hash chain: its last entry
) STRICT;
CREATE TABLE documents (
  kind TEXT NOT NULL, name TEXT NOT NULL, revision INTEGER NOT NULL,
  body TEXT,  -- JSON; NULL is a tombstone, which keeps the revision growing when the name comes back
  PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE history (
  sequence INTEGER PRIMARY KEY, generation INTEGER NOT NULL, at TEXT NOT NULL, author TEXT NOT NULL,
  reason TEXT NOT NULL, action TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, revision INTEGER NOT NULL,
  before TEXT, after TEXT, previous TEXT, digest TEXT  -- NULL in an entry from before the hash chain
) STRICT;
CREATE INDEX history_by_name ON history (kind, name, sequence);
CREATE TRIGGER history_is_not_rewritten BEFORE UPDATE ON history
  BEGIN SELECT RAISE(ABORT, 'the history is append-only'); END;
CREATE TRIGGER history_is_not_erased BEFORE DELETE ON history
  BEGIN SELECT RAISE(ABORT, 'the history is append-only'); END;
"""
_CHAIN_COLUMNS: Final = """
ALTER TABLE registry ADD COLUMN sequence INTEGER NOT NULL DEFAULT 0;
ALTER TABLE registry ADD COLUMN digest TEXT NOT NULL DEFAULT '';
ALTER TABLE history ADD COLUMN previous TEXT;
ALTER TABLE history ADD COLUMN digest TEXT;
"""
# A process of an older release that is still running must not write past the chain.
_CHAIN_TRIGGER: Final = """
CREATE TRIGGER history_is_chained BEFORE INSERT ON history WHEN NEW.digest IS NULL
  BEGIN SELECT RAISE(ABORT, 'the history is a hash chain: upgrade the release of CHIPS that writes here'); END;
"""


def connect(path: Path, *, may_make: bool) -> sqlite3.Connection:
    """Open a connection to the registry's SQLite file.

    The file is created if `may_make`. Raises RegistryError; Unavailable where it is gone and must not be created.
    """
    if not path.exists():
        if not may_make:
            raise file_gone_error(path)
        log = path.with_name(f"{path.name}-wal")
        if log.exists():  # a process that is running has the file that was deleted still open
            raise file_gone_error(path, begin_anew=f"stop what uses it and remove {log}")
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
    db.text_factory = _text
    try:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            if not may_make:
                raise file_gone_error(path)
            if _create(db, path):
                _log.warning(
                    "a new, empty registry was made: %s. If there was one before, stop here and put it back: "
                    "docs/how-to/restore.md",
                    path,
                )
        elif version not in {SCHEMA_VERSION, UNCHAINED_VERSION}:
            raise RegistryError(
                f"the registry {path} was written by another release of CHIPS (schema {version}, this one "
                f"reads {SCHEMA_VERSION}). Upgrade CHIPS, or use another file."
            )
        db.execute("PRAGMA synchronous = FULL")  # what was acknowledged survives a power cut
    except BaseException:
        db.close()
        raise
    return db


def _text(raw: bytes) -> str | bytes:
    """A text of the database; its bytes where they are not UTF-8, so that one of them does not hide all others."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


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


def file_gone_error(path: Path, *, begin_anew: str = "start again") -> Unavailable:
    """The error for a registry file that existed before and is gone."""
    return Unavailable(
        f"the registry {path} is gone: it was deleted or emptied, or its disk is not mounted. Put it back "
        f"(docs/how-to/restore.md); to begin with an empty one, {begin_anew}"
    )


def _create(db: sqlite3.Connection, path: Path) -> bool:
    """Make the tables; False where another process was first."""
    _use_wal(db)
    with transaction(db):
        if db.execute("PRAGMA user_version").fetchone()[0]:
            return False
        if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise RegistryError(f"{path} is the database of another program; name another file")
        for statement in _statements(_SCHEMA + _CHAIN_TRIGGER):
            db.execute(statement)
        db.execute("INSERT INTO registry VALUES (?, 0, 0, '')", (uuid4().hex,))
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    return True


def add_chain_columns(db: sqlite3.Connection) -> None:
    """Add the columns of the hash chain to a registry of schema 1.

    It does so within the transaction that takes the registry over.
    """
    for statement in _statements(_CHAIN_COLUMNS + _CHAIN_TRIGGER):
        db.execute(statement)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def is_chained(db: sqlite3.Connection) -> bool:
    """Whether the history is a hash chain already."""
    return bool(db.execute("PRAGMA user_version").fetchone()[0] != UNCHAINED_VERSION)


def _statements(script: str) -> list[str]:
    """Split `script`; `executescript` would commit the transaction we are in."""
    statements, current = [], ""
    for line in script.splitlines(keepends=True):
        current += line
        if sqlite3.complete_statement(current):
            statements.append(current)
            current = ""
    return statements


class transaction:  # noqa: N801  (reads as a keyword: `with transaction(db):`)
    """A SQLite transaction as a context manager, BEGIN IMMEDIATE … COMMIT.

    The write lock is taken first, so what is read inside cannot change before the commit.
    """

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


def explain_sqlite_error(error: sqlite3.Error | OSError, path: Path) -> RegistryError:
    """Turn a SQLite error into a RegistryError that explains it.

    The text says what to do about `error`; it is Unavailable where the error may pass by itself.
    """
    text = str(error)
    if "locked" in text or "busy" in text:
        return Unavailable(
            f"the registry {path} has been locked by another process for {_BUSY_TIMEOUT_S:.0f} s"
        )
    if "no such table" in text or "no such column" in text:
        return RegistryStoreDamaged(f"the tables of the registry {path} are not as CHIPS makes them: {text}")
    if "not a database" in text or "malformed" in text:
        return RegistryStoreDamaged(
            f"{path} is not a CHIPS registry, or is damaged; move it away or name another file"
        )
    if "readonly" in text or "read-only" in text or isinstance(error, PermissionError):
        return RegistryError(f"no permission to write the registry {path}: check its owner and mode")
    if "disk is full" in text or "disk full" in text:
        return Unavailable(f"the disk that holds the registry {path} is full; nothing was written")
    return Unavailable(f"the registry {path} cannot be used: {text}")
