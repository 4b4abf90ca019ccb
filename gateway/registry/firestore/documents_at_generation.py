"""The mirrored documents of a Firestore registry at one generation, kept from one Listen stream to the next."""

from gateway.registry.base import (
    MIRRORED,
    Document,
    MirroredListing,
)
from gateway.registry.firestore import document_layout
from gateway.registry.firestore.document_layout import FirestoreDocument, RegistryHead


class DocumentsAtGeneration:
    """The mirrored documents of a registry at one generation. They do not change: `with_updates` makes the next ones.

    They are kept from one Listen stream to the next.
    """

    def __init__(self, head: RegistryHead, documents: dict[str, Document]) -> None:
        self.head = head
        self.documents = documents  # by id

    @classmethod
    def from_listing(cls, listing: MirroredListing) -> "DocumentsAtGeneration":
        head = RegistryHead(listing.registry_id, listing.generation)
        return cls(head, {document_layout.document_id(d.kind, d.name): d for d in listing.documents})

    def listing(self) -> MirroredListing:
        return MirroredListing(
            registry_id=self.head.registry_id,
            generation=self.head.generation,
            documents=tuple(self.documents.values()),
        )

    def with_updates(
        self, head: RegistryHead, fresh: dict[str, FirestoreDocument]
    ) -> "DocumentsAtGeneration":
        documents = dict(self.documents)
        for identity, found in fresh.items():
            document = mirrored_document(found)
            if document is None:
                documents.pop(identity, None)
            else:
                documents[identity] = document
        return DocumentsAtGeneration(head, documents)


def mirrored_document(found: FirestoreDocument) -> Document | None:
    """The registry document in `found`, if it is mirrored.

    None for the head, a deleted document, or a kind that this release does not mirror.
    """
    if ":" not in found.identity or document_layout.parse_document_id(found.identity)[0] not in MIRRORED:
        return None
    return document_layout.decode_registry_document(found.identity, found.fields)
