"""Write documents to the registry in SQLite. Each write also appends to the history's hash chain."""

import sqlite3
from collections.abc import Sequence

import msgspec

from gateway.registry.base import (
    AUDIT,
    Delete,
    Generation,
    Head,
    Precondition,
    Put,
    RegistryError,
    RegistryStoreDamaged,
    now_rfc3339,
)
from gateway.registry.damaged_record_placeholders import values_or_problem
from gateway.registry.hash_chain import (
    TAKEOVER,
    TAKEOVER_REASON,
    check_expected,
    entry_of_change,
    seal,
    take_over_unchained_history,
)
from gateway.registry.sqlite_connection import add_chain_columns, is_chained, transaction
from gateway.registry.sqlite_read import ENTRY_COLUMNS, entry_of_row
from gateway.registry.sqlite_read_as_stored import read_documents_as_stored, read_head


def write(
    db: sqlite3.Connection,
    changes: tuple[Put | Delete, ...],
    author: str,
    reason: str,
    preconditions: Sequence[Precondition] = (),
) -> Generation:
    """Write all changes in one transaction; return the new generation.

    The chain's head is written with them. Raises Conflict.
    """
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
        raise RegistryStoreDamaged("the registry's head is damaged: `chips audit --verify` shows how")


def _take_over(db: sqlite3.Connection, at: str) -> None:
    """Make the history of an older release a chain, by one entry that commits to all that was there before."""
    rows = db.execute(f"SELECT {ENTRY_COLUMNS} FROM history ORDER BY sequence DESC").fetchall()  # noqa: S608
    takeover, head = take_over_unchained_history(
        read_head(db), map(entry_of_row, rows), read_documents_as_stored(db, None)
    )
    add_chain_columns(db)
    db.execute("UPDATE registry SET sequence = ?, digest = ?", (head.sequence, head.digest))
    change = Put(kind=AUDIT, name=TAKEOVER, body=msgspec.to_builtins(takeover), expected=0)
    new = _write_one(db, change, head, head.generation + 1, at, "chips", TAKEOVER_REASON)
    _move_head(db, head, new)
