"""A registry in this process's memory. It is for tests, and the simplest implementation of the interface."""

import asyncio
import copy
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import SplitResult
from uuid import uuid4

import msgspec

from gateway.registry.base import (
    MIRRORED,
    Change,
    Conflict,
    Delete,
    Document,
    Entry,
    Generation,
    Head,
    MirroredListing,
    Precondition,
    Put,
    Registry,
    StoredDocument,
    decode_or_mark_damaged,
    now_rfc3339,
)
from gateway.registry.hash_chain import GENESIS, check_expected, entry_of_change, seal
from gateway.registry.open_by_url import refuse_query

_LOOK_S = 5.0


class SharedStore:
    """The content that the in-memory registries of one name share. They are the clients of one `memory://NAME`."""

    def __init__(self) -> None:
        self.head = Head(registry_id=uuid4().hex, generation=0, digest=GENESIS)
        self.documents: dict[tuple[str, str], StoredDocument] = {}  # those that were deleted included
        self.entries: list[Entry] = []
        self.ephemeral: dict[tuple[str, str], Document] = {}
        self.changed: set[asyncio.Event] = set()

    def live_documents(self) -> list[Document]:
        """The documents that there are now. They are sorted by kind and name."""
        return [
            decode_or_mark_damaged(kind, name, stored.revision, stored.body)
            for (kind, name), stored in sorted(self.documents.items())
            if stored.body is not None
        ]

    def revision_and_text(self, change: Put | Delete | Precondition) -> tuple[int, str | None]:
        """The revision and the text of the document that `change` is about. They are 0 and None where there was none."""
        was = self.documents.get((change.kind, change.name))
        return (was.revision, was.body) if was is not None else (0, None)


_named: dict[str, SharedStore] = {}


def open_url(parts: SplitResult) -> Registry:
    """Open the in-memory registry that a URL names.

    `memory://NAME` shares one store by that name in this process; `memory://` is private.
    """
    refuse_query(parts)
    if parts.path.strip("/"):
        raise ValueError("a memory registry is written memory:// or memory://NAME")
    return MemoryRegistry(_named.setdefault(parts.netloc, SharedStore()) if parts.netloc else None)


async def _is_set(event: asyncio.Event, within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            return await event.wait()
    except TimeoutError:
        return False


class MemoryRegistry:
    """A registry in this process's memory."""

    def __init__(self, store: SharedStore | None = None) -> None:
        self._store = store or SharedStore()
        self._watches: set[asyncio.Event] = set()

    async def load_mirrored(self) -> MirroredListing:
        head = self._store.head
        documents = tuple(one for one in self._store.live_documents() if one.kind in MIRRORED)
        return MirroredListing(registry_id=head.registry_id, generation=head.generation, documents=documents)

    async def watch(self, since: MirroredListing | None = None) -> AsyncIterator[MirroredListing | None]:  # noqa: ARG002  (near)
        changed = asyncio.Event()
        self._store.changed.add(changed)
        self._watches.add(changed)
        try:
            while True:
                yield await self.load_mirrored()
                while not await _is_set(changed, _LOOK_S):
                    yield None
                changed.clear()
        finally:
            self._store.changed.discard(changed)
            self._watches.discard(changed)

    async def read(self, kind: str, name: str) -> Document | None:
        stored = self._store.documents.get((kind, name))
        if stored is None or stored.body is None:
            return None
        return decode_or_mark_damaged(kind, name, stored.revision, stored.body)

    async def list(self, kind: str) -> tuple[Document, ...]:
        return tuple(one for one in self._store.live_documents() if one.kind == kind)

    async def write(
        self,
        *changes: Put | Delete,
        author: str,
        reason: str = "",
        preconditions: Sequence[Precondition] = (),
    ) -> Generation:
        if not changes:
            raise ValueError("a write changes at least one document")
        store = self._store
        for expectation in (*preconditions, *changes):
            check_expected(expectation, *store.revision_and_text(expectation))
        # Through JSON, as every other registry does it: what is not JSON must fail here too, before anything is written.
        texts = [
            msgspec.json.encode(change.body).decode() if isinstance(change, Put) else None
            for change in changes
        ]
        generation, at = store.head.generation + 1, now_rfc3339()
        for change, after in zip(changes, texts, strict=True):
            entry = entry_of_change(
                change,
                *store.revision_and_text(change),
                after,
                generation=generation,
                at=at,
                author=author,
                reason=reason,
            )
            store.documents[entry.kind, entry.name] = StoredDocument(
                kind=entry.kind, name=entry.name, revision=entry.revision, body=after
            )
            entry, store.head = seal(entry, store.head)
            store.entries.append(entry)
        store.head = msgspec.structs.replace(store.head, generation=generation)
        for changed in store.changed:
            changed.set()
        return generation

    async def history(
        self, *, kind: str | None = None, name: str | None = None, limit: int = 100
    ) -> tuple[Change, ...]:
        wanted = [
            entry.change()
            for entry in reversed(self._store.entries)
            if (kind is None or entry.kind == kind) and (name is None or entry.name == name)
        ]
        return tuple(wanted[:limit])

    async def head(self) -> Head:
        return self._store.head

    async def history_entries_newest_first(self) -> AsyncIterator[Entry]:
        for entry in reversed(tuple(self._store.entries)):
            yield entry

    async def raw_documents_with_deleted(self, kind: str) -> tuple[StoredDocument, ...]:
        return tuple(one for (k, _), one in self._store.documents.items() if k == kind)

    async def list_ephemeral(self, kind: str) -> tuple[Document, ...]:
        found = sorted(self._store.ephemeral.items())
        return tuple(copy.deepcopy(document) for (k, _), document in found if k == kind)

    async def write_ephemeral(self, kind: str, name: str, body: dict[str, Any], *, expected: int) -> int:
        known = self._store.ephemeral.get((kind, name))
        actual = known.revision if known is not None else 0
        if actual != expected:
            raise Conflict(kind, name, expected=expected, actual=actual)
        kept = msgspec.json.decode(msgspec.json.encode(body))
        self._store.ephemeral[kind, name] = Document(kind=kind, name=name, revision=expected + 1, body=kept)
        return expected + 1

    async def delete_ephemeral(self, kind: str, name: str) -> None:
        self._store.ephemeral.pop((kind, name), None)

    async def close(self) -> None:
        self._store.changed -= self._watches
