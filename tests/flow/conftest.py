from collections.abc import AsyncIterator

import pytest

from tests.flow.scene import Scene


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with Scene() as scene:
        yield scene
