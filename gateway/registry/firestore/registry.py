"""A registry in Google's Firestore.

It serves a fleet of gateways. Each gateway watches it over one stream. Writes use preconditions, not transactions,
whose locks collapse under contention; see docs/adr. Google's packages are imported late and in a thread, because
importing them takes longer than a caller should wait.
"""

import asyncio
import importlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult
from uuid import uuid4

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
    StoredDocument,
    Unavailable,
    now_rfc3339,
)
from gateway.registry.firestore import document_layout, ephemeral_documents
from gateway.registry.firestore.document_layout import HEAD, CollectionNames, RegistryHead
from gateway.registry.firestore.documents_at_generation import DocumentsAtGeneration, mirrored_document
from gateway.registry.firestore.listen_change_aggregator import (
    ConsistentChanges,
    DocumentRemovedByHand,
    ListenTarget,
)
from gateway.registry.firestore.location import FirestoreLocation, parse_location
from gateway.registry.firestore.read_as_stored import read_documents_as_stored, read_entries_newest_first
from gateway.registry.firestore.retried_commit import RetriedCommit, document_location
from gateway.registry.hash_chain import GENESIS

if TYPE_CHECKING:
    from gateway.registry.firestore.rpc import FirestoreRpc

_log = logging.getLogger(__name__)

_LOOK_S: Final = 10.0  # how long a stream may be silent before we ask whether there is truly nothing new
_OVERDUE_S: Final = 3.0  # how long the stream may take to tell what a look has seen already


def open_url(parts: SplitResult) -> Registry:
    """Open the Firestore registry at a URL.

    It is `firestore://PROJECT/DATABASE?prefix=NAME`, on an emulator where FIRESTORE_EMULATOR_HOST names one.
    """
    return FirestoreRegistry(parse_location(parts))


class RegistryReplaced(Exception):
    """The stored registry was replaced by another one, or by an older state of it.

    A restored backup or a restarted emulator does so.
    """

    def __init__(self) -> None:
        super().__init__("another registry is there now, or an older state of it")


class FirestoreRegistry:
    """A registry in Firestore, shared by all gateways of a fleet."""

    def __init__(self, location: FirestoreLocation, *, look_s: float = _LOOK_S) -> None:
        self._place = location
        self._names = CollectionNames(location.prefix)
        self._look_s = look_s
        self._connected: FirestoreRpc | None = None
        self._connecting = asyncio.Lock()
        self._writing = asyncio.Lock()  # our own writes need not compete with each other
        self._last: DocumentsAtGeneration | None = None
        self._closed = False

    # -- the contract

    async def load_mirrored(self) -> MirroredListing:
        return (await self._read_whole(await self._rpc())).listing()

    async def watch(self, since: MirroredListing | None = None) -> AsyncIterator[MirroredListing | None]:
        rpc = await self._rpc()
        view = self._last or (DocumentsAtGeneration.from_listing(since) if since is not None else None)
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
                            view = self._last = view.with_updates(head, fresh)
                            told = True
                            yield view.listing()
                        else:
                            raise RegistryReplaced
            except (DocumentRemovedByHand, RegistryReplaced) as error:
                _log.warning("the registry is read again: %s", error)
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
        return (
            None if found is None else document_layout.decode_registry_document(found.identity, found.fields)
        )

    async def list(self, kind: str) -> tuple[Document, ...]:
        rpc = await self._rpc()
        collection = self._where(kind, "")[0]
        found = [
            document
            async for one in rpc.query(collection, first=f"{kind}:", end=f"{kind};")
            if (document := document_layout.decode_registry_document(one.identity, one.fields)) is not None
        ]
        return tuple(sorted(found, key=lambda document: document.name))

    async def write(
        self,
        *changes: Put | Delete,
        author: str,
        reason: str = "",
        preconditions: Sequence[Precondition] = (),
    ) -> Generation:
        rpc = await self._rpc()
        async with self._writing:
            commit = RetriedCommit(
                rpc, self._names, changes, author, reason, self._place, preconditions=preconditions
            )
            return await commit.run()

    async def history(
        self, *, kind: str | None = None, name: str | None = None, limit: int = 100
    ) -> tuple[Change, ...]:
        rpc = await self._rpc()
        wanted = {key: value for key, value in (("kind", kind), ("name", name)) if value is not None}
        changes = []
        async for found in rpc.query(self._names.history, limit=limit, **wanted):
            entry = document_layout.decode_entry(found)
            if entry is None:
                _log.error("%s/%s is no entry of a history", self._names.history, found.identity)
            else:
                changes.append(entry.change())
        return tuple(changes)

    async def list_ephemeral(self, kind: str) -> tuple[Document, ...]:
        return await ephemeral_documents.read(await self._rpc(), self._names, kind)

    async def write_ephemeral(self, kind: str, name: str, body: dict[str, Any], *, expected: int) -> int:
        return await ephemeral_documents.write(await self._rpc(), self._names, kind, name, body, expected)

    async def delete_ephemeral(self, kind: str, name: str) -> None:
        await ephemeral_documents.delete(await self._rpc(), self._names, kind, name)

    async def head(self) -> Head:
        rpc = await self._rpc()
        location = (self._names.mirror, HEAD)
        found = (await rpc.get(location)).get(location)
        head = document_layout.decode_head(found.fields if found is not None else None)
        if found is None or head is None:
            await self._begin(rpc)
            return await self.head()
        return document_layout.read_chain_head(head, found.fields)

    async def history_entries_newest_first(self) -> AsyncIterator[Entry]:
        async for entry in read_entries_newest_first(await self._rpc(), self._names):
            yield entry

    async def raw_documents_with_deleted(self, kind: str) -> tuple[StoredDocument, ...]:
        return tuple([one async for one in read_documents_as_stored(await self._rpc(), self._names, kind)])

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
        return document_layout.decode_head(found.fields if found is not None else None)

    async def _read_whole(self, rpc: "FirestoreRpc") -> DocumentsAtGeneration:
        head: RegistryHead | None = None
        documents = {}
        async for found in rpc.query(self._names.mirror):  # one query is one moment
            if found.identity == HEAD:
                head = document_layout.decode_head(found.fields)
            elif (document := mirrored_document(found)) is not None:
                documents[found.identity] = document
        if head is None:
            head = await self._begin(rpc)
        return DocumentsAtGeneration(head, documents)

    async def _begin(self, rpc: "FirestoreRpc") -> RegistryHead:
        """Make the registry, unless somebody else just did."""
        from gateway.registry.firestore.rpc import CommitOutcomeUnknown, DocumentWrite, PreconditionFailed

        head = RegistryHead(uuid4().hex, 0)
        chain = Head(registry_id=head.registry_id, generation=0, digest=GENESIS)
        fields = document_layout.encode_head(chain, "", now_rfc3339())
        try:
            await rpc.commit([DocumentWrite(self._names.mirror, HEAD, fields, None)])
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
    ) -> AsyncGenerator[tuple[RegistryHead | None, ConsistentChanges], None]:
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
                    fresh = target.apply(reading.result())
                    reading = asyncio.ensure_future(anext(messages))
                    if fresh is None:
                        continue
                    head = document_layout.decode_head(fresh[HEAD].fields) if HEAD in fresh else None
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
