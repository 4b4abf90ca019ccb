"""The pages that say where a change goes: each path there is one of this tree, and each kind of change is there."""

import re
from pathlib import Path

import pytest

from tests.house.checkout import git

ROOT = Path(__file__).parents[2]
PLACEHOLDER = re.compile(r"\b(NAME|GROUP|LANGUAGE)\b|<[a-z]+>")
TOP = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".venv")}


def _table(page: str) -> str:
    text = (ROOT / page).read_text(encoding="utf-8")
    return "\n".join(line for line in text.splitlines() if line.startswith("|"))


def _paths(text: str) -> list[str]:
    """The paths between backticks, with `{a,b}` written out: what begins with a folder of the tree, or ends as a file does."""
    found = []
    for word in re.findall(r"`([^`\s]+)`", text):
        head, brace, tail = word.partition("{")
        inside, _, rest = tail.partition("}")
        for each in inside.split(",") if brace else [""]:
            path = f"{head}{each}{rest}"
            if path.partition("/")[0] in TOP or re.search(r"\.(py|md|toml|txt|lock|js)$", path):
                found.append(path)
    return found


def _is_there(path: str) -> bool:
    if PLACEHOLDER.search(path):  # a file that the change makes: its folder is there
        path = PLACEHOLDER.split(path)[0].rpartition("/")[0]
    return any(ROOT.glob(path)) if "*" in path else (ROOT / path).exists()


def _where_a_change_goes() -> dict[str, str]:
    """The parts of the architecture page's list, by their headings."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    parts = text.partition("\n## Where a change goes\n")[2].split("\n### ")[1:]
    return {heading: part for heading, _, part in (part.partition("\n") for part in parts)}


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/how-to/new-language.md"])
def test_each_path_of_the_table_is_there(page):
    paths = _paths(_table(page))
    assert len(paths) > 10
    missing = [path for path in paths if not _is_there(path)]
    assert not missing, f"{page}: {missing}"


def test_each_path_of_the_list_is_there():
    parts = _where_a_change_goes()
    missing = {
        heading: path for heading, text in parts.items() for path in _paths(text) if not _is_there(path)
    }
    assert all(_paths(text) for text in parts.values())
    assert not missing


@pytest.mark.parametrize(
    "change",
    ["stage", "registry", "credential", "command", "metric", "backend language", "text of an error"],
)
def test_each_kind_of_change_is_listed(change):
    assert any(change in heading for heading in _where_a_change_goes())
    rows = re.findall(r"^\| ([^|]+) \|", _table("CONTRIBUTING.md"), re.MULTILINE)
    assert any(change in row for row in rows)


def test_the_list_has_all_places_of_the_page_on_a_new_language():
    listed = _paths(_where_a_change_goes()["A backend language"])
    assert set(_paths(_table("docs/how-to/new-language.md"))) <= set(listed)


def test_a_path_that_is_not_there_is_found():
    assert not _is_there("gateway/no_such.py")
    assert not _is_there("gateway/no_such_folder/NAME.py")
    assert _paths("`gateway/a/{b,c}.py` and `make docs`") == ["gateway/a/b.py", "gateway/a/c.py"]


def test_the_page_on_a_new_language_lists_every_place_that_names_one():
    """Julia stands for the next language: whatever file names it is a file that the next one touches."""
    listed = git("grep", "--files-with-matches", "--ignore-case", "--word-regexp", "julia")
    told = {
        word.replace("LANGUAGE", "julia").rstrip("/")
        for word in re.findall(r"`([^`\s]+)`", _table("docs/how-to/new-language.md"))
    }
    # Tests and pages that mention a language in passing come and go; the page names those that list the languages.
    no_place = ("CHANGELOG.md", "changelog.d/", "docs/", "tests/", "benchmarks/results/")
    missing = [
        file
        for file in listed.split()
        if not file.startswith(no_place)
        and not any(file == path or file.startswith(f"{path}/") or Path(file).match(path) for path in told)
    ]
    assert not missing
