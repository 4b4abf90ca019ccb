"""A watch on SQLite reads what has changed, and shows the same as if it had read everything."""

import operator
import random
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.registry import sqlite_read
from gateway.registry.base import (
    KEYS,
    MODELS,
    NETWORKS,
    REVOCATIONS,
    Delete,
    Document,
    MirroredListing,
    Put,
)
from gateway.registry.damaged_record_placeholders import document_or_mark_damaged
from gateway.registry.sqlite import SqliteRegistry

Opener = Callable[[], SqliteRegistry]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opener]:
    clients = []

    def opening() -> SqliteRegistry:
        clients.append(SqliteRegistry(tmp_path / "registry.db"))
        return clients[-1]

    yield opening
    for client in clients:
        await client.close()


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the documents that were read, in their order."""
    names: list[str] = []
    decode = document_or_mark_damaged

    def noted(kind: str, name: str, revision: int, body: str | None) -> Document | None:
        found = decode(kind, name, revision, body)
        if found is not None:
            names.append(name)
        return found

    monkeypatch.setattr(sqlite_read, "document_or_mark_damaged", noted)
    return names


def put(name: str, expected: int = 0, kind: str = MODELS, **body: object) -> Put:
    return Put(kind=kind, name=name, body=body, expected=expected)


async def told(watch: AsyncIterator[MirroredListing | None]) -> MirroredListing:
    async for listing in watch:
        if listing is not None:
            return listing
    raise AssertionError("the watch ended")


def contents(listing: MirroredListing) -> tuple[int, list[Document]]:
    return listing.generation, sorted(listing.documents, key=lambda document: (document.kind, document.name))


async def test_only_what_has_changed_is_read(opened: Opener, decoded: list[str]):
    registry, other = opened(), opened()
    await other.write(*(put(f"m{n}") for n in range(50)), author="ana")
    watch = registry.watch()
    assert len((await told(watch)).documents) == 50
    assert len(decoded) == 50
    decoded.clear()
    await other.write(put("m7", 1, n=2), Delete(kind=MODELS, name="m8", expected=1), author="ana")
    await other.write(put("new"), author="ana")
    await other.write(put("digest", kind=KEYS), author="ana")
    listing = await told(watch)
    assert listing.generation == 4
    assert sorted(decoded) == ["m7", "new"]
    assert contents(listing) == contents(await other.load_mirrored())


async def test_whatever_is_written_a_watch_shows_what_a_load_shows(opened: Opener):
    registry, *writers = opened(), opened(), opened()
    draw = random.Random(4)
    names = [(kind, f"n{n}") for kind in (MODELS, REVOCATIONS, NETWORKS, KEYS) for n in range(4)]
    watch = registry.watch()
    await told(watch)
    revisions: dict[tuple[str, str], int] = {}
    for _ in range(25):
        for _ in range(draw.randint(1, 4)):  # several generations between two looks
            changes: list[Put | Delete] = []
            for kind, name in draw.sample(names, draw.randint(1, 3)):
                document = await writers[0].read(kind, name)
                expected = document.revision if document is not None else 0
                if document is not None and draw.random() < 0.4:
                    changes.append(Delete(kind=kind, name=name, expected=expected))
                else:
                    changes.append(put(name, expected, kind, n=draw.random()))
            # The watching client writes too: its own commits are counted apart.
            await draw.choice([registry, *writers]).write(*changes, author="ana")
        listing = await told(watch)
        assert contents(listing) == contents(await writers[0].load_mirrored())
        for document in listing.documents:
            where = document.kind, document.name
            assert document.revision >= revisions.get(where, 0)
            revisions[where] = document.revision


async def test_a_generation_that_changed_nothing_is_told(opened: Opener):
    registry, other = opened(), opened()
    await other.write(put("wine"), author="ana")
    watch = registry.watch()
    await told(watch)
    await other._run(operator.methodcaller("execute", "UPDATE registry SET generation = generation + 1"))
    listing = await told(watch)
    assert (listing.generation, len(listing.documents)) == (2, 1)


async def test_what_somebody_has_edited_by_hand_is_read_and_told(opened: Opener, tmp_path: Path):
    registry, other = opened(), opened()
    await other.write(put("wine", n=1), put("beer", n=1), author="ana")
    watch = registry.watch()
    await told(watch)
    await other._run(operator.methodcaller("execute", "UPDATE documents SET body = '{' WHERE name = 'wine'"))
    found = {document.name: document for document in (await told(watch)).documents}
    assert "not a JSON object" in found["wine"].problem
    assert found["beer"].body == {"n": 1}
    with sqlite3.connect(tmp_path / "registry.db") as db:  # a generation of which the history says nothing
        db.execute("UPDATE documents SET body = '{\"n\": 3}', revision = 2 WHERE name = 'wine'")
        db.execute("UPDATE registry SET generation = generation + 1")
    db.close()
    found = {document.name: document for document in (await told(watch)).documents}
    assert found["wine"].body == {"n": 3}
    await other.write(put("wine", 2, n=4), author="ana")
    found = {document.name: document for document in (await told(watch)).documents}
    assert (found["wine"].body, found["wine"].revision) == ({"n": 4}, 3)


async def test_a_backup_that_is_restored_in_place(opened: Opener, tmp_path: Path):
    """The same file, the same identity, and soon a higher generation, but another history."""
    registry, other = opened(), opened()
    await other.write(put("wine"), author="ana")
    with sqlite3.connect(tmp_path / "backup.db", check_same_thread=False) as backup:
        await other._run(operator.methodcaller("backup", backup))
        await other.write(put("beer"), author="ana")
        watch = registry.watch()
        assert len((await told(watch)).documents) == 2
        await other._run(backup.backup)
    backup.close()
    for name in ("tea", "gin", "rum"):
        await other.write(put(name), author="ana")
    listing = await told(watch)
    while listing.generation < 4:
        listing = await told(watch)
    assert {document.name for document in listing.documents} == {"wine", "tea", "gin", "rum"}


async def test_a_watch_sees_what_was_written_while_its_connection_was_replaced(opened: Opener):
    """A connection that was dropped, for whatever reason, must not hide a change."""
    registry, other = opened(), opened()
    await other.load_mirrored()
    watch = registry.watch()
    await told(watch)
    await other.write(put("wine"), author="ana")
    await registry._run(lambda _: registry._disconnect())  # as after any error on it
    assert [document.name for document in (await told(watch)).documents] == ["wine"]
