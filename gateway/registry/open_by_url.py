"""Open a registry by its URL. The scheme is a built-in one, or else that of a plug-in."""

import importlib
from collections.abc import Callable
from urllib.parse import SplitResult, urlsplit

from gateway.core.suggestions import suggest
from gateway.registry.base import Registry

# Paths, not classes: a scheme's client library is imported only where that scheme is used.
BUILT_IN = {
    "firestore": "gateway.registry.firestore.registry:open_url",
    "memory": "gateway.registry.memory:open_url",
    "sqlite": "gateway.registry.sqlite:open_url",
}
ENTRY_POINT_GROUP = "chips.registry"  # a plug-in's name is its scheme; its object is called like `open_url`

Opener = Callable[[SplitResult], Registry]


def open_registry(url: str) -> Registry:
    """Open the registry at `url`. It does not connect yet. ValueError says what is wrong with the URL."""
    parts = urlsplit(url)
    return _opener(parts.scheme)(parts)


def _opener(scheme: str) -> Opener:
    path = BUILT_IN.get(scheme)
    if path is not None:
        module, _, name = path.partition(":")
        opener: Opener = getattr(importlib.import_module(module), name)
        return opener
    from importlib.metadata import entry_points

    plug_ins = {found.name: found for found in entry_points(group=ENTRY_POINT_GROUP)}
    if scheme in plug_ins:
        loaded: Opener = plug_ins[scheme].load()
        return loaded
    known = sorted({*BUILT_IN, *plug_ins})
    hint = suggest(scheme, known, else_all=True)
    raise ValueError(f'there is no kind of registry called "{scheme}"{hint}')


def refuse_query(parts: SplitResult) -> None:
    """Raise ValueError where a registry URL has a query. The opener would ignore it."""
    if parts.query or parts.fragment:
        raise ValueError(
            f"a {parts.scheme} registry takes no options, but was given {parts.query or parts.fragment!r}"
        )
