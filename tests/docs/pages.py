"""Which pages there are, which of them begin with the demo, and a checkout to follow them in."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.docs.page import ROOT, Command, commands

PAGES = [
    page
    for page in sorted(
        {
            *ROOT.glob("*.md"),
            *(ROOT / "docs").rglob("*.md"),
            *(ROOT / "deploy").rglob("*.md"),
            *(ROOT / "backends").rglob("*.md"),
        }
    )
    if page.parent.name not in {"adr", ".pytest_cache"} and page.name != "CHANGELOG.md"
]
ELSEWHERE = {  # with a toolchain of their own
    "docs/tutorial/julia.md": "tests/contract/backends/julia/test_tutorial.py",
    "docs/tutorial/r.md": "tests/contract/backends/r/test_tutorial.py",
}
QUICK = {"README.md", "docs/tutorial/python.md"}  # what nearly everybody reads
_OF_THE_DEMO = {"make demo", ". .demo/env"}


def begins_with_demo(taken: list[Command]) -> bool:
    return any(step.text in _OF_THE_DEMO for step in taken)


def needs_checkout(taken: list[Command]) -> bool:
    return any("examples" in step.text or ".venv" in step.text for step in taken)


def names(*, with_demo: bool) -> list[object]:
    """The pages that have commands, by name, with or without those that begin with the demo; most are marked slow."""
    found = [
        name
        for page in PAGES
        if (name := str(page.relative_to(ROOT))) not in ELSEWHERE
        and (taken := commands(page))
        and begins_with_demo(taken) == with_demo
    ]
    assert "README.md" in found if with_demo else "docs/tutorial/python.md" in found
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in sorted(found)]


def checkout(folder: Path) -> Path:
    """A checkout of its own, since the examples write next to themselves; what is only read is linked."""
    folder.mkdir(parents=True)
    for path in ROOT.iterdir():
        if path.name in {"examples", "Makefile"}:
            (shutil.copytree if path.is_dir() else shutil.copy2)(path, folder / path.name)
        elif not path.name.startswith("."):
            (folder / path.name).symlink_to(path)
    venv = folder / ".venv"
    venv.mkdir()
    for path in Path(sys.prefix).iterdir():
        if path.name != ".ready":
            (venv / path.name).symlink_to(path)
    (venv / ".ready").touch()  # so `make` does not set anything up
    return folder
