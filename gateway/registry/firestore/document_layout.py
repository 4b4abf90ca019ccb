"""The layout of a registry's documents in Firestore.

It has names, fields and encoding. It is pure: no client, no network.

    <prefix>-mirror/head                  registry_id, generation, sequence, digest: the one document that every write changes
    <prefix>-mirror/<kind>:<name>         a document of a mirrored kind
    <prefix>-<kind>/<kind>:<name>         a document of another kind (keys)
    <prefix>-history/<newest first>       one entry for each changed document of each generation
    <prefix>-ephemeral-<kind>/<kind>:<name>   an ephemeral document (leases, figures), outside of all that

Head and mirrored documents share a collection, so that one query, and one snapshot of its stream, holds a generation
whole. A document carries the generation that wrote it and is never removed, only marked as deleted; so "everything since
generation G" is one query, and a gateway that comes back reads what it missed and nothing else. Bodies are JSON text:
Firestore has no lists of lists, and would index every field of a map.
"""

import re
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote

import msgspec

from gateway.registry.base import (
    MIRRORED,
    Document,
    Entry,
    Head,
    RegistryError,
    RegistryStoreDamaged,
    StoredDocument,
    decode_or_mark_damaged,
)
from gateway.registry.damaged_record_placeholders import (
    DAMAGED,
    StoredValues,
    entry_from_values,
    values_or_problem,
)

HEAD: Final = "head"  # no other name in its collection is without a colon
_MAX_ID_BYTES: Final = 1500
MAX_BODY_BYTES: Final = 450_000  # the history keeps two of them in one document
MAX_COMMIT_BYTES: Final = 9_500_000  # of 10 MiB
_LAST_GENERATION: Final = 10**15
_LAST_INDEX: Final = 10**6
_KIND: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")

_MISSING: Final = object()  # a body that is not there, which is not a deleted one
_OF_THE_CHAIN: Final = frozenset({"sequence", "previous", "digest"})
_ENTRY_FIELDS: Final = frozenset(Entry.__struct_fields__)

Fields = dict[str, Any]


class FirestoreDocument(NamedTuple):
    """A document as it was read from Firestore."""

    identity: str
    fields: Fields
    updated: Any  # a protobuf Timestamp, for preconditions


class RegistryHead(NamedTuple):
    """The head document: the registry's id and its generation."""

    registry_id: str
    generation: int


class CollectionNames(NamedTuple):
    """The names of a registry's collections in Firestore."""

    prefix: str

    def for_kind(self, kind: str) -> str:
        return self.mirror if kind in MIRRORED else f"{self.prefix}-{kind}"

    @property
    def mirror(self) -> str:
        return f"{self.prefix}-mirror"

    @property
    def history(self) -> str:
        return f"{self.prefix}-history"


def check_kind(kind: str) -> None:
    """Check that `kind` is valid in a collection's name. Raises RegistryError."""
    if not _KIND.fullmatch(kind):
        raise RegistryError(f"{kind[:80]!r} cannot be a kind of document")


def document_id(kind: str, name: str) -> str:
    """The Firestore id of a document of any kind and name. It is always valid: no slash, no dot alone, no `__name__`."""
    try:
        found = f"{kind}:{quote(name, safe='')}"
    except UnicodeEncodeError:
        raise RegistryError(f"{name[:80]!r} cannot be a name: it is not Unicode text") from None
    if len(found) > _MAX_ID_BYTES:
        raise RegistryError(f"{name[:80]!r}… is too long for a name in Firestore")
    return found


def parse_document_id(identity: str) -> tuple[str, str]:
    """The kind and name from a document's id. It also takes the id of a document that somebody wrote by hand."""
    kind, _, name = identity.partition(":")
    return kind, unquote(name)


def document_from_protobuf(document: Any) -> FirestoreDocument:
    """Convert a protobuf Document to a FirestoreDocument. A value of a type that no registry writes stays a protobuf value, so that nobody takes it for ours."""
    fields: Fields = {}
    for name, value in document.fields.items():
        kind = value.WhichOneof("value_type")
        if kind == "null_value":
            fields[name] = None
        elif kind in {"string_value", "integer_value"}:
            fields[name] = getattr(value, kind)
        else:
            fields[name] = value
    return FirestoreDocument(document.name.rpartition("/")[2], fields, document.update_time)


def decode_head(fields: Fields | None) -> RegistryHead | None:
    """Decode the head document. None where there is none."""
    if fields is None:
        return None
    registry_id, generation = fields.get("registry_id"), fields.get("generation")
    if not isinstance(registry_id, str) or not registry_id or not isinstance(generation, int):
        raise RegistryStoreDamaged(
            "the registry's head document in Firestore is damaged: it must hold registry_id (text) and generation "
            "(a whole number). Restore it from a backup, or correct it by hand."
        )
    return RegistryHead(registry_id, generation)


def read_chain_head(head: RegistryHead, fields: Fields) -> Head:
    """Read the head of the hash chain from the head document. It is without a digest where an older release has written it."""
    sequence, digest = fields.get("sequence"), fields.get("digest")
    if sequence is None and digest is None:
        return Head(registry_id=head.registry_id, generation=head.generation)
    if not isinstance(sequence, int) or not isinstance(digest, str):
        raise RegistryStoreDamaged(
            "the registry's head document in Firestore is damaged: sequence must be a whole number and digest a text. "
            "`chips audit --verify` needs it; restore it from a backup."
        )
    return Head(registry_id=head.registry_id, generation=head.generation, sequence=sequence, digest=digest)


def encode_head(head: Head, write_id: str, at: str) -> Fields:
    """Encode the head document."""
    fields: Fields = {"registry_id": head.registry_id, "generation": head.generation}
    if head.digest is not None:
        fields |= {"sequence": head.sequence, "digest": head.digest}
    return {**fields, "write_id": write_id, "at": at}


def decode_stored(fields: Fields | None) -> StoredValues | None:
    """Decode a stored document. None where there is none."""
    if fields is None:
        return None
    return values_or_problem(fields.get("revision"), fields.get("body", _MISSING))


def read_as_stored(found: FirestoreDocument) -> StoredDocument:
    """A document exactly as it is stored. One that is damaged gets a body that no registry writes."""
    kind, name = parse_document_id(found.identity)
    stored = decode_stored(found.fields)
    if (
        stored is None
        or stored.problem
        or found.fields.get("kind") != kind
        or found.fields.get("name") != name
    ):
        return StoredDocument(kind=kind, name=name, revision=0, body=DAMAGED)
    generation = found.fields.get("generation")
    return StoredDocument(
        kind=kind,
        name=name,
        revision=stored.revision,
        body=stored.body,
        generation=generation if isinstance(generation, int) else 0,
    )


def decode_registry_document(identity: str, fields: Fields | None) -> Document | None:
    """Decode a registry document. None where there is none or it was deleted."""
    stored = decode_stored(fields)
    if stored is None or stored.body is None:
        return None
    kind, name = parse_document_id(identity)
    document = decode_or_mark_damaged(kind, name, stored.revision, stored.body)
    if stored.problem:
        return msgspec.structs.replace(document, body={}, problem=stored.problem)
    return document


def encode_stored(kind: str, name: str, revision: int, generation: int, body: str | None) -> Fields:
    """Encode a stored document. `body` None is a tombstone."""
    return {"kind": kind, "name": name, "revision": revision, "generation": generation, "body": body}


def newest_first_entry_id(generation: int, index: int) -> str:
    """The id of a history entry. Newer entries have lower ids.

    So Firestore's own order by id, which needs no index, is newest first.
    """
    return f"{_LAST_GENERATION - generation:016d}-{_LAST_INDEX - index:07d}"


def encode_entry(entry: Entry) -> Fields:
    """Encode an entry of the history."""
    return {name: getattr(entry, name) for name in Entry.__struct_fields__}


def decode_entry(found: FirestoreDocument) -> Entry | None:
    """Decode an entry of the history exactly as it is stored. None where it is no entry."""
    unchained = {"sequence": 0} if found.fields.keys().isdisjoint(_OF_THE_CHAIN) else {}
    entry = entry_from_values({**unchained, **found.fields})
    if entry is None:
        return None
    in_place = found.identity.startswith(f"{_LAST_GENERATION - entry.generation:016d}-")
    return entry if in_place and not found.fields.keys() - _ENTRY_FIELDS else None


def estimated_size_bytes(identity: str, fields: Fields) -> int:
    """The approximate size of a document in bytes, as Firestore counts it."""
    total = len(identity) + 64
    for name, value in fields.items():
        total += len(name) + 1 + (len(value.encode()) + 1 if isinstance(value, str) else 8)
    return total
