"""A short soak; `make soak MINUTES=10` is the long one."""

import random

from tests.e2e.soak import soak


async def test_a_few_seconds_of_everything_at_once(capsys):
    assert await soak(0.15, random.randrange(2**32)) == 0, capsys.readouterr().out
