"""The API keys in the fallback copy of the registry.

They are digests and permissions, without secrets or names (docs/adr/0011).
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from gateway.core.api_key_document import Key, parse_key
from gateway.registry.base import KEYS, MirroredListing, Registry
from gateway.registry.changes_since import newest_changes_since

MOST: Final = 10_000  # a million would make the copy large, and every start from it slow


class FallbackKeys(NamedTuple):
    """The API keys of a fallback copy, by digest.

    They are those changed most recently, as of a generation. Kept as JSON, because few of many are looked up.
    """

    registry_id: str
    generation: int
    documents: Mapping[str, bytes]

    def find(self, digest: str) -> Key | None:
        """Find the key with this digest. None where there is none. Raises ValueError where it cannot be read."""
        document = self.documents.get(digest)
        return None if document is None else parse_key(msgspec.json.decode(document, type=dict[str, object]))


NO_KEYS: Final = FallbackKeys("", -1, {})


async def update_fallback_keys(
    registry: Registry, listing: MirroredListing, before: FallbackKeys | None
) -> FallbackKeys:
    """Update the API keys of the fallback copy from the registry's history.

    Those kept `before` get the later changes up to `listing`. Listing all keys could take a million reads; so the
    history is read from its end.
    """
    if before is None or before.registry_id != listing.registry_id or before.generation > listing.generation:
        before = NO_KEYS
    documents: dict[str, bytes | None] = {}
    changes = await newest_changes_since(registry, before.generation, kind=KEYS, at_most=MOST)
    if len(changes) >= MOST:
        before = NO_KEYS  # what became of those is not told
    for change in changes:
        if change.name not in documents:  # the newest comes first
            documents[change.name] = None if change.after is None else _least(change.after)
    for digest, document in before.documents.items():
        documents.setdefault(digest, document)
    kept = [(digest, document) for digest, document in documents.items() if document is not None]
    return FallbackKeys(listing.registry_id, listing.generation, dict(kept[:MOST]))


def _least(body: Mapping[str, object]) -> bytes | None:
    """What authentication needs of a key; nothing of one that was revoked, or cannot be read."""
    try:
        key = parse_key(body)
    except ValueError:  # msgspec.ValidationError is one
        return None
    if key.revoked is not None:
        return None
    return msgspec.json.encode(msgspec.structs.replace(key, created_by="", note="", replaces=""))
