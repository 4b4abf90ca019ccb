"""What /-/ready says of the registry, and to which caller: its generation, how old the served state is, what it was made from."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.registry.base import MODELS, Delete, Head, Unavailable
from gateway.registry.fallback_copy import open_fallback, refresh_fallback
from tests.flow.scene import Scene
from tests.patience import patience
from tests.unit.audit.test_anchors import write_key


async def test_ready_says_generation_age_and_source(scene: Scene):
    await scene.model("wine")
    registry = await scene.registry_state()
    assert registry["generation"] == (await scene.registry.load_mirrored()).generation
    assert registry["source"] == "registry"
    assert registry["held"] is None
    assert registry["connected"] is True
    assert 0 <= registry["age_s"] < 60


async def test_a_model_that_was_deregistered_is_gone_and_one_that_was_just_registered_is_there(scene: Scene):
    await scene.model("wine")
    assert (await scene.call(target="/wine")).status == 200
    document = await scene.registry.read(MODELS, "wine")
    assert document is not None
    generation = await scene.registry.write(
        Delete(kind=MODELS, name="wine", expected=document.revision), author="ana"
    )
    assert await scene.gateway.mirror.wait_for_generation(generation, timeout_s=patience(20))
    assert (await scene.call(target="/wine")).status == 404
    await scene.model("wine")
    assert (await scene.call(target="/wine")).status == 200, "a 404 of a moment ago is not remembered"


async def test_a_wiped_registry_is_told_and_serves_on(scene: Scene):
    await scene.model("wine")
    store = scene.registry._store
    store.head = Head(registry_id="wiped", generation=0)
    store.documents.clear()
    for changed in store.changed:
        changed.set()
    held = None
    while held is None:
        held = (await scene.registry_state())["held"]
    assert "has become another one (wiped, generation 0), which lists no model" in held
    assert (await scene.call(target="/wine", key=None)).status == 401
    assert "wine" in scene.gateway.mirror.snapshot.entries  # type: ignore[union-attr]
    missed = await scene.call(target="/beer")
    assert (missed.status, missed.get("chips-error")) == (503, "registry-unavailable")


async def test_a_cold_start_without_the_registry_knows_the_keys_of_its_copy(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    await scene.model("wine")
    operator = await scene.make_key("*", verbs=("score", "operate"))
    revoked, ended = await scene.make_key("*"), await scene.make_key("*", expires="2026-01-02T00:00:00Z")
    await scene.revoke_key(revoked)
    copy = f"file:{tmp_path}/fallback.gz"
    assert await refresh_fallback(open_fallback(copy), scene.registry, with_keys=True)
    later = await scene.make_key("*")

    async def away(*_: Any, **__: Any) -> Any:
        raise Unavailable("away")

    async def away_watch(*_: Any) -> AsyncIterator[None]:
        yield await away()

    monkeypatch.setattr("gateway.registry.mirror._FIRST_LOOK_S", 0.02)
    monkeypatch.setattr("gateway.registry.mirror._LONGEST_DELAY_S", 0.05)
    with monkeypatch.context() as outage:
        outage.setattr(scene.registry, "read", away)
        outage.setattr(scene.registry, "watch", away_watch)
        async with scene.another_gateway(registry_fallback=copy):
            for path in ("/wine", "/-/ready", "/-/metrics"):
                assert (await scene.call("GET", path)).status == (403 if path == "/-/metrics" else 200)
            assert (await scene.call()).status == 200
            assert (await scene.call(key=operator)).status == 200
            assert (await scene.call("GET", "/-/metrics", key=operator)).status == 403, (
                "a copy makes no operator"
            )
            for key, status in ((revoked, 401), (ended, 401), (later, 503)):
                assert (await scene.call(key=key)).status == status
            outage.undo()
            mirror = scene.gateway.mirror
            while mirror.source != "registry":
                await asyncio.sleep(0.01)
            assert (await scene.call(key=later)).status == 200
        monkeypatch.setattr(scene.registry, "read", away)
        monkeypatch.setattr(scene.registry, "watch", away_watch)
        flags = {"registry_fallback": copy, "server.fallback_keys_age_s": "0"}
        async with scene.another_gateway(**flags):
            assert (await scene.call()).status == 503


async def test_a_gateway_keeps_the_head_of_the_history_in_the_second_place(scene: Scene, tmp_path: Path):
    await scene.model("wine")
    operator = await scene.make_key("*", verbs=("operate",))
    flags = {
        "audit.second_place": str(tmp_path / "kept"),
        "audit.signing_key": str(write_key(tmp_path / "head.pem")),
        "audit.every_s": "1",
    }
    head = await scene.registry.head()
    async with scene.another_gateway(**flags):
        while not list((tmp_path / "kept").rglob(f"{head.sequence:012d}-*.json")):
            await asyncio.sleep(0.01)
        figures = await scene.call("GET", "/-/metrics", key=operator)
        assert b"chips_audit_unanchored_seconds" in figures.body


async def test_a_key_that_cannot_sign_ends_the_start(scene: Scene, tmp_path: Path):
    flags = {"audit.second_place": str(tmp_path), "audit.signing_key": str(tmp_path / "none.pem")}
    with pytest.raises(ValueError, match=r"audit\.signing_key: .*openssl genpkey"):
        async with scene.another_gateway(**flags):
            pass
