"""The registry's writes to SQLite, and its hash chain: what a write adds, and what the audit reads."""

import sqlite3
from collections.abc import Sequence
from typing import Final

import msgspec

from gateway.registry.base import (
    AUDIT,
    Delete,
    Entry,
    Head,
    Precondition,
    Put,
    RegistryError,
    StoredDocument,
    now_rfc3339,
)
from gateway.registry.hash_chain import TAKEOVER, TAKEOVER_REASON, check_expected, entry_of, seal, take_over
from gateway.registry.sqlite_connection import add_chain, is_chained, transaction

_PLAIN: Final = "sequence, generation, at, author, reason, action, kind, name, revision, before, after"
_PAGE: Final = 500  # entries read at once


def write(
    db: sqlite3.Connection,
    changes: tuple[Put | Delete, ...],
    author: str,
    reason: str,
    preconditions: Sequence[Precondition] = (),
) -> int:
    """Write all changes and the chain's head in one transaction; return the new generation. Raises Conflict."""
    if not changes:
        raise ValueError("a write changes at least one document")
    at = now_rfc3339()
    with transaction(db):
        for precondition in preconditions:
            check_expected(precondition, *_stored(db, precondition))
        if not is_chained(db):
            _take_over(db, at)
        head = read_head(db)
        generation = head.generation + 1
        new_head = head
        for change in changes:
            new_head = _write_one(db, change, new_head, generation, at, author, reason)
        _move_head(db, head, msgspec.structs.replace(new_head, generation=generation))
    return generation


def _write_one(
    db: sqlite3.Connection,
    change: Put | Delete,
    head: Head,
    generation: int,
    at: str,
    author: str,
    reason: str,
) -> Head:
    revision, before = _stored(db, change)
    check_expected(change, revision, before)
    after = msgspec.json.encode(change.body).decode() if isinstance(change, Put) else None
    entry = entry_of(
        change, revision, before, after, generation=generation, at=at, author=author, reason=reason
    )
    db.execute(
        "INSERT INTO documents VALUES (?, ?, ?, ?) "
        "ON CONFLICT (kind, name) DO UPDATE SET revision = excluded.revision, body = excluded.body",
        (entry.kind, entry.name, entry.revision, after),
    )
    entry, new_head = seal(entry, head)
    try:
        db.execute(
            f"INSERT INTO history ({_PLAIN}, previous, digest) VALUES ({', '.join('?' * 13)})",  # noqa: S608
            msgspec.structs.astuple(entry)[:13],
        )
    except sqlite3.IntegrityError as error:
        raise RegistryError(
            "the history does not end where its head says: `chips audit --verify` shows where"
        ) from error
    return new_head


def _stored(db: sqlite3.Connection, change: Put | Delete | Precondition) -> tuple[int, str | None]:
    """The revision and the text of the document that `change` is about; 0 and None where there was none."""
    found: tuple[int, str | None] | None = db.execute(
        "SELECT revision, body FROM documents WHERE kind = ? AND name = ?", (change.kind, change.name)
    ).fetchone()
    return found if found is not None else (0, None)


def _move_head(db: sqlite3.Connection, old: Head, new: Head) -> None:
    moved = db.execute(
        "UPDATE registry SET generation = ?, sequence = ?, digest = ? WHERE sequence = ? AND digest = ?",
        (new.generation, new.sequence, new.digest, old.sequence, old.digest),
    )
    if moved.rowcount != 1:  # the transaction holds the write lock, so only a damaged table gets here
        raise RegistryError("the registry's head is damaged: `chips audit --verify` shows how")


def _take_over(db: sqlite3.Connection, at: str) -> None:
    """Make the history of an older release a chain, by one entry that commits to all that was there before."""
    rows = db.execute(f"SELECT {_PLAIN} FROM history ORDER BY sequence DESC").fetchall()  # noqa: S608
    takeover, head = take_over(read_head(db), map(_entry, rows), _documents(db, None))
    add_chain(db)
    db.execute("UPDATE registry SET sequence = ?, digest = ?", (head.sequence, head.digest))
    change = Put(kind=AUDIT, name=TAKEOVER, body=msgspec.to_builtins(takeover), expected=0)
    new = _write_one(db, change, head, head.generation + 1, at, "chips", TAKEOVER_REASON)
    _move_head(db, head, new)


def read_head(db: sqlite3.Connection) -> Head:
    """The head of the chain; without a digest where the history is not chained yet."""
    if not is_chained(db):
        registry_id, generation = db.execute("SELECT id, generation FROM registry").fetchone()
        return Head(registry_id=registry_id, generation=generation)
    rows = db.execute("SELECT id, generation, sequence, digest FROM registry").fetchall()
    if len(rows) != 1:
        raise RegistryError(
            f"the registry's table of its head holds {len(rows)} rows, not one: restore it from a backup"
        )
    registry_id, generation, sequence, digest = rows[0]
    return Head(registry_id=registry_id, generation=generation, sequence=sequence, digest=digest)


def read_entries(db: sqlite3.Connection, before: int | None) -> list[Entry]:
    """The entries with the largest sequences below `before` (None: of all), the newest first: a page of them."""
    where = "" if before is None else "WHERE sequence < :before"
    columns = f"{_PLAIN}, previous, digest" if is_chained(db) else _PLAIN
    rows = db.execute(
        f"SELECT {columns} FROM history {where} ORDER BY sequence DESC LIMIT :page",  # noqa: S608
        {"before": before, "page": _PAGE},
    )
    return [_entry(row) for row in rows]


def read_stored(db: sqlite3.Connection, kind: str) -> tuple[StoredDocument, ...]:
    """The documents of a kind as they are stored, tombstones included."""
    return tuple(_documents(db, kind))


def _documents(db: sqlite3.Connection, kind: str | None) -> list[StoredDocument]:
    rows = db.execute(
        "SELECT kind, name, revision, body FROM documents WHERE ?1 IS NULL OR kind = ?1", (kind,)
    )
    return [StoredDocument(kind=k, name=n, revision=r, body=b) for k, n, r, b in rows]


def _entry(row: tuple[object, ...]) -> Entry:
    return Entry(**dict(zip(Entry.__struct_fields__, row, strict=False)))  # type: ignore[arg-type]
