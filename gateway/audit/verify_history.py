"""Verify a registry's history by its hash chain.

The documents and the anchors are verified, too. This finds every entry that was edited, removed, moved or slipped in, and every
changed document. The chain is read from its head backwards, entry by entry, and what the documents hold now must be what the
entries say. Somebody who may write the database can compute a chain of their own; heads that were kept in an anchor store
(`gateway.audit.anchors`) show that.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from gateway.registry.base import (
    AUDIT,
    KINDS,
    Entry,
    Head,
    Registry,
    RegistryStoreDamaged,
    StoredDocument,
    Unavailable,
)
from gateway.registry.hash_chain import (
    GENESIS,
    TAKEOVER,
    Takeover,
    UnchainedEntriesDigest,
    entry_digest,
    text_digest,
)

_ATTEMPTS: Final = 10

What = Literal["edited", "missing", "broken", "unchained", "document", "anchor", "damaged"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong with the history. It also says where."""

    what: What
    sequence: int | None  # of the entry; None where it concerns none
    text: str


class AnchoredHead(msgspec.Struct, frozen=True, kw_only=True):
    """A head of the registry's history, as an anchor keeps it."""

    registry_id: str
    generation: int
    sequence: int
    digest: str
    at: str  # RFC 3339, UTC


class HistoryReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a check of the history. It says what was checked, up to where, and what is wrong."""

    head: Head
    entries: int
    chained: int  # of the entries
    findings: tuple[Finding, ...]
    anchors: int = 0
    anchored: int = 0  # the last entry for which the second place vouches


async def verify_history(
    registry: Registry, anchors: Sequence[AnchoredHead] = (), *, registry_id: str = ""
) -> HistoryReport:
    """Verify the registry's whole history.

    Every document and every anchored head is verified, too, as of one moment. Raises RegistryError.

    `registry_id` is that of the registry that must be there; empty: it is not known.
    """
    try:
        return await _verify(registry, anchors, registry_id)
    except RegistryStoreDamaged as error:  # so much so that there is no history to be read
        finding = Finding(what="damaged", sequence=None, text=str(error))
        return HistoryReport(
            head=Head(registry_id="", generation=0),
            entries=0,
            chained=0,
            findings=(finding,),
            anchors=len(anchors),
        )


async def _verify(registry: Registry, anchors: Sequence[AnchoredHead], registry_id: str) -> HistoryReport:
    for _ in range(_ATTEMPTS):
        head = await registry.head()
        findings = _check_id(head, registry_id)
        chain, documents = _Chain(head, findings), _Documents(findings)
        at_anchors = dict.fromkeys((anchor.sequence for anchor in anchors), "")
        kinds = set(KINDS)
        async for entry in registry.history_entries_newest_first():
            kinds.add(entry.kind)
            takeover = chain.take(entry)
            documents.take(entry, chained=chain.is_inside)
            if takeover is not None:
                documents.take_over(takeover)
            if entry.sequence in at_anchors:
                at_anchors[entry.sequence] = entry.digest or ""
        stored = [one for kind in sorted(kinds) for one in await registry.raw_documents_with_deleted(kind)]
        if await registry.head() != head:
            continue  # somebody wrote meanwhile: what was read is of several moments
        if head.digest is not None:
            chain.finish()
            documents.finish(stored)
        anchored = _check_anchors(head, anchors, at_anchors, findings)
        return HistoryReport(
            head=head,
            entries=chain.entries,
            chained=chain.chained,
            findings=tuple(findings),
            anchors=sum(anchor.registry_id == head.registry_id for anchor in anchors),
            anchored=anchored,
        )
    raise Unavailable("others keep writing to the registry: its history could not be read as of one moment")


class _Chain:
    """The links between the entries, which `take` gets from the newest to the oldest."""

    def __init__(self, head: Head, findings: list[Finding]) -> None:
        self._head = head
        self._findings = findings
        self._sequence = head.sequence  # of the entry that comes next
        self._digest: str | None = head.digest  # of the entry that comes next
        self._generation: int | None = head.generation  # of the entry that was last, or the head
        self._takeover: Takeover | None = None  # that the entries which come next must fit
        self._unchained = UnchainedEntriesDigest(head.registry_id)
        self.entries = self.chained = 0
        self.is_inside = False  # whether the entry that was taken last belongs to the chain
        if head.digest is None:
            self._tell("unchained", None, "the history is not a hash chain yet; the next write makes it one")

    def take(self, entry: Entry) -> Takeover | None:
        """Returns what the entry has taken over, where it is such a one."""
        self.entries += 1
        self.is_inside = self._head.digest is not None and self._takeover is None
        if self.is_inside:
            return self._take_link(entry)
        if self._takeover is not None:
            self._unchained.take(entry)
            if entry.digest is not None or entry.previous is not None:
                self._tell("edited", entry.sequence, f"{_name(entry)} is from before the chain, but linked")
            if entry.sequence not in {0, self._sequence}:
                self._tell("broken", entry.sequence, f"{_name(entry)} is not where it belongs")
            self._sequence -= 1
            self._end_takeover()
        return None

    def _take_link(self, entry: Entry) -> Takeover | None:
        self.chained += 1
        sequence = entry.sequence
        if entry.digest is None:
            self._tell("unchained", sequence, f"{_name(entry)} is not part of the chain")
        elif entry.digest != entry_digest(entry, self._head.registry_id):
            self._tell("edited", sequence, f"{_name(entry)} is not as it was written")
        if sequence < self._sequence:
            gap = f"{sequence + 1} to {self._sequence}" if sequence + 1 < self._sequence else self._sequence
            self._tell("missing", self._sequence, f"missing: entry {gap}")
        elif sequence > self._sequence:
            self._tell("broken", sequence, f"{_name(entry)} is not where it belongs")
        if entry.digest != self._digest:
            later = "the head" if self.chained == 1 else f"entry {self._sequence + 1}"
            self._tell("broken", sequence, f"{later} does not follow {_name(entry)}: another one was there")
        self._check_generation(entry)
        self._sequence, self._digest = sequence - 1, entry.previous
        if (entry.kind, entry.name) != (AUDIT, TAKEOVER):
            return None
        return self._begin_takeover(entry)

    def _check_generation(self, entry: Entry) -> None:
        if self._generation is not None:
            allowed = {self._generation} if self.chained == 1 else {self._generation, self._generation - 1}
            if entry.generation not in allowed:
                self._tell(
                    "missing",
                    entry.sequence,
                    f"{_name(entry)} stands before generation {self._generation}",
                )
        self._generation = entry.generation

    def _begin_takeover(self, entry: Entry) -> Takeover | None:
        try:
            takeover = msgspec.json.decode(entry.after or "", type=Takeover)
        except (msgspec.MsgspecError, RecursionError):
            self._tell("edited", entry.sequence, f"{_name(entry)} does not say what it has taken over")
            return None
        if entry.previous != GENESIS:
            self._tell(
                "unchained",
                entry.sequence,
                f"an older release of CHIPS wrote {takeover.entries} entries past the chain, before {_name(entry)}",
            )
        self._takeover, self._generation = takeover, None
        self._unchained = UnchainedEntriesDigest(self._head.registry_id)
        self._end_takeover()
        return takeover

    def _end_takeover(self) -> None:
        takeover = self._takeover
        if takeover is None or self._unchained.entries < takeover.entries:
            return
        if self._unchained.hexdigest() != takeover.history_sha256:
            self._tell(
                "edited",
                None,
                f"the {takeover.entries} entries from before the chain are not those that were taken over",
            )
        self._takeover = None

    def finish(self) -> None:
        if self._takeover is not None:
            self._tell(
                "missing",
                None,
                f"{self._takeover.entries} entries from before the chain were taken over, "
                f"{self._unchained.entries} are there",
            )
        elif self._sequence > 0:
            self._tell("missing", 1, f"missing: the entries up to {self._sequence}")
        elif self._digest != GENESIS:
            self._tell("broken", 1, "the chain does not begin with its first entry")
        if (self._generation or 0) > 1:
            self._tell("missing", 1, f"the first entry is of generation {self._generation}, not 1")

    def _tell(self, what: What, sequence: int | None, text: str) -> None:
        self._findings.append(Finding(what=what, sequence=sequence, text=text))


class _State(NamedTuple):
    """A document at one moment."""

    revision: int
    digest: str | None  # of its body; None: it was deleted


_NOTHING: Final = _State(0, None)


class _Documents:
    """What the entries say that each document was, against how the next entry found it, and what is stored now."""

    def __init__(self, findings: list[Finding]) -> None:
        self._findings = findings
        self._current: dict[tuple[str, str], tuple[_State, Entry | None]] = {}
        self._as_found: dict[tuple[str, str], tuple[_State, Entry]] = {}  # by the entry that came next

    def take(self, entry: Entry, *, chained: bool) -> None:
        """The next older entry. One from before the chain tells how a document was left, and is not questioned."""
        key = (entry.kind, entry.name)
        self._leave(key, _State(entry.revision, text_digest(entry.after)), entry)
        if chained:
            self._as_found[key] = (_State(entry.revision - 1, text_digest(entry.before)), entry)

    def take_over(self, takeover: Takeover) -> None:
        """Documents that were not as the older entries say when the chain began."""
        for kind, name, revision, digest in takeover.documents:
            self._leave((kind, name), _State(revision, digest), None)

    def _leave(self, key: tuple[str, str], left: _State, entry: Entry | None) -> None:
        self._current.setdefault(key, (left, entry))
        found = self._as_found.pop(key, None)
        if found is not None and found[0] != left:
            self._tell(found[1], f"{key[0]}/{key[1]} was changed past the history before {_name(found[1])}")

    def finish(self, stored: Iterable[StoredDocument]) -> None:
        for (kind, name), (found, later) in self._as_found.items():
            if found != _NOTHING:
                self._tell(later, f"{kind}/{name} is created by no entry before {_name(later)}")
        seen = set()
        for document in stored:
            key = (document.kind, document.name)
            if key in seen:
                self._tell(None, f"{key[0]}/{key[1]} is stored twice")
            seen.add(key)
            said, entry = self._current.get(key, (_NOTHING, None))
            is_said = said == (document.revision, text_digest(document.body))
            if entry is not None and document.generation is not None:
                is_said = is_said and document.generation == entry.generation
            if not is_said:
                self._tell(entry, f"{key[0]}/{key[1]} is not what the history says: it was written past it")
        for key, (said, entry) in self._current.items():
            if key not in seen and said != _NOTHING:
                self._tell(entry, f"{key[0]}/{key[1]} was removed past the history")

    def _tell(self, entry: Entry | None, text: str) -> None:
        sequence = entry.sequence if entry is not None else None
        self._findings.append(Finding(what="document", sequence=sequence, text=text))


def _check_id(head: Head, registry_id: str) -> list[Finding]:
    """Somebody who may write the database can put a whole other registry in the place of this one."""
    if registry_id in {"", head.registry_id}:
        return []
    text = f"this is the registry {head.registry_id}, not {registry_id} as audit.registry_id says: it was replaced"
    return [Finding(what="anchor", sequence=None, text=text)]


def _check_anchors(
    head: Head, anchors: Sequence[AnchoredHead], at_anchors: dict[int, str], findings: list[Finding]
) -> int:
    """Compare the chain with what the second place knows; return the last entry that it vouches for."""
    anchored = 0
    known = {anchor.registry_id for anchor in anchors}
    if known and head.registry_id not in known:
        text = (
            f"the second place knows the registry {', '.join(sorted(known))}, and this is {head.registry_id}"
        )
        findings.append(Finding(what="anchor", sequence=None, text=text))
    for anchor in anchors:
        problem = ""
        if anchor.registry_id != head.registry_id:
            continue  # of another environment that shares the second place
        if anchor.sequence > head.sequence:
            problem = (
                f"the history ends with entry {head.sequence}; on {anchor.at} it had entry {anchor.sequence}"
            )
        elif at_anchors[anchor.sequence] != anchor.digest and anchor.sequence:
            problem = f"entry {anchor.sequence} is not the one that was there on {anchor.at}"
        if problem:
            findings.append(Finding(what="anchor", sequence=anchor.sequence, text=problem))
        else:
            anchored = max(anchored, anchor.sequence)
    return anchored


def _name(entry: Entry) -> str:
    number = f"entry {entry.sequence}" if entry.sequence else "the entry without a number"
    return f"{number} ({entry.kind}/{entry.name}, generation {entry.generation})"
