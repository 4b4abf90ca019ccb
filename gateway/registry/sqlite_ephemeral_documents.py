"""The ephemeral documents of a SQLite registry.

They have a table of their own, which is made when one is first written. The schema's version stays: an older release
does not know the table and does not miss it.
"""

import sqlite3
from typing import Any, Final

import msgspec

from gateway.registry.base import Conflict, Document
from gateway.registry.damaged_record_placeholders import document_or_mark_damaged
from gateway.registry.sqlite_connection import transaction

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS ephemeral (
  kind TEXT NOT NULL, name TEXT NOT NULL, revision INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID
"""


def read(db: sqlite3.Connection, kind: str) -> tuple[Document, ...]:
    """Read the ephemeral documents of a kind. They come in order of name."""
    if not _exists(db):
        return ()
    rows = db.execute("SELECT name, revision, body FROM ephemeral WHERE kind = ? ORDER BY name", (kind,))
    found = (document_or_mark_damaged(kind, name, revision, body) for name, revision, body in rows)
    return tuple(document for document in found if document is not None)


def write(db: sqlite3.Connection, kind: str, name: str, body: dict[str, Any], expected: int) -> int:
    """Write one ephemeral document. Returns its revision. Raises Conflict."""
    text = msgspec.json.encode(body).decode()
    with transaction(db):
        db.execute(_TABLE)
        row = db.execute(
            "SELECT revision FROM ephemeral WHERE kind = ? AND name = ?", (kind, name)
        ).fetchone()
        actual = row[0] if row is not None else 0
        if actual != expected:
            raise Conflict(kind, name, expected=expected, actual=actual)
        db.execute("INSERT OR REPLACE INTO ephemeral VALUES (?, ?, ?, ?)", (kind, name, expected + 1, text))
    return expected + 1


def delete(db: sqlite3.Connection, kind: str, name: str) -> None:
    """Delete one document, if it is there."""
    if _exists(db):
        db.execute("DELETE FROM ephemeral WHERE kind = ? AND name = ?", (kind, name))


def _exists(db: sqlite3.Connection) -> bool:
    return bool(db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'ephemeral'").fetchone()[0])
