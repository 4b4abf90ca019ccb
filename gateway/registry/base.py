"""The interface of a registry, and the records that it reads and writes.

A registry is a small store of documents with revisions, a generation and a history. It keeps documents by kind and name. It knows nothing of what they mean: `gateway.core.model` does. Every write is one atomic batch that names the revision
it was made from, so two people who change the same model at once cannot overwrite each other. Every write bumps the
registry's `generation` by one and appends to its history, which is a hash chain: `gateway.registry.hash_chain`.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol

import msgspec

MODELS: Final = "models"
KEYS: Final = "keys"
REVOCATIONS: Final = "revocations"
KEY_USES: Final = "key-uses"  # when keys were last used, by digest; not mirrored
NETWORKS: Final = "networks"  # whose callers are admitted, besides those of the settings
ROLLOUTS: Final = "rollouts"  # by model: how a new version gets its traffic, and how far it is
SHADOWS: Final = (
    "shadows"  # by model: which requests a candidate version sees after their callers were answered
)
EVIDENCE: Final = (
    "evidence"  # what was found out about a version, bound to its artifact and image; not mirrored
)
SIGN_OFF: Final = "sign-off"  # the environment's policy: who must approve what
SIGN_OFF_POLICY: Final = "policy"  # the name of its document
APPROVALS: Final = "approvals"  # requests for approval, with the signed decisions
EMERGENCIES: Final = "emergencies"  # what serves on one person's word, until somebody else has reviewed it
PRICES: Final = "prices"  # by the day from which they are in force
BUDGETS: Final = "budgets"  # what a model, a key or a team may spend
PLANS: Final = "plans"  # by model: what `chips plan --save` expects it to cost; not mirrored
AUDIT: Final = "audit"  # what CHIPS itself writes about the history
# Every kind: `chips audit --verify` compares all of their documents with the history.
KINDS: Final = frozenset(
    {
        MODELS,
        KEYS,
        REVOCATIONS,
        KEY_USES,
        NETWORKS,
        ROLLOUTS,
        SHADOWS,
        EVIDENCE,
        SIGN_OFF,
        APPROVALS,
        EMERGENCIES,
        PRICES,
        BUDGETS,
        PLANS,
        AUDIT,
    }
)

# What a gateway holds in memory. Keys are many and are read one by one, when a caller first shows one; a revocation is
# mirrored, so that a key that was read once dies at once.
MIRRORED: Final = frozenset({MODELS, REVOCATIONS, NETWORKS, ROLLOUTS, SHADOWS, EMERGENCIES, PRICES, BUDGETS})


Generation = int  # of a registry: 0 at first, one more with each write


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """One document of the registry: kind, name, revision and body (JSON)."""

    kind: str
    name: str
    revision: int  # 1 when first created; grows with each write, also over deletion and re-creation
    body: dict[str, Any]  # JSON values only
    problem: str = ""  # why it cannot be read, where another program has damaged it; the body is empty then


class MirroredListing(msgspec.Struct, frozen=True, kw_only=True):
    """All documents of the mirrored kinds at one generation."""

    registry_id: str  # made once, when the registry is created: two processes can tell whether they share one
    generation: int
    documents: tuple[Document, ...]


class Put(msgspec.Struct, frozen=True, kw_only=True):
    """A write of one document, if its revision is still `expected` (0: it must not exist)."""

    kind: str
    name: str
    body: dict[str, Any]
    expected: int  # the revision this was made from; 0: there must be none


class Delete(msgspec.Struct, frozen=True, kw_only=True):
    """A deletion of one document, if its revision is still `expected`."""

    kind: str
    name: str
    expected: int


class Precondition(msgspec.Struct, frozen=True, kw_only=True):
    """A condition of a write: a document is still at the `expected` revision.

    The write depends on the document and does not change it.
    """

    kind: str
    name: str
    expected: int  # 0: there must be none


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a document in the history. The history is append-only."""

    generation: int
    at: str  # RFC 3339, UTC
    author: str
    reason: str
    action: Literal["create", "update", "delete"]
    kind: str
    name: str
    revision: int
    before: dict[str, Any] | None
    after: dict[str, Any] | None


def network_document_name(network: str) -> str:
    """The name of a network's document. `/`, which some stores give a meaning of their own, is replaced."""
    return network.replace("/", "_")


def now_rfc3339() -> str:
    """The time now in UTC (RFC 3339). It has milliseconds, as the history stores it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def decode_or_mark_damaged(kind: str, name: str, revision: int, text: str) -> Document:
    """Decode a document, and mark it where it is damaged.

    `text` is the JSON of its body. A damaged one has `problem` set, so that it hides no other.
    """
    try:
        body: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
    except (ValueError, RecursionError) as error:
        return Document(
            kind=kind, name=name, revision=revision, body={}, problem=f"not a JSON object: {error}"
        )
    return Document(kind=kind, name=name, revision=revision, body=body)


def decode_history_body(text: str | None) -> dict[str, Any] | None:
    """Decode a document's body in the history. None stays None; one that was damaged is shown as empty."""
    if text is None:
        return None
    return decode_or_mark_damaged("", "", 0, text).body


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The head of the history's hash chain. A write replaces it together with what it writes, or writes nothing."""

    registry_id: str
    generation: int
    sequence: int = 0  # of the last entry; 0: there is none
    digest: str | None = None  # of the last entry; None: the history is not chained yet


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the history exactly as it is stored."""

    sequence: int  # 1, 2, 3 … without a gap; 0 in a store that has not numbered its old entries
    generation: int
    at: str
    author: str
    reason: str
    action: Literal["create", "update", "delete"]
    kind: str
    name: str
    revision: int
    before: str | None  # the stored text (JSON) of the document's body; None: there was none
    after: str | None
    previous: str | None = None  # the digest of the entry before; None in an entry from before the chain
    digest: str | None = None
    write_id: str | None = None  # of the write that made it, where the store keeps one

    def change(self) -> Change:
        """The entry as a Change, which the history shows to people."""
        return Change(
            generation=self.generation,
            at=self.at,
            author=self.author,
            reason=self.reason,
            action=self.action,
            kind=self.kind,
            name=self.name,
            revision=self.revision,
            before=decode_history_body(self.before),
            after=decode_history_body(self.after),
        )


class StoredDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A document exactly as it is stored. `body` is None where it was deleted."""

    kind: str
    name: str
    revision: int
    body: str | None
    generation: int | None = None  # that wrote it, where the store keeps it


class RegistryError(Exception):
    """A registry could not do what it was asked. The text is for an operator."""


class RegistryStoreDamaged(RegistryError):
    """The registry's store as a whole is damaged.

    Examples are another table, and a head that says nothing. It does not pass by itself. A single damaged document or entry
    does not raise it.
    """


class Conflict(RegistryError):
    """A write was refused: another writer was first. Nothing of the batch was written."""

    def __init__(self, kind: str, name: str, *, expected: int, actual: int) -> None:
        super().__init__(
            f"{kind}/{name} is at revision {actual}, not {expected}: somebody changed it meanwhile. "
            "Look at it again and repeat the change."
        )
        self.kind = kind
        self.name = name
        self.expected = expected
        self.actual = actual


class Unavailable(RegistryError):
    """The registry cannot be reached or read now. The same call may succeed later."""


class Registry(Protocol):
    """The interface of a registry.

    `gateway.testing.RegistryContractTests` checks an implementation. Any method may raise Unavailable. An opener
    (`open_registry(url)`) only checks the URL; the first method called connects.
    """

    async def load_mirrored(self) -> MirroredListing:
        """Load all mirrored documents at one generation. There is never half of a batch."""

    def watch(self, since: MirroredListing | None = None) -> AsyncIterator[MirroredListing | None]:
        """Watch the registry: yield its whole listing, and again after each change.

        Any process may make the change (SQLite: seen within half a second). None says "I have just looked, and nothing
        changed": it keeps the snapshot's age true at no cost. Changes may be merged; generations only grow. It ends by
        raising Unavailable, and then it may be called again.

        `since` is what the caller has already. A registry that is far away may use it to fetch only what is newer; what
        it yields is whole all the same.
        """

    async def read(self, kind: str, name: str) -> Document | None:
        """Read one document as it is now. None where there is none or it was deleted."""

    async def list(self, kind: str) -> tuple[Document, ...]:
        """All documents of a kind, by name."""

    async def write(
        self,
        *changes: Put | Delete,
        author: str,
        reason: str = "",
        preconditions: Sequence[Precondition] = (),
    ) -> Generation:
        """Write all of `changes` or none; return the new generation.

        A `load_mirrored` that follows shows that generation or a later one. Raises Conflict where a document, of `changes`
        or of `preconditions`, is not at its expected revision at the moment of the write.
        """

    async def history(
        self, *, kind: str | None = None, name: str | None = None, limit: int = 100
    ) -> tuple[Change, ...]:
        """The newest changes of the history. There are at most `limit`, newest first."""

    # -- ephemeral documents: what changes every few seconds (leases, figures), outside of the generation and the history

    async def list_ephemeral(self, kind: str) -> tuple[Document, ...]:
        """All ephemeral documents of a kind, by name. They are not those of `list`, even where kind and name are the same."""

    async def write_ephemeral(self, kind: str, name: str, body: dict[str, Any], *, expected: int) -> int:
        """Write one ephemeral document and return its new revision.

        The revision is one more than `expected` (0: there must be none). Raises Conflict. After Unavailable it may have been
        written.
        """

    async def delete_ephemeral(self, kind: str, name: str) -> None:
        """Delete one ephemeral document, if it is there. One that comes back begins at revision 1 again."""

    # What `chips audit` reads: docs/how-to/audit.md. `gateway.registry.hash_chain` makes the digests.

    async def head(self) -> Head:
        """The head of the history's hash chain.

        It is the number and digest of the last entry. Every write replaces it atomically with what it writes.
        """

    def history_entries_newest_first(self) -> AsyncIterator[Entry]:
        """Every entry of the history exactly as it is stored, from the newest to the oldest."""

    async def raw_documents_with_deleted(self, kind: str) -> tuple[StoredDocument, ...]:
        """Every document of a kind exactly as it is stored, with those that were deleted. They come in any order."""

    async def close(self) -> None: ...
