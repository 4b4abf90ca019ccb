"""docs/adr/: each decision has a number of its own, in its file's name and its title."""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "adr"
PAGES = sorted(FOLDER.glob("[0-9]*.md"))


def test_no_number_is_given_twice():
    numbers = [page.name[:4] for page in PAGES]
    assert sorted(set(numbers)) == numbers


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_title_has_the_number_of_the_file(page: Path):
    title = re.match(r"# (\d+)\. \S", page.read_text())
    assert title is not None
    assert int(title[1]) == int(page.name[:4])
