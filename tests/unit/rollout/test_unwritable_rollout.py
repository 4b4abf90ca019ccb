"""A rollout that the registry does not take is told of, and holds no other one up."""

from typing import Any

import pytest

from gateway.core.model_updates import to_document
from gateway.registry.base import MODELS, ROLLOUTS, Delete, Put, Registry, RegistryError
from tests.unit.rollout.fleet import Clock, Scene, rollout_of, wine


@pytest.fixture
def scene(clock: Clock) -> Scene:
    return Scene(clock)


class TooSmall:
    """A registry that takes no document of one model, as Firestore takes none over a mebibyte."""

    def __init__(self, registry: Registry, model: str) -> None:
        self._registry, self._model = registry, model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registry, name)

    async def write(self, *changes: Put | Delete, **options: Any) -> int:
        if any(change.name == self._model for change in changes):
            raise RegistryError(f"models/{self._model} takes too many bytes")
        return await self._registry.write(*changes, **options)


async def test_a_rollout_that_cannot_be_written_holds_no_other_one_up(scene: Scene):
    beer = wine(name="beer")
    await scene.registry.write(
        Put(kind=MODELS, name="beer", body=to_document(beer), expected=0),
        Put(kind=ROLLOUTS, name="beer", body=to_document(rollout_of(beer, id="r0")), expected=0),
        author="ana",
    )
    await scene.begin()
    registry: Any = TooSmall(scene.registry, "beer")
    controller = scene.controller(registry)
    await scene.turn(controller)
    assert "too many bytes" in str(await controller.reconcile()), "and the helper says so"
    assert await scene.traffic() == {"3": 95, "4": 5}
    await scene.serve(controller, windows=2, errors=30)
    assert await scene.traffic() == {"3": 100, "4": 0}
    assert (await scene.rollout()).state == "returned"
