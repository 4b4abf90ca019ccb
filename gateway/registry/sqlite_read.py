"""Read the registry from SQLite. Each function takes an open connection."""

import sqlite3
from typing import Any, Final, NamedTuple

import msgspec

from gateway.registry.base import (
    MIRRORED,
    Change,
    Document,
    Entry,
    MirroredListing,
    RegistryStoreDamaged,
)
from gateway.registry.damaged_record_placeholders import (
    DAMAGED_ENTRY,
    document_or_mark_damaged,
    entry_from_values,
)
from gateway.registry.sqlite_connection import transaction

_DOCUMENT: Final = "SELECT kind, name, revision, body FROM documents"


ENTRY_COLUMNS: Final = "sequence, generation, at, author, reason, action, kind, name, revision, before, after"


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
    """The state of a watch: the mirrored documents that it has read.

    They are as of a generation; `last` is the history's last entry at that time.
    """

    registry_id: str
    generation: int
    last: tuple[Any, ...]  # its sequence, generation and time
    documents: dict[tuple[str, str], Document]
    seen: tuple[int, ...] = ()  # what tells whether anybody has committed since

    def listing(self) -> MirroredListing:
        return MirroredListing(
            registry_id=self.registry_id,
            generation=self.generation,
            documents=tuple(self.documents.values()),
        )


def load_mirrored(db: sqlite3.Connection) -> MirroredListing:
    """Every document of the mirrored kinds, at the present generation."""
    with transaction(db, "DEFERRED"):
        return read_state(db, None).listing()


def read_state(db: sqlite3.Connection, held: WatchState | None) -> WatchState:
    """Read the registry's present state.

    Only what has changed since `held` is read. It uses few statements, because each releases the interpreter's lock and may
    wait long for it.
    """
    since = _NEVER if held is None else held.last[0]
    found = db.execute(_WHERE_WE_ARE, (since,)).fetchall()
    if len(found) != 1 or not (isinstance(found[0][0], str) and isinstance(found[0][1], int)):
        raise RegistryStoreDamaged(
            "the registry's head is damaged: restore it from a backup (docs/how-to/restore.md)"
        )
    registry_id, generation, told, *entries = found[0]
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
        document = document_or_mark_damaged(kind, name, revision, body)
        if document is None:
            documents.pop((kind, name), None)
        else:
            documents[kind, name] = document
    return WatchState(registry_id, generation, last, documents)


def read_documents(db: sqlite3.Connection, where: str, values: tuple[str, ...]) -> tuple[Document, ...]:
    """The documents that the SQL condition `where` selects, without tombstones."""
    rows = db.execute(f"{_DOCUMENT} {where} AND body IS NOT NULL ORDER BY kind, name", values)
    found = (document_or_mark_damaged(*row) for row in rows)
    return tuple(document for document in found if document is not None)


def read_history(
    db: sqlite3.Connection, kind: str | None, name: str | None, limit: int
) -> tuple[Change, ...]:
    """Read the newest changes of the history. There are at most `limit`, of one kind and name where given."""
    rows = db.execute(
        f"SELECT {ENTRY_COLUMNS} FROM history "  # noqa: S608
        "WHERE (?1 IS NULL OR kind = ?1) AND (?2 IS NULL OR name = ?2) ORDER BY sequence DESC LIMIT ?3",
        (kind, name, limit),
    )
    return tuple(entry_of_row(row).change() for row in rows)


def entry_of_row(row: tuple[object, ...]) -> Entry:
    """The history entry in a row of the database.

    The row has ENTRY_COLUMNS and, where the history is chained, `previous` and `digest`.
    """
    found = entry_from_values(dict(zip(Entry.__struct_fields__, row, strict=False)))
    if found is not None:
        return found
    sequence = row[0] if isinstance(row[0], int) else 0
    return msgspec.structs.replace(DAMAGED_ENTRY, sequence=sequence)
