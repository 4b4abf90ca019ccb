"""Any value of any type, anywhere in a registry's file: the audit has a finding, and no command ends with a traceback."""

import asyncio
import contextlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.audit.verify_history import Finding, verify_history
from gateway.registry.base import KEYS, MODELS, Delete, Put, RegistryError
from gateway.registry.sqlite import SqliteRegistry
from tests.unit.cli.shell import Shell

COLUMNS = {
    "registry": ("id", "generation", "sequence", "digest"),
    "documents": ("kind", "name", "revision", "body"),
    "history": (
        *("sequence", "generation", "at", "author", "reason", "action", "kind", "name", "revision"),
        *("before", "after", "previous", "digest"),
    ),
}
# As SQL: what no registry writes there, and what only looks like it.
VALUES = {
    "null": "NULL",
    "blob": "x'00ff'",
    "blob of text": "CAST('models' AS BLOB)",
    "real": "1.5",
    "infinity": "9e999",
    "huge": "9223372036854775807",
    "negative": "-9223372036854775808",
    "invalid utf-8": "CAST(x'66c328' AS TEXT)",
    "surrogate": "CAST(x'eda080' AS TEXT)",
    "empty": "''",
    "nul": "char(0)",
    "number as text": "'007'",
    "no json": "'{'",
    "json list": "'[1]'",
    "json number": "'1e999'",
    "json with a surrogate": '\'{"a":"\\ud800"}\'',
    "deep json": "'" + "[" * 50_000 + "'",
    "long": "hex(zeroblob(100000))",
    "model of the wrong types": """'{"name":"wine","backends":{"a":1},"traffic":[1]}'""",
    "model with odd shares": """'{"name":7,"backends":[3,{"version":[]}],"traffic":{"1":"x","2":{}}}'""",
}
COMMANDS_TRIED = {"null", "blob", "invalid utf-8", "model of the wrong types"}
CASES = [(table, column) for table, columns in COLUMNS.items() for column in columns]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry whose tables take any value: somebody has made them again without their types and triggers."""
    path = tmp_path_factory.mktemp("damaged") / "registry.db"
    asyncio.run(write_some(path))
    with closing(sqlite3.connect(path)) as db, db:
        for (trigger,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {trigger}")
        for table, columns in COLUMNS.items():
            db.execute(f"ALTER TABLE {table} RENAME TO old")
            db.execute(f"CREATE TABLE {table} ({', '.join(columns)})")
            db.execute(f"INSERT INTO {table} SELECT {', '.join(columns)} FROM old")  # noqa: S608
            db.execute("DROP TABLE old")
    assert asyncio.run(findings(path)) == ()
    return path


async def write_some(path: Path) -> None:
    registry = SqliteRegistry(path)
    backend = {"version": "1", "url": "http://127.0.0.1:9"}
    for revision in range(3):
        body = {"name": "wine", "backends": [backend], "traffic": {"1": 100}, "description": str(revision)}
        await registry.write(Put(kind=MODELS, name="wine", body=body, expected=revision), author="ana")
    await registry.write(Put(kind=KEYS, name="k", body={}, expected=0), author="ana")
    await registry.write(Delete(kind=KEYS, name="k", expected=1), author="ana")
    await registry.close()


async def findings(path: Path) -> tuple[Finding, ...]:
    registry = SqliteRegistry(path)
    try:
        return (await verify_history(registry)).findings
    finally:
        await registry.close()


def damaged(good: Path, tmp_path: Path, table: str, column: str) -> Iterator[tuple[str, Path]]:
    """A copy of `good` for each value, which stands in the middle of the table instead of what was there."""
    for name, value in VALUES.items():
        path = tmp_path / "registry.db"
        shutil.copy(good, path)
        with closing(sqlite3.connect(path)) as db, db:
            (row,) = db.execute(f"SELECT max(rowid) / 2 + 1 FROM {table}").fetchone()  # noqa: S608
            where = f"FROM {table} WHERE rowid = {row}"
            (before,) = db.execute(f"SELECT CAST(quote({column}) AS BLOB) {where}").fetchone()
            db.execute(f"UPDATE {table} SET {column} = {value} WHERE rowid = {row}")  # noqa: S608
            (after,) = db.execute(f"SELECT CAST(quote({column}) AS BLOB) {where}").fetchone()
        if before != after:
            yield name, path


@pytest.mark.parametrize(("table", "column"), CASES)
async def test_the_audit_finds_any_value(good: Path, tmp_path: Path, table: str, column: str):
    for name, path in damaged(good, tmp_path, table, column):
        assert await findings(path), (table, column, name)


@pytest.mark.parametrize(("table", "column"), CASES)
async def test_readers_and_writers_get_an_answer_or_a_registrys_error(
    good: Path, tmp_path: Path, table: str, column: str
):
    for _, path in damaged(good, tmp_path, table, column):
        registry = SqliteRegistry(path)
        wine = Put(kind=MODELS, name="wine", body={}, expected=3)
        tea = Put(kind=MODELS, name="tea", body={}, expected=0)
        for answer in (
            registry.load_mirrored(),
            registry.list(MODELS),
            registry.history(),
            registry.read(MODELS, "wine"),
            registry.write(wine, author="x"),
            registry.write(tea, author="x"),
        ):
            with contextlib.suppress(RegistryError):
                await answer
        await registry.close()


@pytest.mark.parametrize("table", COLUMNS)
def test_commands_end_without_a_traceback(
    good: Path, tmp_path: Path, table: str, shell: Shell, monkeypatch: pytest.MonkeyPatch
):
    for column in COLUMNS[table]:
        for name, path in damaged(good, tmp_path, table, column):
            if name not in COMMANDS_TRIED:
                continue
            monkeypatch.setenv("CHIPS_REGISTRY", f"sqlite://{path}")
            ended = shell("audit", "--verify", "--json")
            assert ended.code == 1, (column, name, ended)
            assert json.loads(ended.out)["findings"], (column, name)
            for words in (
                ("audit", "wine", "--at", "2999-01-01T00:00Z"),
                ("audit", "--export", str(tmp_path / "history.html")),
                ("history",),
                ("models",),
            ):
                shell(*words)  # raises what is no failure of a command


DAMAGE: dict[str, list[str]] = {
    "no history": ["DROP TABLE history"],
    "no documents": ["DROP TABLE documents"],
    "no head": ["DROP TABLE registry"],
    "an empty head": ["DELETE FROM registry"],
    "two heads": ["INSERT INTO registry SELECT * FROM registry"],
    "a missing column": ["ALTER TABLE history DROP COLUMN reason"],
    "a column too many": ["ALTER TABLE history ADD COLUMN more"],
    "a column that hides the rows": ["ALTER TABLE documents RENAME COLUMN body TO content"],
    "a view": ["ALTER TABLE history RENAME TO h", "CREATE VIEW history AS SELECT * FROM h"],
    "a nameless document": ["INSERT INTO documents VALUES (x'00', NULL, 1, '{}')"],
}


@pytest.mark.parametrize("statements", DAMAGE.values(), ids=DAMAGE)
def test_other_tables_are_a_finding(
    good: Path, tmp_path: Path, statements: list[str], shell: Shell, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "registry.db"
    shutil.copy(good, path)
    with closing(sqlite3.connect(path)) as db, db:
        for statement in statements:
            db.execute(statement)
    monkeypatch.setenv("CHIPS_REGISTRY", f"sqlite://{path}")
    ended: Any = shell("audit", "--verify", "--json")
    assert (ended.code, ended.json()["findings"][0]["what"]) == (1, "damaged")
