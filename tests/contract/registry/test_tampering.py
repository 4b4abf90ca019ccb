"""An adversary with all rights on the database: of five hundred changes, none is unseen."""

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from google.cloud.firestore_v1.types import document, firestore, write

from gateway.audit.verify_history import AnchoredHead, verify_history
from gateway.registry.base import KINDS, MODELS, Head, Put, Registry, now_rfc3339
from gateway.registry.firestore import document_layout
from gateway.registry.firestore.registry import FirestoreRegistry
from gateway.registry.open_by_url import open_registry
from gateway.registry.sqlite import SqliteRegistry
from tests.contract.registry.adversary import CHANGES, Adversary, State, write_some
from tests.contract.registry.test_history_migration import make_unchained

TAMPERINGS = 500
SEED = 20_261_130


async def read_state(registry: Registry) -> State:
    entries = [entry async for entry in registry.history_entries_newest_first()]
    documents = {
        (one.kind, one.name): one
        for kind in sorted(KINDS)
        for one in await registry.raw_documents_with_deleted(kind)
    }
    return State(await registry.head(), entries[::-1], documents)


def anchor(head: Head) -> AnchoredHead:
    assert head.digest is not None
    return AnchoredHead(
        registry_id=head.registry_id,
        generation=head.generation,
        sequence=head.sequence,
        digest=head.digest,
        at=now_rfc3339(),
    )


async def anchored_life(registry: Registry) -> list[AnchoredHead]:
    anchors = []
    for part in range(3):
        await write_some_more(registry, part)
        anchors.append(anchor(await registry.head()))
    return anchors


async def write_some_more(registry: Registry, part: int) -> None:
    rng = random.Random(SEED + part)
    if part < 2:
        for number in range(4):
            name = f"part-{part}-{number}"
            await registry.write(put(name, {"n": rng.random()}), author="ana")
    else:
        await write_some(registry, rng, 12)


def put(name: str, body: dict[str, object]) -> Put:
    return Put(kind=MODELS, name=name, body=body, expected=0)


# -- SQLite


def write_sqlite(path: Path, state: State) -> None:
    """All of `state`, by somebody who owns the file: triggers stop nobody who may drop them."""
    with closing(sqlite3.connect(path)) as db, db:
        for (trigger,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {trigger}")
        for table in ("history", "documents", "registry"):
            db.execute(f"DELETE FROM {table}")  # noqa: S608
        head = state.head
        db.execute(
            "INSERT INTO registry VALUES (?, ?, ?, ?)",
            (head.registry_id, head.generation, head.sequence, head.digest),
        )
        db.executemany(
            "INSERT INTO documents VALUES (?, ?, ?, ?)",
            [(one.kind, one.name, one.revision, one.body) for one in state.documents.values()],
        )
        db.executemany(
            f"INSERT INTO history VALUES ({', '.join('?' * 13)})",  # noqa: S608
            [msgspec.structs.astuple(entry)[:13] for entry in state.entries],
        )


@pytest.fixture(params=["a registry of this release", "one that was taken over"])
async def sqlite_base(
    request: pytest.FixtureRequest, tmp_path: Path
) -> tuple[Path, State, list[AnchoredHead]]:
    path = tmp_path / "registry.db"
    registry = SqliteRegistry(path)
    if request.param == "one that was taken over":
        make_unchained(path)
    anchors = await anchored_life(registry)
    state = await read_state(registry)
    assert (await verify_history(registry, anchors)).findings == ()
    await registry.close()
    return path, state, anchors


@pytest.mark.timeout(300)
async def test_no_change_of_a_sqlite_file_is_unseen(sqlite_base):
    path, base, anchors = sqlite_base
    adversary = Adversary(random.Random(SEED))
    for number in range(TAMPERINGS // 2):
        what, state = adversary.tamper(base)
        copy = path.with_name(f"copy-{number}.db")
        shutil.copy(path, copy)
        write_sqlite(copy, state)
        registry = SqliteRegistry(copy)
        report = await verify_history(registry, anchors)
        await registry.close()
        assert report.findings, f"seed {SEED}, number {number}, {what}: nothing was seen"
        copy.unlink()
    assert adversary.tried.keys() == CHANGES


async def test_what_is_written_back_as_it_was_is_no_change(sqlite_base):
    """So that what the test above sees is the tampering, not the writing."""
    path, base, anchors = sqlite_base
    write_sqlite(path, base)
    registry = SqliteRegistry(path)
    assert (await verify_history(registry, anchors)).findings == ()
    await registry.close()


@pytest.mark.parametrize("sequence", [2**62, 2**63 - 1, 0, -1, -(2**63)])
async def test_an_entry_far_from_the_others_is_seen(sqlite_base, sequence: int):
    """`chips history` shows the one with the largest number first."""
    path, base, anchors = sqlite_base
    forged = msgspec.structs.replace(base.entries[-1], sequence=sequence, author="mallory")
    write_sqlite(path, State(base.head, [*base.entries, forged], base.documents))
    registry = SqliteRegistry(path)
    report = await verify_history(registry, anchors)
    await registry.close()
    assert any(finding.sequence == sequence for finding in report.findings)


# -- Firestore


_Documents = dict[tuple[str, str], document_layout.Fields]


class RawFirestore:
    """Writes what it likes, as anybody can who has the rights: no preconditions, no rules."""

    def __init__(self, registry: FirestoreRegistry, base: State) -> None:
        self._registry = registry
        self._base = self._documents(base)

    def _documents(self, state: State) -> _Documents:
        names = self._registry._names
        found = {(names.mirror, document_layout.HEAD): document_layout.encode_head(state.head, "w", "")}
        index = 0
        for number, entry in enumerate(state.entries):
            same = number and state.entries[number - 1].generation == entry.generation
            index = index + 1 if same else 0
            found[names.history, document_layout.newest_first_entry_id(entry.generation, index)] = (
                document_layout.encode_entry(entry)
            )
        for one in state.documents.values():
            identity = document_layout.document_id(one.kind, one.name)
            found[names.for_kind(one.kind), identity] = document_layout.encode_stored(
                one.kind, one.name, one.revision, one.generation or 1, one.body
            )
        return found

    async def put(self, state: State) -> None:
        self._wanted = self._documents(state)
        await self._write(self._base, self._wanted)

    async def undo(self) -> None:
        await self._write(self._wanted, self._base)

    async def _write(self, now: _Documents, wanted: _Documents) -> None:
        rpc = await self._registry._rpc()
        writes = []
        for (collection, identity), fields in wanted.items():
            if now.get((collection, identity)) != fields:
                writes.append(write.Write(update=self._document(rpc, collection, identity, fields)))
        for collection, identity in now.keys() - wanted.keys():
            writes.append(write.Write(delete=f"{rpc._documents}/{collection}/{identity}"))
        request = firestore.CommitRequest(database=rpc._database, writes=writes)
        await rpc._client.commit(request=request, metadata=rpc._metadata, timeout=50)

    @staticmethod
    def _document(rpc, collection: str, identity: str, fields: document_layout.Fields) -> document.Document:
        from gateway.registry.firestore.rpc import _value

        values = {name: _value(value) for name, value in fields.items()}
        return document.Document(name=f"{rpc._documents}/{collection}/{identity}", fields=values)


@pytest.mark.timeout(300)
@pytest.mark.slow
async def test_no_change_in_firestore_is_unseen(firestore: str):
    registry = open_registry(firestore)
    assert isinstance(registry, FirestoreRegistry)
    anchors = await anchored_life(registry)
    base = await read_state(registry)
    raw = RawFirestore(registry, base)
    await raw.put(base)
    assert (await verify_history(registry, anchors)).findings == ()
    adversary = Adversary(random.Random(SEED))
    for number in range(TAMPERINGS):
        what, state = adversary.tamper(base)
        await raw.put(state)
        report = await verify_history(registry, anchors)
        assert report.findings, f"seed {SEED}, number {number}, {what}: nothing was seen"
        await raw.undo()
    assert (await verify_history(registry, anchors)).findings == ()
    assert adversary.tried.keys() == CHANGES
    await registry.close()
