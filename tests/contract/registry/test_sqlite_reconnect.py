"""A connection that was dropped, for whatever reason, must not hide a change from a watch."""

from pathlib import Path

from gateway.registry.base import MODELS, Put
from gateway.registry.sqlite import SqliteRegistry


async def test_a_watch_sees_what_was_written_while_its_connection_was_replaced(tmp_path: Path):
    registry, other = SqliteRegistry(tmp_path / "registry.db"), SqliteRegistry(tmp_path / "registry.db")
    try:
        await other.load()
        watch = registry.watch()
        first = await anext(watch)
        assert first is not None
        await other.write(Put(kind=MODELS, name="wine", body={}, expected=0), author="ana")
        await registry._run(lambda _: registry._disconnect())  # as after any error on it
        async for listing in watch:
            if listing is not None:
                assert [document.name for document in listing.documents] == ["wine"]
                break
        await watch.aclose()  # type: ignore[attr-defined]
    finally:
        await registry.close()
        await other.close()
