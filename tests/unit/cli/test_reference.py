import importlib
import re
from pathlib import Path

from gateway import serve
from gateway.cli import screen
from tests.unit.cli.reference import HEAD, render

PAGE = Path(__file__).parents[3] / "docs/reference/cli.md"


def test_the_reference_page_is_current():
    assert PAGE.read_text(encoding="utf-8") == render(), (
        "make it anew: python -m tests.unit.cli.reference > docs/reference/cli.md"
    )


def test_the_page_lists_every_exit_code():
    publish = importlib.import_module("gateway.cli.publish")  # the package's own name is the verb
    codes = {
        value
        for module in (screen, publish, serve)
        for name, value in vars(module).items()
        if name.startswith("EX_")
    }
    assert codes
    assert codes <= {int(code) for code in re.findall(r"^\| (\d+) \|", HEAD, re.MULTILINE)}
