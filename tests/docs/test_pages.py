"""The tutorials and how-to guides, run as they are written."""

import os
import shutil
from pathlib import Path

import pytest

from tests.conftest import require
from tests.docs.page import ROOT, Reader, commands, files

pytestmark = pytest.mark.timeout(300)

PAGES = (
    "docs/tutorial/python.md",
    "docs/how-to/save-a-model.md",
    "docs/how-to/call-a-model.md",
    "docs/how-to/new-version.md",
    "docs/how-to/rollback.md",
    "docs/how-to/rotate-key.md",
    "docs/how-to/restore.md",
)


@pytest.mark.parametrize("page", [PAGES[0], *(pytest.param(page, marks=pytest.mark.slow) for page in PAGES[1:])])
def test_a_page_does_what_it_says(page: str, tmp_path: Path):
    require("curl", available=shutil.which("curl") is not None, why="curl is not installed (apt install curl)")
    found = list(commands(ROOT / page))
    assert found, "a page without commands proves nothing"
    reader = Reader(tmp_path)
    for name, content in files(ROOT / page):
        (reader.home / name).write_text(content)
    try:
        for command in found:
            reader.run(command)
    finally:
        reader.close()


def test_links_between_pages_lead_somewhere():
    import re

    broken = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md"), *(ROOT / "backends").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)} -> {target}")
    assert not broken, os.linesep.join(broken)
