"""docs/tutorial/julia.md, run as it is written."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import require
from tests.contract.backends.languages import Julia
from tests.docs.page import ROOT, Reader, steps

pytestmark = pytest.mark.timeout(600)  # a Julia compiles its program at each start


def test_the_tutorial_does_what_it_says(each_julia: Julia, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    require(
        "curl", available=shutil.which("curl") is not None, why="curl is not installed (apt install curl)"
    )
    monkeypatch.setenv("JULIA", each_julia.program)
    monkeypatch.setenv("JULIA_DEPOT_PATH", each_julia.depot)
    monkeypatch.setenv("GENIE_MANIFEST", str(Path(each_julia.project) / "Manifest.toml"))
    found = list(steps(ROOT / "docs/tutorial/julia.md"))
    assert len(found) > 8
    reader = Reader(tmp_path)
    try:
        for step in found:
            reader.do(step)
    finally:
        reader.close()
