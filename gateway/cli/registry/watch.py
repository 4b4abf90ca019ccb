"""`chips watch`: show changes in the registry live."""

import asyncio
import sys

import msgspec

from gateway.cli.registry.history import print_change
from gateway.cli.support import console
from gateway.registry.base import MODELS, MirroredListing, Registry, Unavailable
from gateway.registry.changes_since import newest_changes_since
from gateway.registry.mask_change import mask_change

_AGAIN_S = 1.0
_CATCH_UP = 1000


def watch(registry_url: console.RegistryOption = None, as_json: console.JsonOption = False) -> None:
    """Show every change of the registry as it is made.

    Author and reason come with it; Ctrl-C ends it. `--json` prints a line of JSON for each change.

    Example: `chips watch`
    """
    console.with_registry(registry_url, lambda registry: _watch(registry, as_json=as_json))


async def _watch(registry: Registry, *, as_json: bool) -> None:
    seen: MirroredListing | None = None
    while True:
        try:
            async for listing in registry.watch(seen):
                if listing is None:
                    continue
                if seen is None:
                    _begin(listing, as_json=as_json)
                elif seen.registry_id != listing.registry_id or listing.generation < seen.generation:
                    console.err.print(
                        "the registry is another one now, or an older state of it", style="yellow"
                    )
                    _begin(listing, as_json=as_json)
                elif listing.generation > seen.generation:
                    await _tell(registry, seen.generation, as_json=as_json)
                seen = listing
        except Unavailable as error:
            console.err.print(f"{error}; trying again", style="yellow")
            await asyncio.sleep(_AGAIN_S)


def _begin(listing: MirroredListing, *, as_json: bool) -> None:
    models = sum(document.kind == MODELS for document in listing.documents)
    if as_json:
        _line({"registry_id": listing.registry_id, "generation": listing.generation, "models": models})
    else:
        console.say("watching", f"generation {listing.generation}, {models} models; stop with Ctrl-C")


async def _tell(registry: Registry, since: int, *, as_json: bool) -> None:
    for change in map(mask_change, reversed(await newest_changes_since(registry, since, at_most=_CATCH_UP))):
        if as_json:
            _line(msgspec.to_builtins(change))
        else:
            print_change(change)
    sys.stdout.flush()


def _line(content: object) -> None:
    console.print_json_line(content)
