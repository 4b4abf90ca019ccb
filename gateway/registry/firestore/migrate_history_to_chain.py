"""Migrate a Firestore registry's history, of an older release, to the hash chain. It is one commit."""

from typing import TYPE_CHECKING
from uuid import uuid4

import msgspec

from gateway.registry.base import (
    AUDIT,
    KINDS,
    Entry,
    Head,
    StoredDocument,
    Unavailable,
    now_rfc3339,
)
from gateway.registry.firestore import document_layout
from gateway.registry.firestore.document_layout import HEAD, CollectionNames, FirestoreDocument
from gateway.registry.firestore.read_as_stored import read_documents_as_stored, read_entries_newest_first
from gateway.registry.hash_chain import TAKEOVER, TAKEOVER_REASON, seal, take_over_unchained_history

if TYPE_CHECKING:
    from gateway.registry.firestore.rpc import FirestoreRpc


async def migrate_history_to_chain(
    rpc: "FirestoreRpc", names: CollectionNames, found: FirestoreDocument | None
) -> bool:
    """Migrate an older release's history to the hash chain. False where there is no history.

    `found` is the head document as it was read. Raises PreconditionFailed where somebody else wrote meanwhile.
    """
    from gateway.registry.firestore.rpc import CommitOutcomeUnknown, DocumentWrite

    known = document_layout.decode_head(found.fields) if found is not None else None
    if found is None or known is None:
        return False
    head = document_layout.read_chain_head(known, found.fields)
    if head.digest is not None:
        return False
    entries = [entry async for entry in read_entries_newest_first(rpc, names)]
    kinds = KINDS | {entry.kind for entry in entries if entry.kind}
    documents = [one for kind in sorted(kinds) async for one in read_documents_as_stored(rpc, names, kind)]
    takeover, previous_head = take_over_unchained_history(head, entries, documents)
    entry, new_head = _sealed(takeover, previous_head, documents)
    at = (names.for_kind(AUDIT), document_layout.document_id(AUDIT, TAKEOVER))
    was = (await rpc.get(at)).get(at)
    stored = document_layout.encode_stored(AUDIT, TAKEOVER, entry.revision, entry.generation, entry.after)
    fields = document_layout.encode_head(new_head, entry.write_id or "", entry.at)
    try:
        await rpc.commit(
            [
                DocumentWrite(names.mirror, HEAD, fields, found.updated),
                DocumentWrite(*at, stored, was.updated if was is not None else None),
                DocumentWrite(
                    names.history,
                    document_layout.newest_first_entry_id(entry.generation, 0),
                    document_layout.encode_entry(entry),
                    None,
                ),
            ]
        )
    except CommitOutcomeUnknown as error:
        raise Unavailable(f"the history could not be made a hash chain: {error}") from error
    return True


def _sealed(
    takeover: msgspec.Struct, previous_head: Head, documents: list[StoredDocument]
) -> tuple[Entry, Head]:
    before = next((one for one in documents if (one.kind, one.name) == (AUDIT, TAKEOVER)), None)
    return seal(
        Entry(
            sequence=0,
            generation=previous_head.generation + 1,
            at=now_rfc3339(),
            author="chips",
            reason=TAKEOVER_REASON,
            action="create" if before is None else "update",
            kind=AUDIT,
            name=TAKEOVER,
            revision=(before.revision if before is not None else 0) + 1,
            before=before.body if before is not None else None,
            after=msgspec.json.encode(takeover).decode(),
            write_id=uuid4().hex,
        ),
        previous_head,
    )
