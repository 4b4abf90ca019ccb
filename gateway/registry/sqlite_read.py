"""The registry's reads as SQL statements, each on an open connection; its writes: `sqlite_write`."""

import sqlite3
from typing import Any, Final, NamedTuple

from gateway.registry.base import (
    MIRRORED,
    Change,
    Document,
    Listing,
    decode_document,
    decode_history_body,
)
from gateway.registry.sqlite_connection import transaction

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


class WatchState(NamedTuple):
    """The mirrored documents that a watch has read, as of a generation, and the history's last entry at that time."""

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


def load(db: sqlite3.Connection) -> Listing:
    """Every document of the mirrored kinds, at the present generation."""
    with transaction(db, "DEFERRED"):
        return read_state(db, None).listing()


def read_state(db: sqlite3.Connection, held: WatchState | None) -> WatchState:
    """The registry's present state; only what has changed since `held` is read.

    It uses few statements, because each releases the interpreter's lock and may wait long for it.
    """
    since = _NEVER if held is None else held.last[0]
    registry_id, generation, told, *entries = db.execute(_WHERE_WE_ARE, (since,)).fetchall()[0]
    last, known = tuple(entries[:3]), tuple(entries[3:])
    # The history must account for every generation since: all writes of any release are in it. It does not where a
    # backup was restored, or somebody has edited the file by hand: then all is read again.
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
    return WatchState(registry_id, generation, last, documents)


def read_documents(db: sqlite3.Connection, where: str, values: tuple[str, ...]) -> tuple[Document, ...]:
    """The documents that the SQL condition `where` selects, without tombstones."""
    rows = db.execute(f"{_DOCUMENT} {where} AND body IS NOT NULL ORDER BY kind, name", values)
    return tuple(decode_document(kind, name, revision, body) for kind, name, revision, body in rows)


def read_history(
    db: sqlite3.Connection, kind: str | None, name: str | None, limit: int
) -> tuple[Change, ...]:
    """The newest `limit` entries of the history, of one kind and name where given."""
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
