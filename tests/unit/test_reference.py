"""The reference pages are made from the code, and are what the code says now."""

import importlib
import re

import pytest

from gateway import serve
from gateway.cli.support import console
from gateway.settings import setting_types
from tests.house.cli_page import HEAD
from tests.house.reference import FOLDER, PAGES


@pytest.mark.parametrize("name", PAGES)
def test_a_reference_page_is_current(name: str):
    assert (FOLDER / name).read_text(encoding="utf-8") == PAGES[name](), "make it anew: make docs"


def test_the_page_lists_every_exit_code():
    publish = importlib.import_module("gateway.cli.artifacts.publish")  # the package's own name is the verb
    codes = {
        value
        for module in (console, publish, serve)
        for name, value in vars(module).items()
        if name.startswith("EX_")
    }
    assert codes
    assert codes <= {int(code) for code in re.findall(r"^\| (\d+) \|", HEAD, re.MULTILINE)}


def test_every_setting_says_why_in_one_line():
    for name, hint in setting_types().items():
        (meta,) = hint.__metadata__
        assert meta.description, name
        assert "\n" not in meta.description, name
        assert meta.description.endswith("."), name
