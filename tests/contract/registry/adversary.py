"""Somebody who may write the database itself: one change of all that lies there, drawn at random.

A change may be clumsy (one field) or careful: all later digests computed again, head and documents made to fit.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gateway.registry.base import AUDIT, MODELS, Delete, Entry, Head, Put, Registry, StoredDocument
from gateway.registry.hash_chain import GENESIS, TAKEOVER, entry_digest, seal, take_over_unchained_history

Key = tuple[str, str]


@dataclass
class State:
    """Everything that a registry keeps. `entries` come from the oldest to the newest."""

    head: Head
    entries: list[Entry]
    documents: dict[Key, StoredDocument]

    def copy(self) -> "State":
        return State(self.head, list(self.entries), dict(self.documents))


@dataclass
class Adversary:
    rng: random.Random
    tried: dict[str, int] = field(default_factory=dict)

    def tamper(self, base: State) -> tuple[str, State]:
        """What was done, and what lies there then; it differs from `base`."""
        while True:
            change = self.rng.choice(_CHANGES)
            state = base.copy()
            change(self, state)
            if state != base:
                name = change.__name__.lstrip("_")
                self.tried[name] = self.tried.get(name, 0) + 1
                return name, state

    def some(self, state: State) -> int:
        return self.rng.randrange(len(state.entries))

    def other_text(self, text: str | None) -> str | None:
        return self.rng.choice(
            [
                f"{text or ''} ",
                '{"owner":"mallory"}',
                "",
                None if text is not None else "{}",
                text and text[:-1],
            ]
        )

    def edited(self, entry: Entry) -> Entry:
        name = self.rng.choice([n for n in Entry.__struct_fields__ if n not in {"sequence", "digest"}])
        value: Any = getattr(entry, name)
        if name in {"before", "after", "previous"}:
            value = self.other_text(value)
        elif name == "action":
            value = self.rng.choice(["create", "update", "delete"])
        elif isinstance(value, int):
            value = max(1, value + self.rng.choice([-1, 1, 10**6]))
        elif isinstance(value, str):
            value = self.rng.choice([value + "x", "mallory", ""])
        return msgspec.structs.replace(entry, **{name: value})


def _edit_an_entry(who: Adversary, state: State) -> None:
    i = who.some(state)
    state.entries[i] = who.edited(state.entries[i])


def _edit_an_entry_and_its_digest(who: Adversary, state: State) -> None:
    i = who.some(state)
    entry = who.edited(state.entries[i])
    state.entries[i] = msgspec.structs.replace(entry, digest=entry_digest(entry, state.head.registry_id))


def _edit_a_digest(who: Adversary, state: State) -> None:
    i = who.some(state)
    digest = who.rng.choice(["", "0" * 64, state.entries[who.some(state)].digest])
    state.entries[i] = msgspec.structs.replace(state.entries[i], digest=digest)


def _remove_entries(who: Adversary, state: State) -> None:
    i = who.some(state)
    del state.entries[i : i + who.rng.choice([1, 1, 2, 5])]


def _swap_two_entries(who: Adversary, state: State) -> None:
    i, j = who.some(state), who.some(state)
    a, b = state.entries[i], state.entries[j]
    keep = ("sequence", "generation")
    state.entries[i] = msgspec.structs.replace(b, **{n: getattr(a, n) for n in keep})
    state.entries[j] = msgspec.structs.replace(a, **{n: getattr(b, n) for n in keep})


def _insert_an_entry(who: Adversary, state: State) -> None:
    i = who.some(state)
    copied = state.entries[i]
    sequence = len(state.entries) + 1 if who.rng.random() < 0.5 else copied.sequence
    generation = copied.generation + who.rng.choice([0, 1, 100])
    new = msgspec.structs.replace(copied, sequence=sequence, generation=generation, author="mallory")
    if sequence == copied.sequence:
        state.entries[i + 1 :] = [
            msgspec.structs.replace(entry, sequence=entry.sequence + 1) for entry in state.entries[i + 1 :]
        ]
        state.entries.insert(i, new)
        state.entries[i + 1] = msgspec.structs.replace(copied, sequence=copied.sequence + 1)
    else:
        state.entries.append(new)


def _edit_a_document(who: Adversary, state: State) -> None:
    key = who.rng.choice(sorted(state.documents))
    document = state.documents[key]
    if who.rng.random() < 0.3:
        changed = msgspec.structs.replace(document, revision=document.revision + who.rng.choice([1, 5]))
    else:
        changed = msgspec.structs.replace(document, body=who.other_text(document.body))
    state.documents[key] = changed


def _remove_a_document(who: Adversary, state: State) -> None:
    del state.documents[who.rng.choice(sorted(state.documents))]


def _add_a_document(who: Adversary, state: State) -> None:
    kind = who.rng.choice(["models", "keys", "revocations", "networks"])
    body = who.rng.choice(["{}", '{"label":"mallory","models":["*"]}'])
    state.documents[kind, "added"] = StoredDocument(kind=kind, name="added", revision=1, body=body)


def _bring_back_a_document(who: Adversary, state: State) -> None:
    key = who.rng.choice(sorted(k for k, one in state.documents.items() if one.body is None))
    state.documents[key] = msgspec.structs.replace(state.documents[key], body="{}")


def _edit_the_head(who: Adversary, state: State) -> None:
    head = state.head
    changes: dict[str, Any] = who.rng.choice(
        [
            {"generation": head.generation + 1},
            {"generation": head.generation - 1},
            {"sequence": head.sequence + 1},
            {"sequence": head.sequence - 1},
            {"digest": "0" * 64},
            {"digest": state.entries[-2].digest},
            {"registry_id": "0" * 32},
        ]
    )
    state.head = msgspec.structs.replace(head, **changes)


def _chain_again(state: State, first: int) -> None:
    """Compute all digests from entry number `first` (from 0) on, and make the head fit."""
    before = state.entries[first - 1] if first else None
    head = Head(
        registry_id=state.head.registry_id,
        generation=0,
        sequence=before.sequence if before is not None else 0,
        digest=(before.digest or GENESIS) if before is not None else GENESIS,
    )
    for i in range(first, len(state.entries)):
        state.entries[i], head = seal(state.entries[i], head)
    state.head = head


def _first_chained(state: State) -> int:
    return next(i for i, entry in enumerate(state.entries) if entry.digest is not None)


def _careful_edit(who: Adversary, state: State) -> None:
    """An entry, all that follows, and the document: the database alone does not show it."""
    first = _first_chained(state)
    i = who.rng.randrange(first, len(state.entries))
    entry = state.entries[i]
    author = who.rng.random() < 0.5
    if author or entry.kind == AUDIT or entry.after is None:
        state.entries[i] = msgspec.structs.replace(entry, author="mallory")
    else:
        after = entry.after[:-1] + ',"x":1}' if len(entry.after) > 2 else '{"x":1}'
        state.entries[i] = msgspec.structs.replace(entry, after=after)
        later = [j for j in range(i + 1, len(state.entries)) if _key(state.entries[j]) == _key(entry)]
        if later:
            state.entries[later[0]] = msgspec.structs.replace(state.entries[later[0]], before=after)
        else:
            state.documents[_key(entry)] = msgspec.structs.replace(state.documents[_key(entry)], body=after)
    _chain_again(state, max(i, first))


def _truncate(who: Adversary, state: State) -> None:
    """Go back to an earlier state, as if the rest had never been."""
    keep = who.rng.randrange(_first_chained(state) + 1, len(state.entries))
    while state.entries[keep].generation == state.entries[keep - 1].generation:
        keep -= 1
    del state.entries[keep:]
    last = state.entries[-1]
    state.head = Head(
        registry_id=state.head.registry_id,
        generation=last.generation,
        sequence=last.sequence,
        digest=last.digest,
    )
    state.documents = documents_of(state.entries, state.documents)


def _fork(who: Adversary, state: State) -> None:
    """Go back, and go on with another line of the same length."""
    length = len(state.entries)
    _truncate(who, state)
    while len(state.entries) < length:
        n = len(state.entries)
        entry = Entry(
            sequence=0,
            generation=state.head.generation + 1,
            at="2026-11-20T10:00:00.000Z",
            author="mallory",
            reason="",
            action="create",
            kind=MODELS,
            name=f"forked-{n}",
            revision=1,
            before=None,
            after="{}",
        )
        sealed, state.head = seal(entry, state.head)
        state.entries.append(sealed)
        state.documents[_key(entry)] = StoredDocument(
            kind=MODELS, name=entry.name, revision=1, body="{}", generation=entry.generation
        )


def _launder(who: Adversary, state: State) -> None:
    """Strip the chain, edit, and have CHIPS take it over as if an older release had written it."""
    i = who.some(state)
    plain = {"previous": None, "digest": None}
    state.entries = [msgspec.structs.replace(entry, **plain) for entry in state.entries]
    state.entries[i] = msgspec.structs.replace(state.entries[i], author="mallory")
    head = Head(registry_id=state.head.registry_id, generation=state.head.generation)
    takeover, end = take_over_unchained_history(head, reversed(state.entries), state.documents.values())
    body = msgspec.json.encode(takeover).decode()
    was = state.documents.get((AUDIT, TAKEOVER))
    entry = Entry(
        sequence=0,
        generation=end.generation + 1,
        at="2026-11-20T10:00:00.000Z",
        author="chips",
        reason="",
        action="update" if was else "create",
        kind=AUDIT,
        name=TAKEOVER,
        revision=was.revision + 1 if was else 1,
        before=was.body if was else None,
        after=body,
    )
    sealed, state.head = seal(entry, end)
    state.entries.append(sealed)
    state.documents[AUDIT, TAKEOVER] = StoredDocument(
        kind=AUDIT, name=TAKEOVER, revision=sealed.revision, body=body, generation=sealed.generation
    )


_CHANGES: list[Callable[[Adversary, State], None]] = [
    _edit_an_entry,
    _edit_an_entry_and_its_digest,
    _edit_a_digest,
    _remove_entries,
    _swap_two_entries,
    _insert_an_entry,
    _edit_a_document,
    _remove_a_document,
    _add_a_document,
    _bring_back_a_document,
    _edit_the_head,
    _careful_edit,
    _truncate,
    _fork,
    _launder,
]
CHANGES = frozenset(change.__name__.lstrip("_") for change in _CHANGES)


def _key(entry: Entry) -> Key:
    return entry.kind, entry.name


def documents_of(entries: list[Entry], known: dict[Key, StoredDocument]) -> dict[Key, StoredDocument]:
    """What the documents are after `entries`."""
    return {
        _key(entry): StoredDocument(
            kind=entry.kind,
            name=entry.name,
            revision=entry.revision,
            body=entry.after,
            generation=entry.generation if any(one.generation for one in known.values()) else None,
        )
        for entry in entries
    }


async def write_some(registry: Registry, rng: random.Random, writes: int) -> None:
    """A life: models that come, change, go and come back, keys, batches."""
    for number in range(writes):
        known = {one.name: one for one in await registry.list(MODELS)}
        name = rng.choice(["wine", "beer", "tea", "mate"])
        was = known.get(name)
        changes: list[Put | Delete] = []
        if was is not None and rng.random() < 0.3:
            changes.append(Delete(kind=MODELS, name=name, expected=was.revision))
        else:
            expected = was.revision if was is not None else 0
            changes.append(Put(kind=MODELS, name=name, body={"name": name, "n": number}, expected=expected))
        if rng.random() < 0.3:
            changes.append(Put(kind="keys", name=f"k{number}", body={"label": "ü"}, expected=0))
        await registry.write(*changes, author=rng.choice(["ana", "bea"]), reason=f"number {number}")
    for name in ("gone", "gone too"):  # so that there is something to bring back
        await registry.write(Put(kind=MODELS, name=name, body={}, expected=0), author="ana")
        await registry.write(Delete(kind=MODELS, name=name, expected=1), author="ana")
