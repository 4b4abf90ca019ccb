"""The pages that begin with nothing, or in a checkout, run as they are written."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import require
from tests.docs.page import ROOT, Reader, commands, steps
from tests.docs.pages import checkout, names, needs_checkout

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("name", names(with_demo=False))
@pytest.mark.slow
def test_a_page_does_what_it_says(name: str, tmp_path: Path):
    require(
        "curl", available=shutil.which("curl") is not None, why="curl is not installed (apt install curl)"
    )
    within = checkout(tmp_path / "checkout") if needs_checkout(commands(ROOT / name)) else None
    reader = Reader(tmp_path, within=within)
    try:
        for step in steps(ROOT / name):
            reader.do(step)
    finally:
        reader.close()
