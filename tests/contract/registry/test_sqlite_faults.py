"""SQLite where things go wrong: other processes, kill -9, locks, full and foreign files."""

import asyncio
import logging
import operator
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import pytest

from gateway.registry.base import MODELS, Conflict, Put, RegistryError, Unavailable
from gateway.registry.mirror import Mirror
from gateway.registry.sqlite import SqliteRegistry
from tests.patience import patience

KILLS = int(os.environ.get("CHIPS_TEST_KILLS", "25"))

WRITER = """
import asyncio, sys
from pathlib import Path
from gateway.registry.base import MODELS, Put
from gateway.registry.sqlite import SqliteRegistry

async def main():
    registry = SqliteRegistry(Path(sys.argv[1]))
    while True:
        a = await registry.read(MODELS, "a")
        b = await registry.read(MODELS, "b")
        n = a.body["n"] + 1 if a else 1
        await registry.write(
            Put(kind=MODELS, name="a", body={"n": n}, expected=a.revision if a else 0),
            Put(kind=MODELS, name="b", body={"n": n}, expected=b.revision if b else 0),
            author="writer",
        )
        print(n, flush=True)

asyncio.run(main())
"""


# A thousand times in all: CHIPS_TEST_KILLS=1000 python -m pytest -k kill_9; here as many as CI has time for.
@pytest.mark.timeout(60 + 3 * KILLS)
async def test_kill_9_in_mid_write_loses_and_tears_nothing(tmp_path: Path):
    path = tmp_path / "registry.db"
    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        acknowledged = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        rest = process.stdout.read().split()
        process.wait()
        process.stdout.close()
        acknowledged = int(rest[-1]) if rest else acknowledged
        registry = SqliteRegistry(path)
        a, b = await registry.list(MODELS)
        assert a.body == b.body, "a batch was torn"
        assert acknowledged <= a.body["n"] <= acknowledged + 1, "an acknowledged write was lost"
        assert (await registry.load_mirrored()).generation == a.body["n"] == a.revision
        assert len(await registry.history(limit=10**6)) == 2 * a.body["n"]
        await registry.close()


async def test_a_change_by_another_process_reaches_a_running_mirror(tmp_path: Path, record_property):
    path = tmp_path / "registry.db"
    registry = SqliteRegistry(path)
    mirror = Mirror(registry)
    await mirror.start()
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    await asyncio.to_thread(process.stdout.readline)
    written = time.monotonic()
    process.kill()
    process.communicate()
    assert await mirror.wait_for_generation(1, timeout_s=patience(5))
    record_property("seen_after_s", time.monotonic() - written)
    await mirror.stop()
    await registry.close()


async def test_a_statement_that_waits_does_not_hold_up_the_loop(tmp_path: Path):
    path = tmp_path / "registry.db"
    registry = SqliteRegistry(path)
    await registry.load_mirrored()
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    writing = asyncio.create_task(registry.write(Put(kind=MODELS, name="a", body={}, expected=0), author="x"))
    turns = 0
    while turns < 1000:
        await asyncio.sleep(0)
        turns += 1
    assert not writing.done()
    lock.execute("ROLLBACK")
    lock.close()
    assert await writing == 1
    await registry.close()


async def test_a_lock_that_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gateway.registry.sqlite_connection._BUSY_TIMEOUT_S", 0.05)
    path = tmp_path / "registry.db"
    registry = SqliteRegistry(path)
    await registry.load_mirrored()
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Unavailable, match="locked by another process"):
        await registry.write(Put(kind=MODELS, name="a", body={}, expected=0), author="x")
    lock.execute("ROLLBACK")
    lock.close()
    assert await registry.write(Put(kind=MODELS, name="a", body={}, expected=0), author="x") == 1
    await registry.close()


async def test_a_file_that_is_no_database(tmp_path: Path):
    path = tmp_path / "registry.db"
    path.write_bytes(b"this is not a database, " * 100)
    registry = SqliteRegistry(path)
    with pytest.raises(RegistryError, match="is not a CHIPS registry"):
        await registry.load_mirrored()
    assert path.read_bytes().startswith(b"this is not")
    await registry.close()


async def test_a_registry_of_a_newer_release(tmp_path: Path):
    path = tmp_path / "registry.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    registry = SqliteRegistry(path)
    with pytest.raises(RegistryError, match="another release of CHIPS"):
        await registry.load_mirrored()
    await registry.close()


async def test_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_text("")
    registry = SqliteRegistry(tmp_path / "file" / "registry.db")
    with pytest.raises(RegistryError):
        await registry.load_mirrored()
    await registry.close()


async def test_a_disk_that_is_full(tmp_path: Path):
    registry = SqliteRegistry(tmp_path / "registry.db")
    await registry.write(Put(kind=MODELS, name="a", body={"n": 1}, expected=0), author="x")
    pages = await registry._run(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
    await registry._run(lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchone())
    with pytest.raises(Unavailable, match="nothing was written"):
        await registry.write(Put(kind=MODELS, name="b", body={"n": "x" * 100_000}, expected=0), author="x")
    listing = await registry.load_mirrored()
    assert [document.name for document in listing.documents] == ["a"]
    await registry.close()


async def test_the_file_is_for_its_owner_only(tmp_path: Path):
    registry = SqliteRegistry(tmp_path / "registry.db")
    await registry.load_mirrored()
    assert (tmp_path / "registry.db").stat().st_mode & 0o077 == 0
    await registry.close()


async def test_the_history_cannot_be_rewritten(tmp_path: Path):
    registry = SqliteRegistry(tmp_path / "registry.db")
    await registry.write(Put(kind=MODELS, name="a", body={}, expected=0), author="x")
    for statement in ("DELETE FROM history", "UPDATE history SET author = 'somebody else'"):
        with pytest.raises(RegistryError, match="append-only"):
            await registry._run(operator.methodcaller("execute", statement))
    assert len(await registry.history()) == 1
    await registry.close()


async def test_a_replaced_file_is_noticed(tmp_path: Path):
    one, two = SqliteRegistry(tmp_path / "one.db"), SqliteRegistry(tmp_path / "two.db")
    await one.write(Put(kind=MODELS, name="a", body={}, expected=0), author="x")
    await two.write(Put(kind=MODELS, name="b", body={}, expected=0), author="x")
    await two._run(lambda db: db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())
    await two.close()
    for suffix in ("-wal", "-shm"):
        (tmp_path / f"one.db{suffix}").unlink(missing_ok=True)
    (tmp_path / "two.db").replace(tmp_path / "one.db")
    assert [document.name for document in (await one.load_mirrored()).documents] == ["b"]
    await one.close()


async def test_a_spoilt_document_hides_no_other(tmp_path: Path):
    registry = SqliteRegistry(tmp_path / "registry.db")
    for name in ("a", "b", "c"):
        await registry.write(Put(kind=MODELS, name=name, body={"n": 1}, expected=0), author="x")
    for name, text in (("a", "{"), ("b", "[1]")):
        await registry._run(
            operator.methodcaller("execute", "UPDATE documents SET body = ? WHERE name = ?", (text, name))
        )
    found = {document.name: document for document in (await registry.load_mirrored()).documents}
    assert found["c"].body == {"n": 1}
    assert "not a JSON object" in found["a"].problem
    assert "not a JSON object" in found["b"].problem
    for name in ("a", "b"):
        await registry.write(Put(kind=MODELS, name=name, body={"n": 2}, expected=1), author="x")
        assert (await registry.history(name=name))[0].before == {}
    assert all(document.problem == "" for document in await registry.list(MODELS))
    await registry.close()


READER = """
import asyncio, os, sys
from pathlib import Path
from gateway.registry.base import MODELS, Put, RegistryError
from gateway.registry.sqlite import SqliteRegistry

async def main():
    registry = SqliteRegistry(Path(sys.argv[1]))
    try:
        await registry.write(Put(kind=MODELS, name="b", body={}, expected=0), author="x")
    except RegistryError as error:
        print(error)
    await registry.close()

if os.geteuid() == 0:  # whom no mode keeps out
    os.setgid(65534)
    os.setuid(65534)
asyncio.run(main())
"""


async def test_a_file_that_may_only_be_read():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        registry = SqliteRegistry(folder / "registry.db")
        await registry.write(Put(kind=MODELS, name="a", body={}, expected=0), author="x")
        await registry.close()
        before = (folder / "registry.db").read_bytes()
        (folder / "registry.db").chmod(0o444)
        folder.chmod(0o555)
        command = [sys.executable, "-c", READER, str(folder / "registry.db")]
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        folder.chmod(0o755)
        assert ended.stdout.startswith(
            f"no permission to write the registry {folder}/registry.db: check its owner"
        )
        assert (folder / "registry.db").read_bytes() == before


async def test_a_document_of_one_mebibyte(tmp_path: Path):
    registry = SqliteRegistry(tmp_path / "registry.db")
    body = {"text": "x" * 2**20}
    await registry.write(Put(kind=MODELS, name="a", body=body, expected=0), author="x")
    (document,) = (await registry.load_mirrored()).documents
    assert document.body == body
    await registry.close()


async def test_two_registrars_with_the_same_model(tmp_path: Path):
    one, two = SqliteRegistry(tmp_path / "registry.db"), SqliteRegistry(tmp_path / "registry.db")
    await one.write(Put(kind=MODELS, name="a", body={"owner": "nobody"}, expected=0), author="x")
    outcomes = await asyncio.gather(
        one.write(Put(kind=MODELS, name="a", body={"owner": "ana"}, expected=1), author="ana"),
        two.write(Put(kind=MODELS, name="a", body={"owner": "bea"}, expected=1), author="bea"),
        return_exceptions=True,
    )
    (conflict,) = (outcome for outcome in outcomes if isinstance(outcome, Conflict))
    assert (conflict.expected, conflict.actual) == (1, 2)
    winner = ["ana", "bea"][[isinstance(outcome, int) for outcome in outcomes].index(True)]
    document = await two.read(MODELS, "a")
    assert document is not None
    assert document.body == {"owner": winner}
    for registry in (one, two):
        await registry.close()


async def test_a_clock_that_jumps_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The times in the history are for people; what comes first is told by numbers."""
    registry, other = SqliteRegistry(tmp_path / "registry.db"), SqliteRegistry(tmp_path / "registry.db")
    await other.write(Put(kind=MODELS, name="a", body={"n": 1}, expected=0), author="x")
    mirror = Mirror(registry)
    await mirror.start()
    monkeypatch.setattr("gateway.registry.sqlite_write.now_rfc3339", lambda: "1970-01-01T00:00:00.000Z")
    for n in (1, 2):
        await other.write(Put(kind=MODELS, name="a", body={"n": n + 1}, expected=n), author="x")
    assert await mirror.wait_for_generation(3, timeout_s=patience(30))
    assert [change.revision for change in await other.history()] == [3, 2, 1]
    await mirror.stop()
    for one in (registry, other):
        await one.close()


def put(name: str) -> Put:
    return Put(kind=MODELS, name=name, body={}, expected=0)


async def test_a_registry_that_was_deleted_is_not_made_anew(tmp_path: Path):
    path = tmp_path / "registry.db"
    registry = SqliteRegistry(path)
    await registry.write(put("wine"), author="ana")
    backup = tmp_path / "backup.db"
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    path.unlink()
    for work in (
        registry.load_mirrored,
        lambda: registry.list(MODELS),
        lambda: registry.write(put("beer"), author="ana"),
    ):
        for _ in range(2):
            with pytest.raises(Unavailable, match=r"is gone: it was deleted .*restore\.md"):
                await work()
    assert not path.exists()
    backup.rename(path)
    assert [document.name for document in await registry.list(MODELS)] == ["wine"], "it was put back"
    await registry.close()


async def test_one_that_was_emptied_is_not_made_anew_either(tmp_path: Path):
    path = tmp_path / "registry.db"
    registry = SqliteRegistry(path)
    await registry.write(put("wine"), author="ana")
    replacement = tmp_path / "new.db"
    replacement.touch()
    replacement.rename(path)
    for _ in range(2):
        with pytest.raises(Unavailable, match="deleted or emptied"):
            await registry.list(MODELS)
    assert path.read_bytes() == b""
    await registry.close()


async def test_a_running_gateway_serves_on_without_its_file(tmp_path: Path):
    path = tmp_path / "registry.db"
    registry = SqliteRegistry(path)
    body = {"name": "wine", "backends": [{"version": "1", "url": "http://backend"}], "traffic": {"1": 100}}
    await registry.write(Put(kind=MODELS, name="wine", body=body, expected=0), author="ana")
    mirror = Mirror(registry)
    await mirror.start()
    path.unlink()
    async with asyncio.timeout(patience(60)):
        while mirror.connected:
            await asyncio.sleep(0.01)
    assert "is gone" in mirror.last_error
    assert mirror.snapshot is not None
    assert list(mirror.snapshot.entries) == ["wine"]
    await mirror.stop()
    await registry.close()
    assert not path.exists()


async def test_a_command_sees_that_a_running_gateway_had_one(tmp_path: Path):
    """SQLite's own log of a file that is gone lies there as long as somebody has it open."""
    path = tmp_path / "registry.db"
    running = SqliteRegistry(path)
    await running.write(put("wine"), author="ana")
    path.unlink()
    command = SqliteRegistry(path)
    with pytest.raises(Unavailable, match=r"registry\.db-wal"):
        await command.list(MODELS)
    assert not path.exists()
    await command.close()
    await running.close()


async def test_a_new_one_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    registry = SqliteRegistry(tmp_path / "registry.db")
    with caplog.at_level(logging.WARNING):
        assert await registry.list(MODELS) == ()
    await registry.close()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"a new, empty registry was made: {tmp_path}/registry.db" in caplog.text
    assert "docs/how-to/restore.md" in caplog.text
    caplog.clear()
    again = SqliteRegistry(tmp_path / "registry.db")
    await again.load_mirrored()
    await again.close()
    assert not caplog.records


async def test_the_database_of_another_program_is_left_alone(tmp_path: Path):
    path = tmp_path / "theirs.db"
    with sqlite3.connect(path) as theirs:
        theirs.execute("CREATE TABLE theirs (id INTEGER)")
    theirs.close()
    registry = SqliteRegistry(path)
    with pytest.raises(RegistryError, match="database of another program"):
        await registry.load_mirrored()
    await registry.close()
    with sqlite3.connect(path) as theirs:
        assert theirs.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]
    theirs.close()
