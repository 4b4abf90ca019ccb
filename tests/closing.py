"""What a run prints: a table at its end of what did not run, each reason once; and of a failure never megabytes."""

import os
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest

_PREFIX = "Skipped: "
_LEFT_OUT = pytest.StashKey[int]()
_SENT_AS = "left_out"
_SHOWN_CHARS: Final = 20_000


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    report.sections = [(name, _shortened(text)) for name, text in report.sections]
    if report.failed and len(text := str(report.longrepr)) > _SHOWN_CHARS:
        report.longrepr = _shortened(text)
    return report


def _shortened(text: str) -> str:
    """The beginning and the end of what is too long to read."""
    left_out = len(text) - _SHOWN_CHARS
    if left_out <= 0:
        return text
    half = _SHOWN_CHARS // 2
    return f"{text[:half]}\n… {left_out} characters left out …\n{text[-half:]}"


def pytest_deselected(items: list[pytest.Item]) -> None:
    if items:
        config = items[0].config
        config.stash[_LEFT_OUT] = config.stash.get(_LEFT_OUT, 0) + len(items)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist tells the process that prints; each has left out the same tests."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[_SENT_AS] = session.config.stash.get(_LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    left_out = getattr(node, "workeroutput", {}).get(_SENT_AS, 0)
    node.config.stash[_LEFT_OUT] = max(left_out, node.config.stash.get(_LEFT_OUT, 0))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    counts: dict[str, int] = defaultdict(int)
    places: dict[str, set[str]] = defaultdict(set)
    for report in terminalreporter.stats.get("skipped", []):
        # A report of a skip carries (file, line, reason).
        reason = str(report.longrepr[2]).removeprefix(_PREFIX).strip()
        counts[reason] += 1
        places[reason].add(str(Path(report.nodeid.partition("::")[0])))
    left_out = config.stash.get(_LEFT_OUT, 0)
    if not counts and not left_out:
        return
    terminalreporter.section("not run", sep="-")
    for reason, count in sorted(counts.items(), key=lambda found: -found[1]):
        terminalreporter.line(f"{count:5}  {reason}  ({_common_place(places[reason])})")
    if left_out:
        terminalreporter.line(f"{left_out:5}  left out by -m or -k (make test-all runs everything)")


def _common_place(names: set[str]) -> str:
    """The file, or the folder that holds all of them."""
    return next(iter(names)) if len(names) == 1 else os.path.commonpath(names) or "several folders"
