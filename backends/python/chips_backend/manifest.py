"""The manifest of an artifact, as `chips publish` writes it."""

from pathlib import PurePosixPath
from typing import Any, Literal

import msgspec


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """One input or output; the first dimension is the row, -1 is any length."""

    name: str
    datatype: str
    shape: tuple[int, ...] = (-1,)


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()


class File(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    bytes: int
    sha256: str


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    request: dict[str, Any]
    response: dict[str, Any]
    tolerance: float = 1e-6


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    schema: Literal[1]
    model: str
    version: str
    format: str
    files: tuple[File, ...]
    created: str = ""
    created_by: str = ""
    runtime: dict[str, str] = {}
    signature: Signature = Signature()
    samples: tuple[Sample, ...] = ()

    def main_file(self, *suffixes: str) -> str:
        """The path of the one file with such a suffix; ValueError where there is none, or more than one."""
        found = [file.path for file in self.files if file.path.endswith(suffixes)]
        if len(found) != 1:
            raise ValueError(f"expected one file that ends in {' or '.join(suffixes)}, found {len(found)}")
        return found[0]


def parse_manifest(content: bytes) -> Manifest:
    """Read a manifest; ValueError says what is wrong. A path that leaves the artifact's folder is wrong."""
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except msgspec.MsgspecError as error:
        raise ValueError(f"its manifest.json cannot be read: {error}") from None
    for file in manifest.files:
        path = PurePosixPath(file.path)
        if (
            path.is_absolute()
            or ".." in path.parts
            or not path.parts
            or "\\" in file.path
            or "\0" in file.path
        ):
            raise ValueError(f"its manifest.json names {file.path!r}, which lies outside of the artifact")
    return manifest
