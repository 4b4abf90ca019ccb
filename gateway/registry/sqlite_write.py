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
from gateway.registry.damaged_records import RegistryDamaged, stored_document, values_or_problem
from gateway.registry.hash_chain import (
    TAKEOVER,
    TAKEOVER_REASON,
    check_expected,
    entry_of_change,
    seal,
    take_over_history,
)
from gateway.registry.sqlite_connection import add_chain_columns, is_chained, transaction
from gateway.registry.sqlite_read import ENTRY_COLUMNS, entry_of_row

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
    entry = entry_of_change(
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
            f"INSERT INTO history ({ENTRY_COLUMNS}, previous, digest) VALUES ({', '.join('?' * 13)})",  # noqa: S608
            msgspec.structs.astuple(entry)[:13],
        )
    except sqlite3.IntegrityError as error:
        raise RegistryError(
            "the history does not end where its head says: `chips audit --verify` shows where"
        ) from error
    return new_head


def _stored(db: sqlite3.Connection, change: Put | Delete | Precondition) -> tuple[int, str | None]:
    """The revision and the text of the document that `change` is about; 0 and None where there was none."""
    found = db.execute(
        "SELECT revision, body FROM documents WHERE kind = ? AND name = ?", (change.kind, change.name)
    ).fetchone()
    return values_or_problem(*found)[:2] if found is not None else (0, None)


def _move_head(db: sqlite3.Connection, old: Head, new: Head) -> None:
    moved = db.execute(
        "UPDATE registry SET generation = ?, sequence = ?, digest = ? WHERE sequence = ? AND digest = ?",
        (new.generation, new.sequence, new.digest, old.sequence, old.digest),
    )
    if moved.rowcount != 1:  # the transaction holds the write lock, so only a damaged table gets here
        raise RegistryDamaged("the registry's head is damaged: `chips audit --verify` shows how")


def _take_over(db: sqlite3.Connection, at: str) -> None:
    """Make the history of an older release a chain, by one entry that commits to all that was there before."""
    rows = db.execute(f"SELECT {ENTRY_COLUMNS} FROM history ORDER BY sequence DESC").fetchall()  # noqa: S608
    takeover, head = take_over_history(read_head(db), map(entry_of_row, rows), _documents(db, None))
    add_chain_columns(db)
    db.execute("UPDATE registry SET sequence = ?, digest = ?", (head.sequence, head.digest))
    change = Put(kind=AUDIT, name=TAKEOVER, body=msgspec.to_builtins(takeover), expected=0)
    new = _write_one(db, change, head, head.generation + 1, at, "chips", TAKEOVER_REASON)
    _move_head(db, head, new)


def read_head(db: sqlite3.Connection) -> Head:
    """The head of the chain; without a digest where the history is not chained yet. Raises RegistryDamaged."""
    chained = is_chained(db)
    columns = "id, generation, sequence, digest" if chained else "id, generation"
    rows = db.execute(f"SELECT {columns} FROM registry").fetchall()  # noqa: S608
    if len(rows) != 1:
        raise RegistryDamaged(
            f"the registry's table of its head holds {len(rows)} rows, not one: restore it from a backup"
        )
    values = dict(zip(("registry_id", "generation", "sequence", "digest"), rows[0], strict=False))
    try:
        return msgspec.convert(values, Head)
    except msgspec.ValidationError as error:
        raise RegistryDamaged(f"the registry's head is damaged, restore it from a backup: {error}") from None


def refuse_damaged_tables(db: sqlite3.Connection) -> None:
    """Refuse damaged tables: raises RegistryDamaged where they cannot hold what a registry writes, or hold rows that no query by name finds."""
    chained = is_chained(db)
    expected = {
        "registry": ["id", "generation", *(["sequence", "digest"] if chained else [])],
        "documents": ["kind", "name", "revision", "body"],
        "history": [*ENTRY_COLUMNS.split(", "), *(["previous", "digest"] if chained else [])],
    }
    for table, columns in expected.items():
        kind = db.execute("SELECT type FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        found = [row[1] for row in db.execute(f"PRAGMA table_xinfo({table})")]
        if kind != ("table",) or found != columns:
            raise RegistryDamaged(
                f"the table {table} of the registry is not as CHIPS makes it: it should have the columns {', '.join(columns)}"
            )
    nameless = "SELECT count(*) FROM documents WHERE typeof(kind) <> 'text' OR typeof(name) <> 'text'"
    (count,) = db.execute(nameless).fetchone()
    if count:
        raise RegistryDamaged(
            f"the table documents of the registry holds {count} rows whose kind or name is no text"
        )


def read_entries_page(db: sqlite3.Connection, before: int | None) -> tuple[list[Entry], int | None]:
    """A page of the entries in rows below `before` (None: of all), the newest first, and the row that the next is below.

    Pages are counted by SQLite's own number of the row: `sequence` is that number, unless somebody has made another table.
    """
    where = "" if before is None else "WHERE rowid < :before"
    columns = f"{ENTRY_COLUMNS}, previous, digest" if is_chained(db) else ENTRY_COLUMNS
    rows = db.execute(
        f"SELECT rowid, {columns} FROM history {where} ORDER BY rowid DESC LIMIT :page",  # noqa: S608
        {"before": before, "page": _PAGE},
    ).fetchall()
    return [entry_of_row(row[1:]) for row in rows], rows[-1][0] if rows else None


def read_stored(db: sqlite3.Connection, kind: str) -> tuple[StoredDocument, ...]:
    """The documents of a kind as they are stored, tombstones included."""
    return tuple(_documents(db, kind))


def _documents(db: sqlite3.Connection, kind: str | None) -> list[StoredDocument]:
    rows = db.execute(
        "SELECT kind, name, revision, body FROM documents WHERE ?1 IS NULL OR kind = ?1", (kind,)
    )
    return [stored_document(*row) for row in rows]
