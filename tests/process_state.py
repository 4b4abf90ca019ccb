"""What a process remembers from one test to the next. All of it is listed here and starts afresh for each test.

Code that keeps something for the life of its process adds it to this list.
"""

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from gateway.core import header_classification, per_process_random


def _loaded(name: str) -> ModuleType | None:
    """A module that nobody has imported has remembered nothing."""
    return sys.modules.get(name)


@pytest.fixture(autouse=True)
def fresh_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Fields that authenticators reserve in a test are nobody's in the next.
    monkeypatch.setattr(header_classification, "_KIND", dict(header_classification._KIND))
    monkeypatch.setattr(header_classification, "_blank", list(header_classification._blank))
    header_classification._learned.clear()
    # Each test draws ids and shares of its own, and the same ones in each run.
    per_process_random._source.seed(request.node.nodeid)
    yield
    header_classification._learned.clear()
    memory = _loaded("gateway.registry.memory")
    if memory is not None:
        memory._named.clear()
    answers = _loaded("gateway.upstream.response_head")
    if answers is not None:
        answers._known_lines.clear()
        answers._known_status_lines.clear()
    console = _loaded("gateway.cli.support.console")
    if console is not None:
        vars(console.choice).update(vars(console.GlobalOptions()))
