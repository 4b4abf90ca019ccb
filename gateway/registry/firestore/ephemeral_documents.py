"""Reads and writes the ephemeral documents of a Firestore registry.

Each kind has one collection, and each document is written by itself.

    <prefix>-ephemeral-<kind>/<kind>:<name>    revision, body

No head, no history: writers of different documents never compete.
"""

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.registry.base import Conflict, Document, RegistryError, Unavailable
from gateway.registry.firestore import document_layout
from gateway.registry.firestore.document_layout import CollectionNames

if TYPE_CHECKING:
    from gateway.registry.firestore.rpc import FirestoreRpc


def _collection(names: CollectionNames, kind: str) -> str:
    document_layout.check_kind(kind)
    return f"{names.prefix}-ephemeral-{kind}"


async def read(rpc: "FirestoreRpc", names: CollectionNames, kind: str) -> tuple[Document, ...]:
    """Read the documents of a kind. They come by name."""
    found = [
        document
        async for one in rpc.query(_collection(names, kind))
        if (document := document_layout.decode_registry_document(one.identity, one.fields)) is not None
    ]
    return tuple(sorted(found, key=lambda document: document.name))


async def write(
    rpc: "FirestoreRpc", names: CollectionNames, kind: str, name: str, body: dict[str, Any], expected: int
) -> int:
    """Write one document if it is at revision `expected`. Returns its new revision. Raises Conflict."""
    from gateway.registry.firestore.rpc import CommitOutcomeUnknown, DocumentWrite, PreconditionFailed

    where = (_collection(names, kind), document_layout.document_id(kind, name))
    text = msgspec.json.encode(body).decode()
    if len(text.encode()) > document_layout.MAX_BODY_BYTES:
        raise RegistryError(
            f"{kind}/{name} takes {len(text)} bytes, of at most {document_layout.MAX_BODY_BYTES}"
        )
    was = (await rpc.get(where)).get(where)
    stored = document_layout.decode_stored(was.fields if was is not None else None)
    actual = stored.revision if stored is not None else 0
    if actual != expected:
        raise Conflict(kind, name, expected=expected, actual=actual)
    fields = document_layout.encode_stored(kind, name, expected + 1, 0, text)
    try:
        await rpc.commit([DocumentWrite(*where, fields, was.updated if was is not None else None)])
    except PreconditionFailed as error:
        raise Conflict(kind, name, expected=expected, actual=actual + 1) from error
    except CommitOutcomeUnknown as error:
        raise Unavailable(f"it is not known whether {kind}/{name} was written: {error}") from error
    return expected + 1


async def delete(rpc: "FirestoreRpc", names: CollectionNames, kind: str, name: str) -> None:
    """Delete one document, if it is there."""
    await rpc.delete(_collection(names, kind), document_layout.document_id(kind, name))
