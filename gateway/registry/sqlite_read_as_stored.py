"""Read the registry's SQLite tables exactly as they are stored. The audit and the hash chain need them so."""

import sqlite3
from typing import Final

import msgspec

from gateway.registry.base import Entry, Head, RegistryStoreDamaged, StoredDocument
from gateway.registry.damaged_record_placeholders import stored_document_or_placeholder
from gateway.registry.sqlite_connection import is_chained
from gateway.registry.sqlite_read import ENTRY_COLUMNS, entry_of_row

_PAGE: Final = 500  # entries read at once


def read_head(db: sqlite3.Connection) -> Head:
    """The head of the hash chain. It has no digest where the history is not chained yet. Raises RegistryStoreDamaged."""
    chained = is_chained(db)
    columns = "id, generation, sequence, digest" if chained else "id, generation"
    rows = db.execute(f"SELECT {columns} FROM registry").fetchall()  # noqa: S608
    if len(rows) != 1:
        raise RegistryStoreDamaged(
            f"the registry's table of its head holds {len(rows)} rows, not one: restore it from a backup"
        )
    values = dict(zip(("registry_id", "generation", "sequence", "digest"), rows[0], strict=False))
    try:
        return msgspec.convert(values, Head)
    except msgspec.ValidationError as error:
        raise RegistryStoreDamaged(
            f"the registry's head is damaged, restore it from a backup: {error}"
        ) from None


def require_registry_schema(db: sqlite3.Connection) -> None:
    """Raise RegistryStoreDamaged unless the tables have the columns that CHIPS makes, and each document a kind and a name.

    Else they could not hold what a registry writes, or hold rows that no query by name finds. Other damage of a single row
    passes: the audit reports it.
    """
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
            raise RegistryStoreDamaged(
                f"the table {table} of the registry is not as CHIPS makes it: it should have the columns {', '.join(columns)}"
            )
    nameless = "SELECT count(*) FROM documents WHERE typeof(kind) <> 'text' OR typeof(name) <> 'text'"
    (count,) = db.execute(nameless).fetchone()
    if count:
        raise RegistryStoreDamaged(
            f"the table documents of the registry holds {count} rows whose kind or name is no text"
        )


def read_entries_page(db: sqlite3.Connection, before_rowid: int | None) -> tuple[list[Entry], int | None]:
    """Read a page of the history's entries, and where the next page begins.

    The newest come first; the next page begins below the row that is returned. The page has entries in rows below
    `before_rowid`; None: in all. Pages are counted by SQLite's own number of the row (rowid): `sequence` is that number,
    unless somebody has made another table.
    """
    where = "" if before_rowid is None else "WHERE rowid < :before_rowid"
    columns = f"{ENTRY_COLUMNS}, previous, digest" if is_chained(db) else ENTRY_COLUMNS
    rows = db.execute(
        f"SELECT rowid, {columns} FROM history {where} ORDER BY rowid DESC LIMIT :page",  # noqa: S608
        {"before_rowid": before_rowid, "page": _PAGE},
    ).fetchall()
    return [entry_of_row(row[1:]) for row in rows], rows[-1][0] if rows else None


def read_documents_as_stored(db: sqlite3.Connection, kind: str | None) -> tuple[StoredDocument, ...]:
    """The documents of a kind, as they are stored. None: of all kinds. Tombstones are included."""
    rows = db.execute(
        "SELECT kind, name, revision, body FROM documents WHERE ?1 IS NULL OR kind = ?1", (kind,)
    )
    return tuple(stored_document_or_placeholder(*row) for row in rows)
