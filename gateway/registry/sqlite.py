"""The registry in one SQLite file.

Any number of processes on one machine may share it. All of it runs in one thread of its own, so no statement ever blocks the
event loop.
"""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import SplitResult, unquote

from gateway.registry import sqlite_ephemeral_documents
from gateway.registry.base import (
    Change,
    Delete,
    Document,
    Entry,
    Generation,
    Head,
    MirroredListing,
    Precondition,
    Put,
    Registry,
    RegistryError,
    RegistryStoreDamaged,
    StoredDocument,
)
from gateway.registry.open_by_url import refuse_query
from gateway.registry.sqlite_connection import connect, explain_sqlite_error, file_gone_error, transaction
from gateway.registry.sqlite_read import (
    WatchState,
    load_mirrored,
    read_documents,
    read_history,
    read_state,
)
from gateway.registry.sqlite_read_as_stored import (
    read_documents_as_stored,
    read_entries_page,
    read_head,
    require_registry_schema,
)
from gateway.registry.sqlite_write import write

_log = logging.getLogger(__name__)

_POLL_S: Final = 0.1  # `PRAGMA data_version` costs some ten microseconds


Result = TypeVar("Result")


def open_url(parts: SplitResult) -> Registry:
    """Open the SQLite registry that a URL names.

    The URL is `sqlite:///absolute/path.db`, or `sqlite:relative/path.db` as seen from the working directory.
    """
    refuse_query(parts)
    path = unquote(parts.path)
    if parts.netloc or not path or path.endswith("/"):
        raise ValueError("a SQLite registry is written sqlite:///absolute/path.db or sqlite:relative/path.db")
    return SqliteRegistry(Path(path))


def _read_whole_head(db: sqlite3.Connection) -> Head:
    require_registry_schema(db)
    return read_head(db)


class SqliteRegistry:
    """The registry in the SQLite file at `path`.

    The file and its folder are created on first use, and never a second time. If a file that this process has used is gone,
    it was deleted, or its disk is not mounted: an empty registry in its place would look like one that lists nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite")
        self._connection: sqlite3.Connection | None = None
        self._existed = False  # when this process last looked
        self._inode = 0
        self._connections = 0
        self._closed = False

    # -- the contract

    async def load_mirrored(self) -> MirroredListing:
        return await self._run(load_mirrored)

    async def watch(self, since: MirroredListing | None = None) -> AsyncIterator[MirroredListing | None]:  # noqa: ARG002  (near)
        held: WatchState | None = None
        while True:
            found = await self._run(partial(self._read_on, held=held))
            yield found.listing() if found is not None else None
            held = found or held
            await asyncio.sleep(_POLL_S)

    async def read(self, kind: str, name: str) -> Document | None:
        found = await self._run(lambda db: read_documents(db, "WHERE kind = ? AND name = ?", (kind, name)))
        return found[0] if found else None

    async def list(self, kind: str) -> tuple[Document, ...]:
        return await self._run(lambda db: read_documents(db, "WHERE kind = ?", (kind,)))

    async def write(
        self,
        *changes: Put | Delete,
        author: str,
        reason: str = "",
        preconditions: Sequence[Precondition] = (),
    ) -> Generation:
        return await self._run(lambda db: write(db, changes, author, reason, preconditions))

    async def history(
        self, *, kind: str | None = None, name: str | None = None, limit: int = 100
    ) -> tuple[Change, ...]:
        return await self._run(lambda db: read_history(db, kind, name, limit))

    async def list_ephemeral(self, kind: str) -> tuple[Document, ...]:
        return await self._run(lambda db: sqlite_ephemeral_documents.read(db, kind))

    async def write_ephemeral(self, kind: str, name: str, body: dict[str, Any], *, expected: int) -> int:
        return await self._run(lambda db: sqlite_ephemeral_documents.write(db, kind, name, body, expected))

    async def delete_ephemeral(self, kind: str, name: str) -> None:
        await self._run(lambda db: sqlite_ephemeral_documents.delete(db, kind, name))

    async def head(self) -> Head:
        return await self._run(_read_whole_head)

    async def history_entries_newest_first(self) -> AsyncIterator[Entry]:
        page, before_rowid = await self._run(partial(read_entries_page, before_rowid=None))
        while page:
            for entry in page:
                yield entry
            page, before_rowid = await self._run(partial(read_entries_page, before_rowid=before_rowid))

    async def raw_documents_with_deleted(self, kind: str) -> tuple[StoredDocument, ...]:
        return await self._run(lambda db: read_documents_as_stored(db, kind))

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown()

    # -- the thread

    async def _run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        if self._closed:
            raise RegistryError("the registry is closed")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._perform, work)

    def _perform(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        try:
            if self._connection is not None and self.path.stat().st_ino != self._inode:
                self._disconnect()  # the file was replaced, by a restored backup for example
            if self._connection is None:
                self._inode = self._file()  # before it is opened: what replaces it meanwhile is noticed
                self._connection = connect(self.path, may_make=not self._existed)
                self._existed = True
                self._connections += 1  # each counts changes from a beginning of its own
                self._inode = self._inode or self._file()
            return work(self._connection)
        except OverflowError as error:  # somebody has set a number that has no successor
            raise RegistryStoreDamaged(
                f"a number in the registry {self.path} is too large: `chips audit --verify` shows what was edited"
            ) from error
        except (sqlite3.Error, OSError) as error:
            # A connection that failed is not trusted again: the file may have been replaced under it.
            self._disconnect()
            if self._existed and isinstance(error, FileNotFoundError):
                raise file_gone_error(self.path) from error
            raise explain_sqlite_error(error, self.path) from error

    def _file(self) -> int:
        try:
            return self.path.stat().st_ino
        except FileNotFoundError:
            return 0

    def _read_on(self, db: sqlite3.Connection, *, held: "WatchState | None") -> "WatchState | None":
        """What the registry holds now; None where nothing was committed since `held`."""
        if held is not None and held.seen == self._seen(db):
            return None
        with transaction(db, "DEFERRED"):
            seen = self._seen(db)  # as of the transaction's own moment
            if held is not None and held.seen[:2] != seen[:2]:
                held = None  # another connection, and perhaps another file
            return read_state(db, held)._replace(seen=seen)

    def _seen(self, db: sqlite3.Connection) -> tuple[int, ...]:
        """Changes when anybody commits: SQLite's own number counts other connections only, the last one ours."""
        version = int(db.execute("PRAGMA data_version").fetchone()[0])
        return self._inode, self._connections, version, db.total_changes

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
