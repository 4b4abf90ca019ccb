"""Placeholders for damaged records of a registry, so that reading them never fails.

No registry writes such records: values of another type, text that is not UTF-8, rows without a name. Somebody with the
database's rights can put anything there. A reader of the data plane gets a document with a `problem`; the audit gets
placeholders that fit no digest, so that each becomes a finding.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from gateway.registry.base import Document, Entry, StoredDocument, decode_or_mark_damaged

DAMAGED: Final = "not as a registry writes it"
# Stands for what lies in the history and is no entry.
DAMAGED_ENTRY: Final = Entry(
    sequence=0,
    generation=0,
    at="",
    author="",
    reason=DAMAGED,
    action="update",
    kind="",
    name="",
    revision=0,
    before=None,
    after=None,
)


class StoredValues(NamedTuple):
    """The revision and body of a stored document, or the problem with it. `body` is None where the document was deleted."""

    revision: int
    body: str | None
    problem: str = ""  # why they are not what was stored


def values_or_problem(revision: object, body: object) -> StoredValues:
    """The stored values, or placeholders for damaged ones with the problem."""
    problem = ""
    if not isinstance(revision, int) or revision < 1:
        revision, problem = 1, "its revision is not a whole number"
    if not (body is None or isinstance(body, str)):
        body, problem = "{}", "its body is not JSON text"
    return StoredValues(revision, body, problem)


def document_or_mark_damaged(kind: object, name: object, revision: object, body: object) -> Document | None:
    """The document in these stored values, with its `problem` where they are damaged. None where it was deleted."""
    stored = values_or_problem(revision, body)
    if stored.body is None:
        return None
    document = decode_or_mark_damaged(_text(kind), _text(name), stored.revision, stored.body)
    problem = stored.problem
    if not (isinstance(kind, str) and isinstance(name, str)):
        problem = "its kind or name is not text"
    return msgspec.structs.replace(document, body={}, problem=problem) if problem else document


def stored_document_or_placeholder(
    kind: object, name: object, revision: object, body: object
) -> StoredDocument:
    """The document in these values, exactly as it is stored, or a placeholder for a damaged one.

    A placeholder has a body that no registry writes.
    """
    stored = values_or_problem(revision, body)
    if stored.problem or not (isinstance(kind, str) and isinstance(name, str)):
        return StoredDocument(kind=_text(kind), name=_text(name), revision=0, body=DAMAGED)
    return StoredDocument(kind=kind, name=name, revision=stored.revision, body=stored.body)


def entry_from_values(values: Mapping[str, Any]) -> Entry | None:
    """The entry of the history in these stored values. None where they are none."""
    try:
        return msgspec.convert(values, Entry)
    except msgspec.ValidationError:
        return None


def is_damaged_entry(entry: Entry) -> bool:
    """Whether an entry stands for a damaged one. No registry writes one without a kind."""
    return not entry.kind


def _text(value: object) -> str:
    return value if isinstance(value, str) else repr(value)
