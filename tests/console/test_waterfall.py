"""The bars of one request, from a trace whose times are known."""

import pytest

from tests.console.conftest import Watched
from tests.console.stage import Stage

pytestmark = pytest.mark.timeout(300)


async def test_the_waterfall_names_time_that_no_span_covers(stage: Stage, watched: Watched):
    """A request of 100 ms: the gateway takes 2 ms before its only attempt, the network 1 ms within it, 0.1 ms nobody names."""
    await watched.sign_in(stage.operator)
    spans = [
        {
            "span_id": "a",
            "parent_id": None,
            "name": "POST /wine",
            "kind": "server",
            "start_s": 0.0,
            "end_s": 0.1,
        },
        {
            "span_id": "b",
            "parent_id": "a",
            "name": "attempt 1",
            "kind": "client",
            "start_s": 0.002,
            "end_s": 0.0999,
        },
        {"span_id": "c", "parent_id": "b", "name": "wait", "kind": "", "start_s": 0.002, "end_s": 0.0999},
        {
            "span_id": "d",
            "parent_id": "c",
            "name": "backend predict",
            "kind": "",
            "start_s": 0.003,
            "end_s": 0.0999,
        },
    ]
    rows = await watched.page.evaluate(
        "async (one) => (await import('/-/console/request.js')).rows(one).map((row) => [row.depth, row.name])",
        {"spans": spans, "duration_s": 0.1},
    )
    assert rows == [
        [0, "POST /wine"],
        [1, "gateway\u2019s own work"],
        [1, "attempt 1"],
        [2, "wait"],
        [3, "network, or not reported by the backend"],
        [3, "backend predict"],
    ]
