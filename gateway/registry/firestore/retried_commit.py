"""Commit a batch of documents to Firestore, all at once or not at all, and retry until the outcome is known."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import msgspec

from gateway.core.per_process_random import random_between
from gateway.registry.base import (
    Delete,
    Entry,
    Generation,
    Head,
    Precondition,
    Put,
    RegistryError,
    Unavailable,
    now_rfc3339,
)
from gateway.registry.firestore import document_layout
from gateway.registry.firestore.document_layout import HEAD, CollectionNames, FirestoreDocument
from gateway.registry.firestore.location import FirestoreLocation
from gateway.registry.firestore.migrate_history_to_chain import migrate_history_to_chain
from gateway.registry.hash_chain import GENESIS, check_expected, entry_of_change, seal

if TYPE_CHECKING:
    from gateway.registry.firestore.rpc import DocumentWrite, FirestoreRpc


_MAX_REMARK: Final = 10_000
_WRITE_S: Final = 30.0  # how long a write tries, against other writers and broken connections
_FIRST_DELAY_S: Final = 0.02
_LONGEST_DELAY_S: Final = 1.0


class RetriedCommit:
    """One atomic commit of several documents, retried until its outcome is known.

    Every attempt reads what it depends on and commits only if none of it has changed. The head, which all writers
    share, changes often under many writers: that is tried again. A named document that is not at the expected revision
    is the caller's to decide: Conflict. An attempt that got no answer is looked for by its own id in the history, so
    that nothing is written twice and nothing that was written is called lost.
    """

    def __init__(
        self,
        rpc: "FirestoreRpc",
        names: CollectionNames,
        changes: Sequence[Put | Delete],
        author: str,
        reason: str,
        location: FirestoreLocation,
        *,
        preconditions: Sequence[Precondition] = (),
    ) -> None:
        if not changes:
            raise ValueError("a write changes at least one document")
        self._rpc = rpc
        self._names = names
        self._changes = changes
        self._preconditions = preconditions
        self._author = author.encode(errors="replace").decode()
        self._reason = reason.encode(errors="replace").decode()
        self._place = location
        self._id = uuid4().hex
        self._at = now_rfc3339()
        self._bodies = [
            msgspec.json.encode(change.body).decode() if isinstance(change, Put) else None
            for change in changes
        ]
        for change, body in zip(changes, self._bodies, strict=True):
            if body is not None and len(body.encode()) > document_layout.MAX_BODY_BYTES:
                raise RegistryError(
                    f"{change.kind}/{change.name} takes {len(body.encode())} bytes, and this registry keeps at most "
                    f"{document_layout.MAX_BODY_BYTES} in one document. Nothing was written."
                )
        if len(self._author) + len(self._reason) > _MAX_REMARK:
            raise RegistryError(
                f"author and reason together may have {_MAX_REMARK} characters. Nothing was written."
            )
        self._head_at = (names.mirror, HEAD)
        self._asked = 0  # the generation that a commit without an answer would have made

    async def run(self) -> Generation:
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
                if await migrate_history_to_chain(self._rpc, self._names, found.get(self._head_at)):
                    found = await self._read()
            except Unavailable as error:
                if not self._asked:
                    raise Unavailable(f"{error} Nothing was written.") from error
                why = error
            except PreconditionFailed as error:
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
        wanted = [
            self._head_at,
            *(document_location(self._names, c.kind, c.name) for c in (*self._preconditions, *self._changes)),
        ]
        if self._asked:
            wanted.append((self._names.history, document_layout.newest_first_entry_id(self._asked, 0)))
        return await self._rpc.get(*wanted)

    def _is_ours(self, found: dict[tuple[str, str], FirestoreDocument]) -> bool:
        entry = found.get((self._names.history, document_layout.newest_first_entry_id(self._asked, 0)))
        return entry is not None and entry.fields.get("write_id") == self._id

    def _compose(self, found: dict[tuple[str, str], FirestoreDocument]) -> "tuple[int, list[DocumentWrite]]":
        from gateway.registry.firestore.rpc import DocumentWrite

        # All of `found` is as of one moment, and a write of one of these documents changes the head, which the commit
        # names as a precondition of its own: so none of them has changed when it is written.
        for precondition in self._preconditions:
            check_expected(precondition, *self._stored(found, precondition))
        was = found.get(self._head_at)
        known = document_layout.decode_head(was.fields if was is not None else None)
        if known is None or was is None:
            head = Head(registry_id=uuid4().hex, generation=0, digest=GENESIS)
        else:
            head = document_layout.read_chain_head(known, was.fields)
        generation = head.generation + 1
        writes: list[DocumentWrite] = []
        for index, (change, body) in enumerate(zip(self._changes, self._bodies, strict=True)):
            entry = self._entry(found, change, body, generation)
            entry, head = seal(entry, head)
            writes += self._writes_of(found, entry, index)
        head = msgspec.structs.replace(head, generation=generation)
        fields = document_layout.encode_head(head, self._id, self._at)
        writes.insert(0, DocumentWrite(*self._head_at, fields, was.updated if was is not None else None))
        size = sum(document_layout.estimated_size_bytes(write.identity, write.fields) for write in writes)
        if size > document_layout.MAX_COMMIT_BYTES:
            raise RegistryError(
                f"these {len(self._changes)} changes take {size} bytes, and Firestore writes at most "
                f"{document_layout.MAX_COMMIT_BYTES} at once. Nothing was written; make the change in several parts."
            )
        return generation, writes

    def _entry(
        self,
        found: dict[tuple[str, str], FirestoreDocument],
        change: Put | Delete,
        body: str | None,
        generation: int,
    ) -> Entry:
        revision, before = self._stored(found, change)
        check_expected(change, revision, before)
        return entry_of_change(
            change,
            revision,
            before,
            body,
            generation=generation,
            at=self._at,
            author=self._author,
            reason=self._reason,
            write_id=self._id,
        )

    def _stored(
        self, found: dict[tuple[str, str], FirestoreDocument], change: Put | Delete | Precondition
    ) -> tuple[int, str | None]:
        was = found.get(document_location(self._names, change.kind, change.name))
        stored = document_layout.decode_stored(was.fields if was is not None else None)
        return (stored.revision, stored.body) if stored is not None else (0, None)

    def _writes_of(
        self, found: dict[tuple[str, str], FirestoreDocument], entry: Entry, index: int
    ) -> "tuple[DocumentWrite, DocumentWrite]":
        from gateway.registry.firestore.rpc import DocumentWrite

        at = document_location(self._names, entry.kind, entry.name)
        was = found.get(at)
        document = document_layout.encode_stored(
            entry.kind, entry.name, entry.revision, entry.generation, entry.after
        )
        logged = document_layout.encode_entry(entry)
        return (
            DocumentWrite(*at, document, was.updated if was is not None else None),
            DocumentWrite(
                self._names.history,
                document_layout.newest_first_entry_id(entry.generation, index),
                logged,
                None,
            ),
        )


def document_location(names: CollectionNames, kind: str, name: str) -> tuple[str, str]:
    """The collection and the id of a document in Firestore."""
    document_layout.check_kind(kind)
    return names.for_kind(kind), document_layout.document_id(kind, name)
