"""benchmarks.count: what it names exists, and a count that is off is told; what made a refusal cheap stays."""

import importlib
from functools import reduce

import pytest

from benchmarks import count
from benchmarks.one_request import requests_in_process
from gateway import pipeline
from gateway.core.direct_response import Response
from gateway.core.errors import GatewayError
from gateway.core.problem_details import render_problem


@pytest.mark.parametrize("function", count.FUNCTIONS)
def test_it_counts_inside_functions_that_exist(function: str):
    module, _, path = function.partition(":")
    assert callable(reduce(getattr, path.split("."), importlib.import_module(module)))


def test_one_percent_more_is_as_expected_and_two_percent_less():
    expected = {"accepted": 200_000, "bad key": 100_000}
    assert not count.differences({"accepted": 201_900.0, "bad key": 98_100.0}, expected)
    assert [text.partition(":")[0] for text in count.differences({"accepted": 203_000.0}, expected)] == [
        "accepted"
    ]
    assert "(-3.0%)" in count.differences({"bad key": 97_000.0}, expected)[0]


def test_every_platform_has_a_figure_for_every_case():
    assert count.kept()
    for totals in count.kept().values():
        assert set(totals) == set(count.HELD)


async def test_what_strangers_are_refused_for_is_not_raised(monkeypatch: pytest.MonkeyPatch):
    """An error that passes through four functions costs a fifth of what a refusal takes."""
    refused: list[GatewayError] = []

    def render(error: GatewayError, request_id: str, *, add_open_inference_error: bool) -> Response:
        refused.append(error)
        return render_problem(error, request_id, add_open_inference_error=add_open_inference_error)

    monkeypatch.setattr(pipeline, "render_problem", render)
    async with requests_in_process() as requests:
        names = [name for name, request in requests.items() if request.status >= 400]
        refused.clear()
        for name in names:
            requests[name].once()
    assert [error.status for error in refused] == [requests[name].status for name in names] != []
    assert [error.__traceback__ for error in refused] == [None] * len(names)
