"""Registries that an older release has written: read as they are, and made part of the chain by the first write."""

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from gateway.audit.verify_history import verify_history
from gateway.registry.base import AUDIT, MODELS, Head, Put, now_rfc3339
from gateway.registry.firestore import document_layout
from gateway.registry.firestore.registry import FirestoreRegistry
from gateway.registry.hash_chain import TAKEOVER, Takeover
from gateway.registry.open_by_url import open_registry
from gateway.registry.sqlite import SqliteRegistry

# As release 0.1 made it.
SCHEMA = """
CREATE TABLE registry (id TEXT NOT NULL, generation INTEGER NOT NULL) STRICT;
CREATE TABLE documents (
  kind TEXT NOT NULL, name TEXT NOT NULL, revision INTEGER NOT NULL,
  body TEXT,
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
OLD_INSERT = (
    "INSERT INTO history (generation, at, author, reason, action, kind, name, revision, before, after) "
    "VALUES (?, ?, 'ana', '', ?, 'models', ?, ?, ?, ?)"
)


def make_unchained(path: Path) -> None:
    """A registry as release 0.1 wrote it: wine twice, beer once; and tea, which somebody has put there by hand."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript(SCHEMA)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("INSERT INTO registry VALUES ('0123', 3)")
        for row in (
            (1, now_rfc3339(), "create", "wine", 1, None, '{"n":1}'),
            (2, now_rfc3339(), "update", "wine", 2, '{"n":1}', '{"n":2}'),
            (3, now_rfc3339(), "create", "beer", 1, None, "{}"),
        ):
            db.execute(OLD_INSERT, row)
        for name, revision, body in (("wine", 2, '{"n":2}'), ("beer", 1, "{}"), ("tea", 1, '{"by":"hand"}')):
            db.execute("INSERT INTO documents VALUES ('models', ?, ?, ?)", (name, revision, body))
        db.execute("PRAGMA user_version = 1")


def put(name: str, expected: int = 0, **body: object) -> Put:
    return Put(kind=MODELS, name=name, body=body, expected=expected)


async def test_a_sqlite_registry_is_read_as_it_is_and_taken_over_by_the_first_write(tmp_path: Path):
    path = tmp_path / "registry.db"
    make_unchained(path)
    registry = SqliteRegistry(path)
    assert (await registry.load_mirrored()).generation == 3
    assert await registry.head() == Head(registry_id="0123", generation=3)
    (finding,) = (await verify_history(registry)).findings
    assert finding.what == "unchained"
    assert "the next write makes it one" in finding.text
    assert await registry.write(put("wine", 2, n=3), author="bea") == 5
    report = await verify_history(registry)
    assert (report.findings, report.entries, report.chained) == ((), 5, 2)
    (change,) = await registry.history(kind=AUDIT)
    assert change.after is not None
    takeover = msgspec.convert(change.after, Takeover)
    assert (takeover.entries, [name for _, name, *_ in takeover.documents]) == (3, ["tea"])
    assert [c.revision for c in await registry.history(name="wine")] == [3, 2, 1]
    await registry.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE history SET author = 'mallory' WHERE sequence = 1",
        "DELETE FROM history WHERE sequence = 1",
        "UPDATE history SET after = '{\"n\":7}' WHERE sequence = 2",
        "UPDATE documents SET body = '{}' WHERE name = 'tea'",
        "UPDATE documents SET body = '{\"a\":1}' WHERE name = 'beer'",
        "DELETE FROM documents WHERE name = 'tea'",
    ],
)
async def test_what_was_taken_over_cannot_be_changed_unseen(tmp_path: Path, statement: str):
    path = tmp_path / "registry.db"
    make_unchained(path)
    registry = SqliteRegistry(path)
    await registry.write(put("mate"), author="bea")
    assert (await verify_history(registry)).findings == ()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DROP TRIGGER history_is_not_rewritten")
        db.execute("DROP TRIGGER history_is_not_erased")
        db.execute(statement)
    assert (await verify_history(registry)).findings
    await registry.close()


async def test_a_process_of_the_older_release_cannot_write_past_the_chain(tmp_path: Path):
    path = tmp_path / "registry.db"
    make_unchained(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        assert old.execute("SELECT count(*) FROM documents").fetchone() == (3,)
        registry = SqliteRegistry(path)
        await registry.write(put("mate"), author="bea")
        with pytest.raises(sqlite3.IntegrityError, match="upgrade the release of CHIPS that writes here"):
            old.execute(OLD_INSERT, (6, now_rfc3339(), "create", "x", 1, None, "{}"))
        assert old.execute("SELECT generation FROM registry").fetchone() == (5,)
    assert (await verify_history(registry)).findings == ()
    await registry.close()


# -- Firestore


async def write_as_before(registry: FirestoreRegistry, name: str, revision: int) -> None:
    """One write as release 0.1 made it: its head and its entries know of no chain."""
    from gateway.registry.firestore.rpc import DocumentWrite

    rpc = await registry._rpc()
    names = registry._names
    places = [(names.mirror, document_layout.HEAD), (names.mirror, document_layout.document_id(MODELS, name))]
    found = await rpc.get(*places)
    head, old = (found.get(place) for place in places)
    known = document_layout.decode_head(head.fields) if head is not None else None
    registry_id = known.registry_id if known is not None else "0123"
    generation = known.generation + 1 if known is not None else 1
    body = '{"by":"an older release"}'
    entry = {
        "generation": generation,
        "at": now_rfc3339(),
        "author": "ana",
        "reason": "",
        "action": "create" if old is None else "update",
        "kind": MODELS,
        "name": name,
        "revision": revision,
        "before": old.fields["body"] if old is not None else None,
        "after": body,
        "write_id": "w",
    }
    fields = document_layout.encode_head(
        Head(registry_id=registry_id, generation=generation), "w", now_rfc3339()
    )
    stored = document_layout.encode_stored(MODELS, name, revision, generation, body)
    await rpc.commit(
        [
            DocumentWrite(*places[0], fields, head.updated if head is not None else None),
            DocumentWrite(*places[1], stored, old.updated if old is not None else None),
            DocumentWrite(names.history, document_layout.newest_first_entry_id(generation, 0), entry, None),
        ]
    )


async def test_a_firestore_registry_is_taken_over(firestore: str):
    registry = open_registry(firestore)
    assert isinstance(registry, FirestoreRegistry)
    await write_as_before(registry, "wine", 1)
    await write_as_before(registry, "wine", 2)
    assert (await registry.head()).digest is None
    assert len(await registry.history()) == 2
    assert await registry.write(put("beer"), put("tea"), author="bea") == 4
    report = await verify_history(registry)
    assert (report.findings, report.entries, report.chained) == ((), 5, 3)
    assert report.head.sequence == 5
    # One that was not upgraded goes on writing: nothing is lost, and it is told.
    await write_as_before(registry, "wine", 3)
    assert await registry.write(put("mate"), author="bea") == 7
    report = await verify_history(registry)
    assert [finding.what for finding in report.findings] == ["unchained"]
    assert "an older release of CHIPS wrote 1 entries past the chain" in report.findings[0].text
    assert (await registry.head()).sequence == 8
    (change, _) = await registry.history(kind=AUDIT, name=TAKEOVER)
    assert change.revision == 2
    await registry.close()
