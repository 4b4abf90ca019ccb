"""The package of a module is the one that the standard library finds, at a small part of the cost."""

import sys
from importlib import metadata
from pathlib import Path

import chips_backend.installed_packages
import pytest

import gateway.artifacts.packages_of_modules

BOTH = pytest.mark.parametrize(
    "packages_by_module",
    [
        gateway.artifacts.packages_of_modules.packages_by_module,
        chips_backend.installed_packages.packages_of,
    ],
    ids=["gateway", "backend"],
)


@BOTH
def test_as_the_standard_library(packages_by_module):
    known = {
        module: packages[0]
        for module, packages in metadata.packages_distributions().items()
        if module.isidentifier()
    }
    assert {"numpy", "sklearn", "yaml", "aiohttp"} <= set(known)
    assert packages_by_module(set(known)) == known
    assert packages_by_module({"no_such_module"}) == {}


@BOTH
@pytest.mark.parametrize(
    ("files", "module", "package"),
    [
        ({"RECORD": "made/__init__.py,,\n"}, "made", "made-up"),
        ({"RECORD": "made.py,,\n"}, "made", "made-up"),
        ({"RECORD": "made.cpython-311-x86_64-linux-gnu.so,,\n"}, "made", "made-up"),
        ({"RECORD": "maker/made/__init__.py,,\nmade_of.py,,\nmade.libs/a.so,,\n"}, "made", None),
        ({"top_level.txt": "made\n"}, "made", "made-up"),
        ({}, "made", None),
    ],
)
def test_by_what_a_package_says_of_its_files(
    packages_by_module, files: dict[str, str], module: str, package: str | None, tmp_path: Path, monkeypatch
):
    folder = tmp_path / "made_up-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\n")
    for name, content in files.items():
        (folder / name).write_text(content)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert packages_by_module({module}).get(module) == package
