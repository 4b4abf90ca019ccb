import pytest

from tests.unit.rollout.fleet import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()
