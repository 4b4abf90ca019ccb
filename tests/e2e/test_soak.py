"""A short soak; `make soak MINUTES=10` is the long one."""

import pytest

from tests.e2e.soak import soak


@pytest.mark.slow
@pytest.mark.parametrize("path", ["fast", "plain"])
async def test_a_few_seconds_of_everything_at_once(capsys, path: str):
    assert await soak(0.15, 1, path) == 0, capsys.readouterr().out
