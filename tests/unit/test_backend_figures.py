"""The page about performance shows the figures that were measured, and no others."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.backends import __main__ as languages
from benchmarks.backends import alternatives_report as alternatives
from benchmarks.backends.page import rewrite, shown

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/performance.md"


@pytest.mark.parametrize(
    ("file", "name", "tables"),
    [
        ("backends.json", languages.NAME, languages.tables),
        ("alternatives.json", alternatives.NAME, alternatives.tables),
    ],
)
def test_the_page_shows_what_was_measured(
    tmp_path: Path, file: str, name: str, tables: Callable[[Mapping[str, Any]], str]
):
    measured = json.loads((ROOT / "benchmarks/results" / file).read_text())
    text = shown(PAGE, name)
    assert text == tables(measured)
    copy = tmp_path / "page.md"
    copy.write_text(PAGE.read_text().replace(text, "old figures"))
    rewrite(copy, name, text)
    assert copy.read_text() == PAGE.read_text()


def figure(peer: str, protocol: str, cpu_us: float) -> dict[str, Any]:
    where = {"kind": "numbers", "peer": peer, "protocol": protocol, "rows": 1, "callers": 8}
    return {
        **where,
        "served": True,
        "cpu_us": cpu_us,
        "per_s": 1.0,
        "p50_ms": 1.0,
        "p99_ms": 1.0,
        "rss_mb": 1,
    }


def test_a_figure_that_is_missing_has_its_reason():
    failed = {"served": False, "why": "7 of 9 failed"}
    document = {
        "date": "2026-11-30T00:00:00Z",
        "machine": {"cpus": 2, "cpu": "x", "system": "Linux", "python": "3", "load": [0.0]},
        "seconds": 1,
        "rounds": 2,
        "peers": {"chips": "ours", "fastapi": "FastAPI"},
        "left_out": [],
        "starts": [],
        "figures": [
            figure("chips", "v1", 100.0),
            {**figure("chips", "v1", 1.0), **failed},
            {**figure("fastapi", "v1", 1.0), **failed, "callers": 64},
        ],
    }
    text = alternatives.tables(document)
    assert "FastAPI, JSON rows (numbers, 1 row, 64 callers): 7 of 9 failed." in text
    assert "ours, JSON rows (" not in text, "another round has it"


def test_ours_is_held_against_the_cheapest_of_the_others():
    found = alternatives.medians(
        [
            figure("chips", "v1", 100.0),
            figure("chips", "v1", 300.0),
            figure("chips", "v1", 120.0),
            figure("chips", "binary", 50.0),
            figure("fastapi", "v1", 200.0),
            figure("kserve", "binary", 60.0),
            {**figure("mlflow", "v1", 1.0), "served": False},
        ]
    )
    assert alternatives.ratio(found, "numbers", 1, "v1") == 120 / 200
    assert alternatives.ratio(found, "numbers", 1, "binary") == 50 / 60
    assert alternatives.ratio(found, "numbers", 1000, "v1") is None
