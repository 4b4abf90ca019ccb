"""A registry in this process's memory: for tests, and the plainest reading of the contract."""

import asyncio
import copy
from collections.abc import AsyncIterator
from urllib.parse import SplitResult
from uuid import uuid4

import msgspec

from gateway.registry.base import (
    MIRRORED,
    Change,
    Conflict,
    Delete,
    Document,
    Listing,
    Put,
    Registry,
    now_rfc3339,
)
from gateway.registry.schemes import refuse_query

_LOOK_S = 5.0


class SharedStore:
    """What the clients of one `memory://NAME` share."""

    def __init__(self) -> None:
        self.registry_id = uuid4().hex
        self.generation = 0
        self.documents: dict[tuple[str, str], Document] = {}
        self.revisions: dict[tuple[str, str], int] = {}  # outlives deletion
        self.history: list[Change] = []
        self.changed: set[asyncio.Event] = set()


_named: dict[str, SharedStore] = {}


def open_url(parts: SplitResult) -> Registry:
    """`memory://NAME` shares one store by that name in this process; `memory://` is private."""
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

    async def load(self) -> Listing:
        store = self._store
        documents = tuple(
            copy.deepcopy(document)
            for (kind, _), document in sorted(store.documents.items())
            if kind in MIRRORED
        )
        return Listing(registry_id=store.registry_id, generation=store.generation, documents=documents)

    async def watch(self, since: Listing | None = None) -> AsyncIterator[Listing | None]:  # noqa: ARG002  (near)
        changed = asyncio.Event()
        self._store.changed.add(changed)
        self._watches.add(changed)
        try:
            while True:
                yield await self.load()
                while not await _is_set(changed, _LOOK_S):
                    yield None
                changed.clear()
        finally:
            self._store.changed.discard(changed)
            self._watches.discard(changed)

    async def read(self, kind: str, name: str) -> Document | None:
        return copy.deepcopy(self._store.documents.get((kind, name)))

    async def list(self, kind: str) -> tuple[Document, ...]:
        found = sorted(self._store.documents.items())
        return tuple(copy.deepcopy(document) for (k, _), document in found if k == kind)

    async def write(self, *changes: Put | Delete, author: str, reason: str = "") -> int:
        store = self._store
        for change in changes:
            current = store.documents.get((change.kind, change.name))
            actual = current.revision if current is not None else 0
            if actual != change.expected:
                raise Conflict(change.kind, change.name, expected=change.expected, actual=actual)
        store.generation += 1
        at = now_rfc3339()
        for change in changes:
            where = (change.kind, change.name)
            before = store.documents.pop(where, None)
            revision = store.revisions[where] = store.revisions.get(where, 0) + 1
            # Through JSON, as every other registry does it: what is not JSON must fail here too.
            after = msgspec.json.decode(msgspec.json.encode(change.body)) if isinstance(change, Put) else None
            if after is not None:
                store.documents[where] = Document(
                    kind=change.kind, name=change.name, revision=revision, body=after
                )
            store.history.append(
                Change(
                    generation=store.generation,
                    at=at,
                    author=author,
                    reason=reason,
                    action="delete" if after is None else "create" if before is None else "update",
                    kind=change.kind,
                    name=change.name,
                    revision=revision,
                    before=before.body if before is not None else None,
                    after=after,
                )
            )
        for changed in store.changed:
            changed.set()
        return store.generation

    async def history(
        self, *, kind: str | None = None, name: str | None = None, limit: int = 100
    ) -> tuple[Change, ...]:
        wanted = [
            change
            for change in reversed(self._store.history)
            if (kind is None or change.kind == kind) and (name is None or change.name == name)
        ]
        return tuple(copy.deepcopy(wanted[:limit]))

    async def close(self) -> None:
        self._store.changed -= self._watches
