"""Read the registry's changes since a generation. They come from its history."""

from gateway.registry.base import Change, Registry


async def newest_changes_since(
    registry: Registry, generation: int, *, at_most: int, kind: str | None = None
) -> tuple[Change, ...]:
    """The changes after `generation`, newest first.

    There are at most `at_most`. Each may cost a read, so it asks for one, then ten, ….
    """
    limit = 1
    while True:
        changes = await registry.history(kind=kind, limit=limit)
        newer = tuple(change for change in changes if change.generation > generation)
        if len(newer) < limit or limit >= at_most:
            return newer
        limit = min(10 * limit, at_most)
