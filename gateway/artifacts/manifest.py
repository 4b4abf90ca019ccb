"""The manifest of a published artifact: what it is, which bytes it has, what goes in and out, and a proof that it works."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import msgspec

from gateway.core.model import Tensor
from gateway.core.names import check_model_name, check_version

MANIFEST_NAME = "manifest.json"
_BLOCK_BYTES = 1 << 20

# From a file's suffix to its format; what is not here must be named.
FORMATS: Mapping[str, str] = {
    ".joblib": "joblib",
    ".pkl": "joblib",
    ".pickle": "joblib",
    ".onnx": "onnx",
    ".skops": "skops",
    ".rds": "rds",
    ".jld2": "jld2",
    ".jls": "jls",
    ".ubj": "xgboost",
    ".py": "python",
    ".json": "json",
}


# Whether the answer for a row may depend on the other rows of its request, as where a model ranks them.
RowsPolicy = Literal["independent", "together"]


class File(msgspec.Struct, frozen=True, kw_only=True):
    path: str  # relative, with slashes
    bytes: int
    sha256: str

    @property
    def place(self) -> str:
        """Its path in the artifact, without what a store puts before it to name objects by their content."""
        return self.path.removeprefix(self.sha256[:16] + "/")


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A request and the answer to it; a backend scores the first one to warm up, and must come to the same."""

    request: dict[str, Any]
    response: dict[str, Any]
    tolerance: float = 1e-6


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    schema: Literal[1] = 1
    model: str
    version: str
    created: str
    created_by: str
    format: str
    runtime: dict[str, str] = {}
    files: tuple[File, ...]
    signature: Signature = Signature()
    samples: tuple[Sample, ...] = ()
    rows: RowsPolicy = "independent"

    def encode(self) -> bytes:
        """The bytes that are stored: the same for the same content."""
        return msgspec.json.format(msgspec.json.encode(self, order="deterministic"), indent=2) + b"\n"

    def has_same_content_as(self, other: "Manifest") -> bool:
        """Whether both describe the same artifact, whoever published it and when."""
        return msgspec.structs.replace(self, created=other.created, created_by=other.created_by) == other

    @property
    def digest(self) -> str:
        """One digest for the whole artifact: of the manifest's bytes, which hold the digests of all files."""
        return "sha256:" + hashlib.sha256(self.encode()).hexdigest()

    @property
    def total_bytes(self) -> int:
        return sum(file.bytes for file in self.files)


def parse_manifest(content: bytes) -> Manifest:
    """Read a stored manifest; ValueError says what is wrong."""
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"its {MANIFEST_NAME} cannot be read: {error}") from None
    for file in manifest.files:
        parts = file.place.split("/")
        if any(part in {"", ".", ".."} for part in parts) or {"\\", "\0"} & set(file.path):
            raise ValueError(
                f"its {MANIFEST_NAME} names {file.path[:200]!r}, which lies outside of the artifact"
            )
    return manifest


def collect_files(source: Path) -> list[tuple[str, Path]]:
    """The files of an artifact, as (path in the artifact, path here): one file, or all below a folder.

    ValueError where there is nothing, or something that is not a plain file.
    """
    if source.is_file():
        if source.name == MANIFEST_NAME:
            raise ValueError(f"{source} has the name of the manifest itself: give it another one")
        return [(source.name, source)]
    if not source.is_dir():
        raise ValueError(f"{source} does not exist")
    found = []
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path} is not a plain file: an artifact holds files only, no links")
        if path.is_file() and name != MANIFEST_NAME:
            found.append((name, path))
    if not found:
        raise ValueError(f"{source} holds no files")
    return found


def guess_format(files: Sequence[tuple[str, Path]]) -> str:
    """The format by the files' suffixes; ValueError where they name none, or several."""
    formats = {
        FORMATS[suffix] for name, _ in files if (suffix := PurePosixPath(name).suffix.lower()) in FORMATS
    }
    for beside in ("json", "python"):  # settings or code beside a model, most likely
        if len(formats) > 1:
            formats.discard(beside)
    if len(formats) != 1:
        raise ValueError(
            f"the format cannot be guessed from the files' names (found {sorted(formats) or 'none'})"
        )
    return formats.pop()


def build_manifest(
    files: Sequence[tuple[str, Path]],
    *,
    model: str,
    version: str,
    format: str,  # noqa: A002  (the manifest's own word)
    created_by: str,
    runtime: Mapping[str, str] | None = None,
    signature: Signature | None = None,
    samples: Sequence[Sample] = (),
    rows: RowsPolicy = "independent",
) -> Manifest:
    """Describe `files`. Reads each once, in blocks; ValueError for a wrong name or version."""
    return Manifest(
        model=check_model_name(model),
        version=check_version(version),
        created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        created_by=created_by,
        format=format,
        runtime=dict(runtime or {}),
        files=tuple(_describe(name, path) for name, path in files),
        signature=signature or Signature(),
        samples=tuple(samples),
        rows=rows,
    )


def _describe(name: str, path: Path) -> File:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return File(path=name, bytes=size, sha256=digest.hexdigest())
