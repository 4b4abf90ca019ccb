"""Detect a file that is not of its model's format.

It is a web page, a Git LFS pointer or another format; its first bytes show it.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_HEAD_BYTES: Final = 1024
_MARKUP: Final = re.compile(rb"\s*<(!doctype html|html|head|body)\b", re.IGNORECASE)
_XML: Final = re.compile(rb"\s*<\?xml|\s*<Error>")
_COMPRESSED: Final = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x5d\x00\x00", b"\x04\x22\x4d\x18", b"\x78")

# How a file of a format begins. What is not here may begin in any way.
_BEGINNINGS: Final[Mapping[str, tuple[bytes, ...]]] = {
    "joblib": (b"\x80", b"(", b"c", b"]", b"}", b"I", b"F", b"S", b"V", b"N", b"L", *_COMPRESSED),
    "skops": (b"PK\x03\x04",),
    "xgboost": (b"{", b"binf", b"\x00\x00"),
    "lightgbm": (b"tree",),
    "rds": (b"X\n", b"A\n", b"B\n", *_COMPRESSED),
    "jld2": (b"HDF5-based Julia", b"\x89HDF"),
}


def detect_wrong_file_type(path: Path, format: str) -> str:  # noqa: A002  (the manifest's own word)
    """What the file at `path` is, where it cannot be of `format`. Empty where it can be."""
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    found = _known(head)
    if found:
        return found
    beginnings = _BEGINNINGS.get(format)
    if beginnings is not None and not head.startswith(beginnings):
        return f"no {format} file: it begins with {head[:16]!r}"
    return ""


def _known(head: bytes) -> str:
    if not head:
        return "empty: was it saved to the end?"
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        return "a Git LFS pointer, not the file itself: git lfs pull fetches it"
    if head.startswith(b"/annex/objects/") or b".git/annex/objects/" in head[:200]:
        return "a git-annex pointer, not the file itself: git annex get fetches it"
    if _MARKUP.match(head):
        return "an HTML page, most likely a login or error page that a download saved instead of the model"
    if _XML.match(head):
        return "an XML document, most likely the error of a store that a download saved instead of the model"
    return ""
