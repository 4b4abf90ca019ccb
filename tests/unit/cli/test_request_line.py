"""A line of `chips tail` fits the terminal, and its request id stays whole."""

from typing import Any

import pytest

from gateway.cli.observe.why import request_line

ID = "4bf92f3577b34da6a3ce929d0e0e4736"


def request(**changed: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "status": 422,
        "model": "wine",
        "version": "1",
        "path": "/wine",
        "error": "invalid-instances",
        "kept": "recent",
        "at": 0.0,
        "method": "POST",
        "duration_ms": 12.3,
        "caller": "99c9a7aebcb5",
        "request_id": ID,
    }
    return {**usual, **changed}


@pytest.mark.parametrize("model", ["wine", "a-model-with-a-name-that-is-long-indeed"])
@pytest.mark.parametrize("width", [80, 90, 100, 132, 200])
def test_it_fits(width: int, model: str):
    line = request_line(request(model=model), width=width).plain
    assert len(line) <= width
    assert line.endswith(f" {ID}")
    assert " 422 POST " in line
    assert model[:10] in line


def test_it_has_everything_where_there_is_room_or_no_terminal():
    for line in (request_line(request(), width=132).plain, request_line(request()).plain):
        assert "99c9a7aebcb5" in line
        assert "invalid-instances" in line
        assert "wine@1" in line
