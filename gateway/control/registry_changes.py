"""Recent changes in the registry for the console, newest first. Each has a readable difference."""

import asyncio
from itertools import chain
from typing import Any, Final

from gateway.core.api_keys import key_id
from gateway.core.errors import RegistryUnavailable
from gateway.core.model_updates import differences
from gateway.registry.base import (
    KEYS,
    MODELS,
    NETWORKS,
    REVOCATIONS,
    ROLLOUTS,
    SHADOWS,
    Change,
    Registry,
    RegistryError,
)
from gateway.registry.mask_change import mask_change

# When keys were last used is written, too, so often that it would hide all else.
KINDS: Final = (MODELS, ROLLOUTS, SHADOWS, NETWORKS, KEYS, REVOCATIONS)


async def recent_changes(
    registry: Registry, *, kind: str = "", name: str | None = None, limit: int = 100
) -> dict[str, Any]:
    """The registry's newest changes as JSON values.

    There are `limit` at most. They are of the kinds in `KINDS`, or of one of them.
    """
    kinds = (kind,) if kind else (MODELS,) if name else KINDS
    try:
        found = await asyncio.gather(
            *(registry.history(kind=each, name=name, limit=limit + 1) for each in kinds)
        )
    except RegistryError as error:
        raise RegistryUnavailable("The registry does not answer, so its history cannot be shown.") from error
    newest = sorted(
        chain.from_iterable(found), key=lambda change: (-change.generation, change.kind, change.name)
    )
    return {
        "changes": [_document(mask_change(change)) for change in newest[:limit]],
        "more": len(newest) > limit,
    }


def _document(change: Change) -> dict[str, Any]:
    secret = change.kind in {KEYS, REVOCATIONS}  # its name is a key's digest
    return {
        "generation": change.generation,
        "at": change.at,
        "author": change.author,
        "reason": change.reason,
        "action": change.action,
        "kind": change.kind,
        "name": key_id(change.name) if secret else change.name,
        "label": str((change.after or change.before or {}).get("label", "")) if secret else "",
        "network": str((change.after or change.before or {}).get("network", "")),
        "revision": change.revision,
        "differences": [
            {"path": path, "before": before, "after": after}
            for path, before, after in differences(change.before, change.after)
        ],
    }
