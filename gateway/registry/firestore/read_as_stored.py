"""Read a Firestore registry's history and documents exactly as they are stored. The audit and the hash chain need them so."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from gateway.registry.base import Entry, StoredDocument
from gateway.registry.damaged_record_placeholders import DAMAGED_ENTRY
from gateway.registry.firestore import document_layout
from gateway.registry.firestore.document_layout import CollectionNames

if TYPE_CHECKING:
    from gateway.registry.firestore.rpc import FirestoreRpc

_PAGE: Final = 1000  # entries read at once


async def read_entries_newest_first(rpc: "FirestoreRpc", names: CollectionNames) -> AsyncIterator[Entry]:
    """The history's entries, from the newest to the oldest. Each is exactly as it is stored."""
    first: str | None = None
    while True:
        count, last = 0, first
        async for found in rpc.query(names.history, first=first, limit=_PAGE):
            count, last = count + 1, found.identity
            if found.identity != first:  # a page begins with the last entry of the page before
                yield document_layout.decode_entry(found) or DAMAGED_ENTRY
        if count < _PAGE:
            return
        first = last


async def read_documents_as_stored(
    rpc: "FirestoreRpc", names: CollectionNames, kind: str
) -> AsyncIterator[StoredDocument]:
    """Every document of a kind, exactly as stored. Tombstones are included."""
    async for found in rpc.query(names.for_kind(kind), first=f"{kind}:", end=f"{kind};"):
        yield document_layout.read_as_stored(found)
