"""What /-/ready says of the registry: its generation, how old the served state is, and what it was made from."""

from gateway.registry.base import MODELS, Delete
from tests.flow.scene import Scene


async def test_ready_says_generation_age_and_source(scene: Scene):
    await scene.model("wine")
    registry = (await scene.call("GET", "/-/ready", key=None)).json()["registry"]
    assert registry["generation"] == (await scene.registry.load()).generation
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
    assert await scene.gateway.mirror.wait_for(generation, timeout_s=20)
    assert (await scene.call(target="/wine")).status == 404
    await scene.model("wine")
    assert (await scene.call(target="/wine")).status == 200, "a 404 of a moment ago is not remembered"


async def test_a_wiped_registry_is_told_and_serves_on(scene: Scene):
    await scene.model("wine")
    store = scene.registry._store
    store.registry_id, store.generation = "wiped", 0
    store.documents.clear()
    for changed in store.changed:
        changed.set()
    held = None
    while held is None:
        ready = await scene.call("GET", "/-/ready", key=None)
        assert ready.status == 200
        held = ready.json()["registry"]["held"]
    assert "has become another one (wiped, generation 0), which lists no model" in held
    assert (await scene.call(target="/wine", key=None)).status == 401
    assert "wine" in scene.gateway.mirror.snapshot.entries  # type: ignore[union-attr]
    missed = await scene.call(target="/beer")
    assert (missed.status, missed.get("chips-error")) == (503, "registry-unavailable")
