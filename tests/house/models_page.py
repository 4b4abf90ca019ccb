"""docs/reference/models.md, from what the zoo of each language came to (tests/zoo/README.md)."""

import json
from itertools import groupby
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "zoo/results"

HEAD = """# Kinds of models

<!-- Made by `make docs` from tests/zoo/results; do not edit. -->

What was tried, in each language: every kind below is trained, published and asked over HTTP when the tests run, for one row, two,
many, in any order, next to the rows of other callers, with batching and without. *predicts* means that each answer was the
library's own. A strange value is either predicted as the library does, or refused with a 422 that names its row and field; in no
case there was a 500 or another number. `make zoo` does it again; [tests/zoo](../../tests/zoo/README.md) says how.
"""
COLUMNS = ("kind", "format", "outcome", "null", "unseen", "out_of_range", "probabilities", "note")
TITLES = ("kind", "`--format`", "outcome", "null", "unseen category", "1e39", "probabilities", "notes")


def render() -> str:
    pages = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    return HEAD + "".join(map(_language, sorted(pages, key=lambda page: str(page["language"]))))


def _language(page: dict[str, Any]) -> str:
    kinds = page["kinds"]
    predicts = sum(kind["outcome"] == "predicts" for kind in kinds)
    versions = ", ".join(f"{name} {version}" for name, version in page["made_with"].items())
    text = f"\n## {page['language']}\n\n{predicts} of {len(kinds)} kinds predict, tried with {versions}.\n"
    for family, members in groupby(kinds, key=lambda kind: str(kind["family"])):
        rows = "\n".join(_row(kind) for kind in members)
        text += f"\n### {family}\n\n{_line(TITLES)}\n{_line(['---'] * len(TITLES))}\n{rows}\n"
    return text


def _row(kind: dict[str, Any]) -> str:
    return _line([f"`{kind[name]}`" if name == "format" else str(kind.get(name, "")) for name in COLUMNS])


def _line(cells: Any) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
