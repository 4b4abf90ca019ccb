"""The registry for a fleet: documents in Google's Firestore, watched over one stream for each gateway.

Writes use preconditions, not transactions, whose locks collapse under contention; see docs/adr. Google's packages are
imported late and in a thread, for importing them takes longer than a caller should wait.
"""

import asyncio
import importlib
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult
from uuid import uuid4

import msgspec

from gateway.core.randomness import random_between
from gateway.registry.base import (
    MIRRORED,
    Change,
    Conflict,
    Delete,
    Document,
    Listing,
    Put,
    Registry,
    RegistryError,
    Unavailable,
    now_text,
)
from gateway.registry.firestore import layout
from gateway.registry.firestore.layout import HEAD, Collections, FirestoreDocument, RegistryHead
from gateway.registry.firestore.location import FirestoreLocation, parse_location
from gateway.registry.firestore.watch_aggregator import DocumentGone, ListenTarget

if TYPE_CHECKING:
    from gateway.registry.firestore.rpc import FirestoreRpc, Write

_log = logging.getLogger(__name__)

_KIND: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")
_WRITE_S: Final = 30.0  # how long a write tries, against other writers and broken connections
_FIRST_DELAY_S: Final = 0.02
_LONGEST_DELAY_S: Final = 1.0
_MAX_REMARK: Final = 10_000
_LOOK_S: Final = 10.0  # how long a stream may be silent before we ask whether there is truly nothing new
_OVERDUE_S: Final = 3.0  # how long the stream may take to tell what a look has seen already


def open_url(parts: SplitResult) -> Registry:
    """`firestore://PROJECT/DATABASE?prefix=NAME`, on an emulator where FIRESTORE_EMULATOR_HOST names one."""
    return FirestoreRegistry(parse_location(parts))


class _View:
    """The mirrored documents as of one generation, kept from one stream to the next."""

    def __init__(self, head: RegistryHead, documents: dict[str, Document]) -> None:
        self.head = head
        self.documents = documents  # by id

    @classmethod
    def of(cls, listing: Listing) -> "_View":
        head = RegistryHead(listing.registry_id, listing.generation)
        return cls(head, {layout.document_id(d.kind, d.name): d for d in listing.documents})

    def listing(self) -> Listing:
        return Listing(
            registry_id=self.head.registry_id,
            generation=self.head.generation,
            documents=tuple(self.documents.values()),
        )

    def updated(self, head: RegistryHead, fresh: dict[str, FirestoreDocument]) -> "_View":
        documents = dict(self.documents)
        for identity, found in fresh.items():
            document = _mirrored(found)
            if document is None:
                documents.pop(identity, None)
            else:
                documents[identity] = document
        return _View(head, documents)


class RegistryReplaced(Exception):
    """What is there is not what we know, or an older state of it: a restored backup, an emulator that was started anew."""

    def __init__(self) -> None:
        super().__init__("another registry is there now, or an older state of it")


class FirestoreRegistry:
    def __init__(self, location: FirestoreLocation, *, look_s: float = _LOOK_S) -> None:
        self._place = location
        self._names = Collections(location.prefix)
        self._look_s = look_s
        self._connected: FirestoreRpc | None = None
        self._connecting = asyncio.Lock()
        self._writing = asyncio.Lock()  # our own writes need not compete with each other
        self._last: _View | None = None
        self._closed = False

    # -- the contract

    async def load(self) -> Listing:
        return (await self._read_whole(await self._rpc())).listing()

    async def watch(self, since: Listing | None = None) -> AsyncIterator[Listing | None]:
        rpc = await self._rpc()
        view = self._last or (_View.of(since) if since is not None else None)
        told = False
        while True:
            if view is None:
                view = self._last = await self._read_whole(rpc)
                told = False
            try:
                # The stream begins with all of the view's own generation, so it also completes a view that was read in
                # the midst of a commit, as the emulator lets it happen.
                async with aclosing(self._follow(rpc, view.head.generation)) as states:
                    async for head, fresh in states:
                        if head is None or (told and head == view.head):
                            yield None
                        elif head.registry_id == view.head.registry_id:
                            view = self._last = view.updated(head, fresh)
                            told = True
                            yield view.listing()
                        else:
                            raise RegistryReplaced
            except (DocumentGone, RegistryReplaced) as error:
                _log.warning("the registry is read anew: %s", error)
                self._last = None
                if await self._head(rpc) is None:
                    raise RegistryError(
                        f"the registry that was in {self._place} is gone: there is no document "
                        f"{self._names.mirror}/{HEAD}. Restore it, or begin a new one with `chips register`."
                    ) from error
                view = None

    async def read(self, kind: str, name: str) -> Document | None:
        where = self._where(kind, name)
        found = (await (await self._rpc()).get(where)).get(where)
        return None if found is None else layout.read_document(found.identity, found.fields)

    async def list(self, kind: str) -> tuple[Document, ...]:
        rpc = await self._rpc()
        collection = self._where(kind, "")[0]
        found = [
            document
            async for one in rpc.query(collection, first=f"{kind}:", end=f"{kind};")
            if (document := layout.read_document(one.identity, one.fields)) is not None
        ]
        return tuple(sorted(found, key=lambda document: document.name))

    async def write(self, *changes: Put | Delete, author: str, reason: str = "") -> int:
        rpc = await self._rpc()
        async with self._writing:
            return await _Writing(rpc, self._names, changes, author, reason, self._place).run()

    async def history(
        self, *, kind: str | None = None, name: str | None = None, limit: int = 100
    ) -> tuple[Change, ...]:
        rpc = await self._rpc()
        wanted = {key: value for key, value in (("kind", kind), ("name", name)) if value is not None}
        changes = []
        async for found in rpc.query(self._names.history, limit=limit, **wanted):
            change = layout.read_change(found.fields)
            if change is None:
                _log.error("%s/%s is no entry of a history", self._names.history, found.identity)
            else:
                changes.append(change)
        return tuple(changes)

    async def close(self) -> None:
        self._closed = True
        async with self._connecting:
            connected, self._connected = self._connected, None
        if connected is not None:
            await connected.close()

    # -- how

    async def _rpc(self) -> "FirestoreRpc":
        async with self._connecting:
            if self._closed:
                raise RegistryError("the registry is closed")
            if self._connected is None:
                module = await asyncio.to_thread(importlib.import_module, "gateway.registry.firestore.rpc")
                credentials = await asyncio.to_thread(module.find_default_credentials, self._place)
                self._connected = module.FirestoreRpc(self._place, credentials)
            return self._connected

    def _where(self, kind: str, name: str) -> tuple[str, str]:
        return document_location(self._names, kind, name)

    async def _head(self, rpc: "FirestoreRpc") -> RegistryHead | None:
        location = (self._names.mirror, HEAD)
        found = (await rpc.get(location)).get(location)
        return layout.read_head(found.fields if found is not None else None)

    async def _read_whole(self, rpc: "FirestoreRpc") -> _View:
        head: RegistryHead | None = None
        documents = {}
        async for found in rpc.query(self._names.mirror):  # one query is one moment
            if found.identity == HEAD:
                head = layout.read_head(found.fields)
            elif (document := _mirrored(found)) is not None:
                documents[found.identity] = document
        if head is None:
            head = await self._begin(rpc)
        return _View(head, documents)

    async def _begin(self, rpc: "FirestoreRpc") -> RegistryHead:
        """Make the registry, unless somebody else just did."""
        from gateway.registry.firestore.rpc import CommitOutcomeUnknown, PreconditionFailed, Write

        head = RegistryHead(uuid4().hex, 0)
        fields = layout.write_head(head, "", now_text())
        try:
            await rpc.commit([Write(self._names.mirror, HEAD, fields, None)])
        except PreconditionFailed:
            pass
        except CommitOutcomeUnknown as error:
            raise Unavailable(f"{self._place} does not answer: {error}") from error
        except RegistryError as error:
            raise RegistryError(
                f"there is no registry in {self._place} under the prefix {self._names.prefix!r} yet, and it could not "
                f"be begun: {error}"
            ) from error
        else:
            return head
        begun = await self._head(rpc)
        if begun is None:
            raise Unavailable(f"{self._place} contradicts itself")
        return begun

    async def _follow(
        self, rpc: "FirestoreRpc", since: int
    ) -> AsyncGenerator[tuple[RegistryHead | None, dict[str, FirestoreDocument]], None]:
        """What changes, state by state, beginning with all of generation `since` and later.

        Without a head: that is what there is, nothing new. Raises RegistryReplaced where what is there is older than `since`.
        """
        target = ListenTarget()
        messages = rpc.listen(self._names.mirror, since)
        generation: int | None = None
        silence_s = self._look_s
        reading: asyncio.Future[Any] = asyncio.ensure_future(anext(messages))
        try:
            while True:
                await asyncio.wait({reading}, timeout=silence_s)
                if reading.done():
                    fresh = target.take(reading.result())
                    reading = asyncio.ensure_future(anext(messages))
                    if fresh is None:
                        continue
                    head = layout.read_head(fresh[HEAD].fields) if HEAD in fresh else None
                    if head is not None:
                        generation = head.generation
                    elif generation is None:
                        raise RegistryReplaced
                    silence_s = self._look_s
                    yield head, fresh
                    continue
                # A stream can be silent because nothing happens, and because it is dead.
                seen = await self._head(rpc)
                if seen is not None and seen.generation == generation:
                    silence_s = self._look_s
                    yield None, {}
                elif silence_s == _OVERDUE_S:
                    raise Unavailable(f"{self._place} has changed, but its stream does not say so")
                else:
                    silence_s = _OVERDUE_S
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await messages.aclose()


class _Writing:
    """One write, from the first attempt to the answer.

    Every attempt reads what it depends on and commits only if none of it has changed. The head, which all writers
    share, changes often under many writers: that is tried again. A named document that is not at the expected revision
    is the caller's to decide: Conflict. An attempt that got no answer is looked for by its own id in the history, so
    that nothing is written twice and nothing that was written is called lost.
    """

    def __init__(
        self,
        rpc: "FirestoreRpc",
        names: Collections,
        changes: Sequence[Put | Delete],
        author: str,
        reason: str,
        location: FirestoreLocation,
    ) -> None:
        self._rpc = rpc
        self._names = names
        self._changes = changes
        self._author = author.encode(errors="replace").decode()
        self._reason = reason.encode(errors="replace").decode()
        self._place = location
        self._id = uuid4().hex
        self._at = now_text()
        self._bodies = [
            msgspec.json.encode(change.body).decode() if isinstance(change, Put) else None
            for change in changes
        ]
        for change, body in zip(changes, self._bodies, strict=True):
            if body is not None and len(body.encode()) > layout.MAX_BODY_BYTES:
                raise RegistryError(
                    f"{change.kind}/{change.name} takes {len(body.encode())} bytes, and this registry keeps at most "
                    f"{layout.MAX_BODY_BYTES} in one document. Nothing was written."
                )
        if len(self._author) + len(self._reason) > _MAX_REMARK:
            raise RegistryError(
                f"author and reason together may have {_MAX_REMARK} characters. Nothing was written."
            )
        self._head_at = (names.mirror, HEAD)
        self._asked = 0  # the generation that a commit without an answer would have made

    async def run(self) -> int:
        from gateway.registry.firestore.rpc import CommitOutcomeUnknown, PreconditionFailed

        clock = asyncio.get_running_loop().time
        give_up_at = clock() + _WRITE_S
        delay_s = _FIRST_DELAY_S
        why: Exception
        while True:
            try:
                found = await self._read()
                if self._asked and self._is_ours(found):
                    return self._asked
            except Unavailable as error:
                if not self._asked:
                    raise Unavailable(f"{error} Nothing was written.") from error
                why = error
            else:
                generation, writes = self._compose(found)
                try:
                    await self._rpc.commit(writes)
                except PreconditionFailed as error:
                    why = error
                except CommitOutcomeUnknown as error:
                    why = error
                    self._asked = generation
                else:
                    return generation
            if clock() + delay_s > give_up_at:
                raise self._give_up(why) from why
            await asyncio.sleep(random_between(0, delay_s))
            delay_s = min(delay_s * 2, _LONGEST_DELAY_S)

    def _give_up(self, why: Exception) -> Unavailable:
        if self._asked:
            return Unavailable(
                f"{self._place} stopped answering in mid-write, so it is not known whether the change was written; if it "
                f"was, it was written whole, as generation {self._asked}. `chips history` will tell. ({why})"
            )
        return Unavailable(
            f"too many others are writing to {self._place}; nothing was written. Try again. ({why})"
        )

    async def _read(self) -> dict[tuple[str, str], FirestoreDocument]:
        wanted = [self._head_at, *(document_location(self._names, c.kind, c.name) for c in self._changes)]
        if self._asked:
            wanted.append((self._names.history, layout.change_id(self._asked, 0)))
        return await self._rpc.get(*wanted)

    def _is_ours(self, found: dict[tuple[str, str], FirestoreDocument]) -> bool:
        entry = found.get((self._names.history, layout.change_id(self._asked, 0)))
        return entry is not None and entry.fields.get("write_id") == self._id

    def _compose(self, found: dict[tuple[str, str], FirestoreDocument]) -> "tuple[int, list[Write]]":
        from gateway.registry.firestore.rpc import Write

        was = found.get(self._head_at)
        head = layout.read_head(was.fields if was is not None else None) or RegistryHead(uuid4().hex, 0)
        generation = head.generation + 1
        fields = layout.write_head(RegistryHead(head.registry_id, generation), self._id, self._at)
        writes = [Write(*self._head_at, fields, was.updated if was is not None else None)]
        for index, (change, body) in enumerate(zip(self._changes, self._bodies, strict=True)):
            writes += self._compose_one(found, change, body, generation, index)
        size = sum(layout.size_of(write.identity, write.fields) for write in writes)
        if size > layout.MAX_COMMIT_BYTES:
            raise RegistryError(
                f"these {len(self._changes)} changes take {size} bytes, and Firestore writes at most "
                f"{layout.MAX_COMMIT_BYTES} at once. Nothing was written; make the change in several parts."
            )
        return generation, writes

    def _compose_one(
        self,
        found: dict[tuple[str, str], FirestoreDocument],
        change: Put | Delete,
        body: str | None,
        generation: int,
        index: int,
    ) -> "tuple[Write, Write]":
        from gateway.registry.firestore.rpc import Write

        at = document_location(self._names, change.kind, change.name)
        was = found.get(at)
        stored = layout.read_stored(was.fields if was is not None else None)
        before = stored.body if stored is not None else None
        actual = stored.revision if stored is not None and before is not None else 0
        if actual != change.expected:
            raise Conflict(change.kind, change.name, expected=change.expected, actual=actual)
        revision = (stored.revision if stored is not None else 0) + 1
        entry = Change(
            generation=generation,
            at=self._at,
            author=self._author,
            reason=self._reason,
            action="delete" if body is None else "create" if before is None else "update",
            kind=change.kind,
            name=change.name,
            revision=revision,
            before=None,
            after=None,
        )
        document = layout.write_stored(change.kind, change.name, revision, generation, body)
        logged = layout.write_change(entry, before, body, self._id)
        return (
            Write(*at, document, was.updated if was is not None else None),
            Write(self._names.history, layout.change_id(generation, index), logged, None),
        )


def document_location(names: Collections, kind: str, name: str) -> tuple[str, str]:
    """The collection and the id of a document."""
    if not _KIND.fullmatch(kind):
        raise RegistryError(f"{kind[:80]!r} cannot be a kind of document")
    return names.of(kind), layout.document_id(kind, name)


def _mirrored(found: FirestoreDocument) -> Document | None:
    """A document for the listing; None where it is the head, was deleted, or is of a kind that this release does not mirror."""
    if ":" not in found.identity or layout.parse_document_id(found.identity)[0] not in MIRRORED:
        return None
    return layout.read_document(found.identity, found.fields)
