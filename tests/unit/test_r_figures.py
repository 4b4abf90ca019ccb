"""The page about performance shows the figures of the R backend that were measured, and no others."""

import json
from pathlib import Path

from benchmarks.backends.page import shown
from benchmarks.backends.r_alternatives import NAME, tables

ROOT = Path(__file__).parents[2]


def test_the_page_shows_what_was_measured():
    measured = json.loads((ROOT / "benchmarks/results/r.json").read_text())
    assert shown(ROOT / "docs/performance.md", NAME) == tables(measured)
