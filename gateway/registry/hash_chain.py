"""The registry's history as a hash chain.

Each entry holds the digest of the entry before it. An entry's digest is the SHA-256 of its canonical form: a JSON object of
texts and whole numbers in the form of RFC 8785 (JCS). Bodies stand in it by the SHA-256 of their stored text, so that an export
may leave a body out and still be checked, and so that no number of a body depends on how a reader rounds it.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

from gateway.registry.base import Conflict, Delete, Entry, Head, Precondition, Put, StoredDocument

TAKEOVER: Final = "takeover"  # the name of the entry that commits to a history from before the chain
TAKEOVER_REASON: Final = "the history is a hash chain from here on"
GENESIS: Final = ""  # what the first entry holds as the digest of the one before it


class Takeover(msgspec.Struct, frozen=True, kw_only=True):
    """The record of an older history that was taken over into the hash chain.

    It is the body of the entry with which that history becomes a chain. It commits to everything before it that is not chained.
    """

    entries: int  # how many
    history_sha256: str  # of their canonical forms, a line each, the newest first
    # Kind, name, revision and SHA-256 of each document that differed from what the history says of it.
    documents: tuple[tuple[str, str, int, str | None], ...] = ()


def text_digest(text: str | None) -> str | None:
    """The SHA-256 of a stored body, in hexadecimal. None for None."""
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()


def canonical_json(content: dict[str, Any]) -> bytes:
    """Canonical JSON (RFC 8785) of an object.

    The object holds texts, whole numbers below 2⁵³ and null, with names in ASCII.

    Python's encoder writes exactly that form for these values; a test compares it with a library for the RFC.
    """
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def canonical_entry(entry: Entry, registry_id: str) -> dict[str, Any]:
    """The canonical form of `entry`. Its digest is made of it."""
    return {
        "registry": registry_id,
        "sequence": entry.sequence,
        "previous": entry.previous,
        "generation": entry.generation,
        "at": entry.at,
        "author": entry.author,
        "reason": entry.reason,
        "action": entry.action,
        "kind": entry.kind,
        "name": entry.name,
        "revision": entry.revision,
        "before_sha256": text_digest(entry.before),
        "after_sha256": text_digest(entry.after),
        "write_id": entry.write_id,
    }


def entry_digest(entry: Entry, registry_id: str) -> str:
    """The digest of an entry. It is in hexadecimal; `entry` must hold it."""
    return hashlib.sha256(canonical_json(canonical_entry(entry, registry_id))).hexdigest()


def check_expected(change: Put | Delete | Precondition, revision: int, before: str | None) -> None:
    """Check that the stored document has the revision that `change` expects.

    Raises Conflict where it does not. None is a deleted document, or none; both are expected as 0.
    """
    actual = revision if before is not None else 0
    if actual != change.expected:
        raise Conflict(change.kind, change.name, expected=change.expected, actual=actual)


def entry_of_change(
    change: Put | Delete,
    revision: int,
    before: str | None,
    after: str | None,
    *,
    generation: int,
    at: str,
    author: str,
    reason: str,
    write_id: str | None = None,
) -> Entry:
    """The history entry of a change of a document.

    The change goes from `revision` and its text to the next one. `seal` gives the entry its number.
    """
    return Entry(
        sequence=0,
        generation=generation,
        at=at,
        author=author,
        reason=reason,
        action="delete" if after is None else "create" if before is None else "update",
        kind=change.kind,
        name=change.name,
        revision=revision + 1,
        before=before,
        after=after,
        write_id=write_id,
    )


def seal(entry: Entry, head: Head) -> tuple[Entry, Head]:
    """Append `entry` to the hash chain. Returns it as chained, and the new head. The entry gets its number and digests."""
    numbered = msgspec.structs.replace(
        entry, sequence=head.sequence + 1, previous=GENESIS if head.digest is None else head.digest
    )
    sealed = msgspec.structs.replace(numbered, digest=entry_digest(numbered, head.registry_id))
    return sealed, Head(
        registry_id=head.registry_id,
        generation=entry.generation,
        sequence=sealed.sequence,
        digest=sealed.digest,
    )


class UnchainedEntriesDigest:
    """The digest of the history's entries that are not chained. `take` them from the newest to the oldest."""

    def __init__(self, registry_id: str) -> None:
        self._registry_id = registry_id
        self._sum = hashlib.sha256()
        self.entries = 0

    def take(self, entry: Entry) -> None:
        plain = msgspec.structs.replace(entry, sequence=0, previous=None)
        self._sum.update(canonical_json(canonical_entry(plain, self._registry_id)) + b"\n")
        self.entries += 1

    def hexdigest(self) -> str:
        return self._sum.hexdigest()


class TakeoverAndPreviousHead(NamedTuple):
    """A takeover, and the head that its entry must follow."""

    takeover: Takeover
    previous_head: Head


def take_over_unchained_history(
    head: Head, entries: Iterable[Entry], documents: Iterable[StoredDocument]
) -> TakeoverAndPreviousHead:
    """Take an older history over into the hash chain: commit to its entries that are not chained.

    Returns the takeover, which commits to that history, and the head that the takeover's entry must follow.

    `entries` come from the newest to the oldest. A part that is not chained may follow one that is: an older release wrote
    it. `documents` count where they differ from what the entries say.
    """
    digest = UnchainedEntriesDigest(head.registry_id)
    last: Entry | None = None  # the newest that is chained
    latest: dict[tuple[str, str], tuple[int, str | None]] = {}
    for entry in entries:
        if last is None and entry.digest is None:
            digest.take(entry)
        else:
            last = last or entry
        latest.setdefault((entry.kind, entry.name), (entry.revision, text_digest(entry.after)))
    differing = []
    for document in documents:
        state = (document.revision, text_digest(document.body))
        if latest.pop((document.kind, document.name), None) != state:
            differing.append((document.kind, document.name, *state))
    differing += [(kind, name, 0, None) for kind, name in latest]
    takeover = Takeover(
        entries=digest.entries, history_sha256=digest.hexdigest(), documents=tuple(sorted(differing))
    )
    before = last.sequence if last is not None else 0
    return TakeoverAndPreviousHead(
        takeover,
        Head(
            registry_id=head.registry_id,
            generation=head.generation,
            sequence=before + digest.entries,
            digest=last.digest if last is not None else GENESIS,
        ),
    )
