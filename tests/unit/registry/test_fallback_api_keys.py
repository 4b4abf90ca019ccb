"""The keys in the fallback: what authentication needs, the newest alone, never one that was revoked."""

from pathlib import Path
from typing import Any

import pytest

from gateway.registry import fallback_api_keys as fallback_keys_module
from gateway.registry.base import KEY_USES, KEYS, MODELS, Change, Delete, Put
from gateway.registry.changes_since import newest_changes_since
from gateway.registry.fallback_api_keys import FallbackKeys, update_fallback_keys
from gateway.registry.fallback_copy import decode_fallback, encode_fallback, open_fallback, refresh_fallback
from gateway.registry.memory import MemoryRegistry
from tests.unit.registry.scripted import listing, model


class Counting(MemoryRegistry):
    """Counts the entries of the history that were read."""

    def __init__(self) -> None:
        super().__init__()
        self.read_entries = 0

    async def history(
        self, *, kind: str | None = None, name: str | None = None, limit: int = 100
    ) -> tuple[Change, ...]:
        found = await super().history(kind=kind, name=name, limit=limit)
        self.read_entries += len(found)
        return found


@pytest.fixture
def registry() -> Counting:
    return Counting()


async def put(registry: MemoryRegistry, digest: str, **fields: Any) -> None:
    document = await registry.read(KEYS, digest)
    body = {"label": digest, "models": ["*"], "created": "2026-01-01T00:00:00Z", **fields}
    expected = document.revision if document is not None else 0
    await registry.write(Put(kind=KEYS, name=digest, body=body, expected=expected), author="ana")


async def kept(registry: MemoryRegistry, before: FallbackKeys | None = None) -> FallbackKeys:
    return await update_fallback_keys(registry, await registry.load_mirrored(), before)


async def test_what_authentication_needs_and_nothing_else(registry: Counting):
    await put(
        registry, "a", created_by="ana@example.com", note="her phone", replaces="b", networks=["192.0.2.0/24"]
    )
    found = await kept(registry)
    assert b"ana@example" not in found.documents["a"]
    key = found.find("a")
    assert key is not None
    assert (key.label, key.models, key.networks) == ("a", ("*",), ("192.0.2.0/24",))
    assert (key.created_by, key.note, key.replaces) == ("", "", "")
    assert found.find("b") is None


async def test_what_has_changed_since_is_followed(registry: Counting):
    for name in "abcd":
        await put(registry, name)
    first = await kept(registry)
    assert sorted(first.documents) == ["a", "b", "c", "d"]
    await put(registry, "a", revoked="2026-02-01T00:00:00Z")
    await put(registry, "b", models=["wine"])
    await put(registry, "e")
    await registry.write(Delete(kind=KEYS, name="c", expected=1), author="ana")
    await registry.write(Put(kind=KEYS, name="d", body={"label": 7}, expected=1), author="a stranger")
    second = await kept(registry, first)
    assert second == await kept(registry)
    assert sorted(second.documents) == ["b", "e"]
    key = second.find("b")
    assert key is not None
    assert key.models == ("wine",)


async def test_a_change_of_something_else_costs_one_read(registry: Counting):
    for number in range(30):
        await put(registry, f"k{number}")
    first = await kept(registry)
    registry.read_entries = 0
    await registry.write(Put(kind=MODELS, name="wine", body={}, expected=0), author="ana")
    await registry.write(Put(kind=KEY_USES, name="k1", body={}, expected=0), author="gateway")
    second = await kept(registry, first)
    assert second.documents == first.documents
    assert second.generation == 32
    assert registry.read_entries == 1


async def test_of_very_many_the_newest_are_kept(registry: Counting, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fallback_keys_module, "MOST", 15)
    for number in range(20):
        await put(registry, f"k{number}")
    first = await kept(registry)
    assert set(first.documents) == {f"k{number}" for number in range(5, 20)}
    await put(registry, "new")
    second = await kept(registry, first)
    assert set(second.documents) == {"new", *(f"k{number}" for number in range(6, 20))}
    # More than can be followed: what became of the others is not known, so they are not kept.
    await put(registry, "k6", revoked="2026-02-01T00:00:00Z")
    for number in range(15):
        await put(registry, f"later{number}")
    third = await kept(registry, second)
    assert set(third.documents) == {f"later{number}" for number in range(15)}


async def test_of_another_registry_or_an_older_state_nothing_is_taken_over(registry: Counting):
    await put(registry, "a")
    now = await registry.load_mirrored()
    for before in (
        FallbackKeys("another", now.generation, {"x": b"{}"}),
        FallbackKeys(now.registry_id, now.generation + 7, {"x": b"{}"}),
    ):
        assert set((await update_fallback_keys(registry, now, before)).documents) == {"a"}


@pytest.mark.parametrize("number", [0, 1, 9, 10, 11, 150])
async def test_changes_since(registry: Counting, number: int):
    await put(registry, "before")
    for n in range(number):
        await put(registry, f"k{n}")
        await registry.write(Put(kind=MODELS, name=f"m{n}", body={}, expected=0), author="ana")
    changes = await newest_changes_since(registry, 1, kind=KEYS, at_most=100)
    assert [change.name for change in changes] == [f"k{n}" for n in reversed(range(number))][:100]
    assert len(await newest_changes_since(registry, 1, at_most=1000)) == 2 * number


def test_they_lie_in_the_copy_and_are_as_old_as_they_are():
    documents = {
        "a" * 64: b'{"label":"\xc3\x9c","models":["*"],"created":"2026-01-01T00:00:00Z"}',
        "b" * 64: b"{}",
    }
    full = listing(7, model("wine"))
    found = decode_fallback(encode_fallback(full, FallbackKeys("one", 5, documents)), "here")
    assert found.listing == full
    assert found.keys == FallbackKeys("one", 5, documents)
    assert decode_fallback(encode_fallback(full, None), "here").keys is None
    assert decode_fallback(encode_fallback(full, FallbackKeys("another", 5, documents)), "here").keys is None
    empty = decode_fallback(encode_fallback(full, FallbackKeys("one", 5, {})), "here").keys
    assert empty is not None
    assert not empty.documents


async def test_whoever_writes_brings_them_up_to_date(tmp_path: Path, registry: Counting):
    fallback = open_fallback(f"file:{tmp_path}/fallback.gz")
    await put(registry, "a")
    assert await refresh_fallback(fallback, registry, with_keys=True)
    await put(registry, "b")
    await put(registry, "a", revoked="2026-02-01T00:00:00Z")
    assert await refresh_fallback(fallback, registry, with_keys=True)
    assert not await refresh_fallback(fallback, registry, with_keys=True)
    found = await fallback.load()
    assert found is not None
    assert found.keys is not None
    assert set(found.keys.documents) == {"b"}
    assert await refresh_fallback(fallback, registry, with_keys=False), "to turn them off takes no change"
    found = await fallback.load()
    assert found is not None
    assert found.keys is None
    assert b"label" not in (tmp_path / "fallback.gz").read_bytes()
