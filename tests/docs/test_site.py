"""The site: it builds strictly without the network, loads nothing from elsewhere, and its pictures are of today."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import require
from tests.docs.page import ROOT
from tests.house.diagrams import FOLDER, digest

pytestmark = pytest.mark.timeout(180)
# What a browser fetches by itself; a link that a reader follows may lead anywhere.
_FETCHED = re.compile(
    r"<(?:script|img|iframe|source)[^>]*\ssrc=\"?((?:https?:)?//[^\" >]+)|<link[^>]*rel=\"?(?:stylesheet|preload|preconnect|icon)[^>]*href=\"?((?:https?:)?//[^\" >]+)"
)
_NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")


@pytest.mark.slow
def test_it_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path):
    require("mkdocs", available=find_spec("mkdocs") is not None, why="pip install -e '.[docs]'")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, **_NO_NETWORK, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 50
    elsewhere = {
        page.name: found for page in pages if (found := _FETCHED.findall(page.read_text(encoding="utf-8")))
    }
    assert not elsewhere
    search = (tmp_path / "site/search/search_index.json").read_text(encoding="utf-8")
    assert "find-the-slow-version" in search
    start = (tmp_path / "site/index.html").read_text(encoding="utf-8")
    assert "make demo" in re.sub(r"<[^>]+>", "", start)  # the README is the first page


@pytest.mark.parametrize("source", sorted(FOLDER.glob("*.mmd")), ids=lambda source: source.stem)
def test_each_diagram_is_drawn_from_its_present_source(source: Path):
    drawn = source.with_suffix(".svg").read_text(encoding="utf-8")
    assert drawn.startswith(f"<!-- {digest(source)}"), "draw it anew: make diagrams"
