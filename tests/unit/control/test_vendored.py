"""The libraries of the console are the published files, byte for byte, and nothing else of the kind is there."""

import hashlib
import json
from pathlib import Path

VENDOR = Path(__file__).parents[3] / "gateway/control/console/vendor"
RECORD = "vendored.json"


def test_each_file_is_the_one_that_was_published():
    packages = json.loads((VENDOR / RECORD).read_text(encoding="utf-8"))
    listed = {name: digest for package in packages.values() for name, digest in package["files"].items()}
    found = {
        path.name: "sha256-" + hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.iterdir()
        if path.name != RECORD
    }
    assert found == listed
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-"), "of the package at the registry"
        assert f"{name}.LICENSE" in package["files"]


def test_no_file_of_the_console_fetches_from_elsewhere():
    for path in VENDOR.parent.rglob("*"):
        if path.suffix in {".js", ".mjs", ".html", ".css"}:
            text = path.read_text(encoding="utf-8").replace("http://www.w3.org/", "")
            assert "https://" not in text, path
            assert "http://" not in text, path
