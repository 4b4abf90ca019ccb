"""Open the store to which gateways report their figures.

The figures are usage and rollout measurements. It is a store of its own, or the registry.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.registry.base import Registry
from gateway.registry.open_by_url import open_registry
from gateway.settings import Settings


@asynccontextmanager
async def open_figures_store(settings: Settings, registry: Registry) -> AsyncIterator[Registry]:
    """Open the store to which gateways report their figures. It is that of the setting rollouts.figures, or `registry`."""
    if not settings.rollouts.figures:
        yield registry
        return
    store = open_registry(settings.rollouts.figures)
    try:
        yield store
    finally:
        await store.close()
