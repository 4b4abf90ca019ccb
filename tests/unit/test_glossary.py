"""The glossary names what the code has, in order, and words that were given up do not come back."""

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference/glossary.md"
TERMS = re.findall(
    r"^\| ([^|]+?) \| ([^|]+?) \| `([\w.]+)` \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
)
# Names that strangers did not guess, and that have a better one now.
GIVEN_UP = frozenset({
    "Turn", "Gather", "Drive", "Outlet", "Pulse", "Remembered", "KnownHead", "KnownHeads", "Rules", "Bench", "Came",
    "spared", "particular", "dam", "let_go", "in_task", "vouched_for", "resting", "last_said", "says_the_same_as",
    "FastServer", "FastUpstream", "PlainUpstream", "PlainBody", "FolderCandidate", "LastDigest", "pass_on", "now_text",
    "begin_to_linger",
})  # fmt: skip


def test_the_glossary_has_terms():
    assert len(TERMS) > 30
    names = [term.lower() for term, _, _ in TERMS]
    assert names == sorted(names), "keep the table in alphabetical order"
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("term", "place"), [(term, place) for term, _, place in TERMS])
def test_a_term_is_in_the_code(term: str, place: str):
    try:
        importlib.import_module(place)
    except ModuleNotFoundError:
        module, _, name = place.rpartition(".")
        assert hasattr(importlib.import_module(module), name), f"{term}: there is no {place}"


def test_no_name_comes_back():
    found = []
    for path in (ROOT / "gateway").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node, "name", None) or getattr(node, "attr", None)
            if isinstance(name, str) and name in GIVEN_UP:
                found.append(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)} {name}")
    assert not found
