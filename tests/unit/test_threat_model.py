"""docs/threat-model.md names tests that exist, and groups of attacks that are made."""

import re
from pathlib import Path

from tests.flow.attacks.attempts import GROUPS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/threat-model.md").read_text(encoding="utf-8")


def test_the_tests_that_it_names_exist():
    named = set(re.findall(r"`((?:tests/[\w/]+/)?test_\w+\.py)`", PAGE))
    assert len(named) > 15
    files = [path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")]
    missing = [
        name
        for name in named
        if not any(file.endswith("/" + name.removeprefix("/")) or file == name for file in files)
    ]
    assert not missing


def test_the_groups_of_attacks_that_it_names_are_made():
    named = set(re.findall(r"group \*([^*]+)\*", PAGE))
    assert named
    assert named <= GROUPS.keys()
