from collections.abc import AsyncIterator

import pytest

from tests.flow.scene import Scene

PATHS = ("fast", "plain")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Where a scene is played, it is played twice: on the fast path and on the plain one."""
    if hasattr(metafunc.module, "Scene"):
        marker = metafunc.definition.get_closest_marker("path")
        metafunc.parametrize("path", marker.args if marker else PATHS, indirect=True)


@pytest.fixture(autouse=True)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scene, "path", getattr(request, "param", PATHS[0]))


@pytest.fixture
async def scene(path: None) -> AsyncIterator[Scene]:
    async with Scene() as scene:
        yield scene
