"""The rollout of a model, for its page in the console."""

from typing import Any

from gateway.registry.base import Registry, RegistryError
from gateway.registry.snapshot import Snapshot
from gateway.rollout.status_summary import read_rollout_status


async def rollout_document(registry: Registry, snapshot: Snapshot | None, name: str) -> dict[str, Any] | None:
    """The document of a model's last rollout.

    The evidence is part of it. None where there is no rollout, or the registry does not answer.
    """
    rollout = snapshot.rollouts.get(name) if snapshot is not None else None
    if snapshot is None or rollout is None:
        return None
    entry = snapshot.entries.get(name)
    try:
        return await read_rollout_status(registry, rollout, entry.model if entry is not None else None)
    except RegistryError:
        return None
