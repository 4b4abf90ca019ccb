"""The hash chain of the history: its canonical form, its links, and what it commits to."""

import hashlib
from typing import Any

import msgspec
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from gateway.registry import base
from gateway.registry.base import Entry, Head, StoredDocument
from gateway.registry.hash_chain import (
    Takeover,
    canonical_entry,
    canonical_json,
    entry_digest,
    seal,
    take_over_unchained_history,
)

HEAD = Head(registry_id="r1", generation=6, sequence=11, digest="ab" * 32)


def entry(**changes: Any) -> Entry:
    fields = {
        "sequence": 0,
        "generation": 7,
        "at": "2026-11-20T10:00:00.000Z",
        "author": "ana@example.com",
        "reason": "first",
        "action": "update",
        "kind": "models",
        "name": "wine",
        "revision": 3,
        "before": '{"n":1}',
        "after": '{"n":2}',
        **changes,
    }
    return Entry(**fields)


_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.dictionaries(st.from_regex(r"\A[a-z0-9_]+\Z"), st.one_of(_TEXT, st.none(), st.integers(0, 2**53 - 1)))
)
def test_the_canonical_form_is_that_of_rfc_8785(content: dict[str, Any]):
    assert canonical_json(content) == rfc8785.dumps(content)


def test_a_digest_can_be_made_by_anybody_who_reads_the_page():
    """Its form must never change: every history that was written would be taken for an edited one."""
    sealed, head = seal(entry(), HEAD)
    after, before = (hashlib.sha256(text).hexdigest() for text in (b'{"n":2}', b'{"n":1}'))
    text = (
        f'{{"action":"update","after_sha256":"{after}","at":"2026-11-20T10:00:00.000Z","author":"ana@example.com",'
        f'"before_sha256":"{before}","generation":7,"kind":"models","name":"wine","previous":"{"ab" * 32}",'
        '"reason":"first","registry":"r1","revision":3,"sequence":12,"write_id":null}'
    )
    assert sealed.digest == hashlib.sha256(text.encode()).hexdigest()
    assert sealed.digest == "4f2a94e3406b55015f9e8bbe511eac5a34811fb2b4d36ab0547edee5b73bec43"
    assert head == Head(registry_id="r1", generation=7, sequence=12, digest=sealed.digest)


def test_every_field_of_an_entry_is_in_its_digest():
    sealed, _ = seal(entry(), HEAD)
    for name in set(Entry.__struct_fields__) - {"digest"}:
        changed = {int: 99, str: "x", type(None): "x"}[type(getattr(sealed, name))]
        other = msgspec.structs.replace(sealed, **{name: changed})
        assert entry_digest(other, "r1") != sealed.digest, name
    assert entry_digest(sealed, "r2") != sealed.digest
    empty = msgspec.structs.replace(sealed, before=None)
    assert entry_digest(empty, "r1") != entry_digest(msgspec.structs.replace(empty, before=""), "r1")
    assert canonical_entry(sealed, "r1").keys() >= {"previous", "registry"}


def test_a_takeover_lists_the_documents_that_are_not_as_the_history_says():
    new, old = entry(revision=2, after='{"n":2}'), entry(name="beer", revision=1, before=None, after="{}")
    documents = [
        StoredDocument(kind="models", name="wine", revision=2, body='{"n":2}'),
        StoredDocument(kind="models", name="tea", revision=1, body="{}"),
    ]
    head = Head(registry_id="r1", generation=7)
    takeover, end = take_over_unchained_history(head, [new, old], documents)
    assert (takeover.entries, len(takeover.history_sha256)) == (2, 64)
    assert [(kind, name, revision) for kind, name, revision, _ in takeover.documents] == [
        ("models", "beer", 0),
        ("models", "tea", 1),
    ]
    assert end == Head(registry_id="r1", generation=7, sequence=2, digest="")
    assert (
        take_over_unchained_history(head, [old, new], documents)[0].history_sha256 != takeover.history_sha256
    )
    assert msgspec.convert(msgspec.to_builtins(takeover), Takeover) == takeover


def test_a_takeover_after_a_chained_part_follows_it():
    chained, end = seal(entry(), HEAD)
    takeover, follows = take_over_unchained_history(end, [entry(generation=8), chained], [])
    assert takeover.entries == 1
    assert (follows.sequence, follows.digest) == (chained.sequence + 1, chained.digest)


def test_every_kind_of_document_is_compared_by_the_audit():
    texts = {value for name, value in vars(base).items() if name.isupper() and isinstance(value, str)}
    assert texts - {base.SIGN_OFF_POLICY} == base.KINDS
