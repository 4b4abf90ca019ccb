"""The page about performance shows the figures that were measured, and no others."""

import json
from pathlib import Path

from benchmarks.backends.__main__ import BEGIN, END, rewrite, tables

ROOT = Path(__file__).parents[2]


def test_the_page_shows_what_was_measured(tmp_path: Path):
    measured = json.loads((ROOT / "benchmarks/results/backends.json").read_text())
    page = (ROOT / "docs/performance.md").read_text()
    shown = page.partition(BEGIN)[2].partition(END)[0].strip()
    assert shown == tables(measured)
    copy = tmp_path / "page.md"
    copy.write_text(page.replace(shown, "old figures"))
    rewrite(copy, tables(measured))
    assert copy.read_text() == page
