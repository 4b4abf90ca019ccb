"""Instructions of an accepted request and of refusals, held within one percent."""

import pytest

from benchmarks import count
from tests.conftest import require

pytestmark = pytest.mark.slow


@pytest.mark.timeout(240)
def test_requests_take_as_many_instructions_as_they_did():
    why = count.missing()
    require("valgrind", available=not why, why=why)
    expected = count.kept().get(count.here())
    if expected is None:
        pytest.skip(f"benchmarks/counts.json has no figures for {count.here()}; `make count COUNT=--write`")
    problems = count.differences(count.count(count.HELD).totals, expected)
    assert not problems, "\n".join(problems)
