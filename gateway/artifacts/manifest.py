"""The manifest of a published artifact.

It lists the files with their digests, the inputs and outputs, and samples that prove that the artifact works.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

import msgspec

from gateway.core.model import Tensor
from gateway.core.name_validation import check_model_name, check_version
from gateway.core.suggestions import suggest

MANIFEST_NAME = "manifest.json"
DATATYPES: Final = frozenset(
    {"BOOL", "BYTES", "FP16", "FP32", "FP64"} | {f"{s}INT{n}" for s in ("", "U") for n in (8, 16, 32, 64)}
)
# What other tools call them.
_MEANT: Final[Mapping[str, str]] = {
    name: f": write {datatype}"
    for datatype, names in {
        "FP64": ("float64", "double", "float", "f8", "numeric", "number"),
        "FP32": ("float32", "f4", "single"),
        "INT64": ("int64", "int", "integer", "long", "i8"),
        "INT32": ("int32", "i4"),
        "BOOL": ("bool", "boolean", "logical"),
        "BYTES": ("str", "string", "object", "text", "category", "character", "factor", "datetime", "date"),
    }.items()
    for name in names
}
_BLOCK_BYTES = 1 << 20
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_NO_PATH: Final = re.compile(r"[\\\x00-\x1f\x7f-\x9f]")
_LARGEST_BYTES: Final = 2**53 - 1  # what every language holds exactly

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
    ".bst": "xgboost",
    ".py": "python",
    ".json": "json",
}


# Whether the answer for a row may depend on the other rows of its request, as where a model ranks them.
RowsPolicy = Literal["independent", "together"]


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One file of an artifact: path, size in bytes and SHA-256."""

    path: str  # relative, with slashes
    bytes: int
    sha256: str

    @property
    def path_without_digest(self) -> str:
        """The file's path in the artifact, without a digest. A store may put one in front."""
        return self.path.removeprefix(self.sha256[:16] + "/")


class Column(Tensor, frozen=True, kw_only=True, omit_defaults=True):
    """One input or output of a signature. It is a tensor, and the categories that it may have."""

    categories: tuple[str | int, ...] | None = (
        None  # all values that it can have, in the order of their codes
    )


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """The signature of a model: its inputs and outputs. Each has a name, datatype and shape."""

    inputs: tuple[Column, ...] = ()
    outputs: tuple[Column, ...] = ()


def signature_problems(signature: Signature) -> list[str]:
    """List what is wrong with a signature. There is one sentence for each problem that a backend would refuse."""
    problems = []
    for side, columns in (("inputs", signature.inputs), ("outputs", signature.outputs)):
        names = [column.name for column in columns]
        problems += [
            f"{side}: {name!r} stands {names.count(name)} times; names are unique"
            for name in dict.fromkeys(names)
            if names.count(name) > 1
        ]
        for column in columns:
            problems += [f"{side}: {column.name!r} {problem}" for problem in _column_problems(column)]
    return problems


def _column_problems(column: Column) -> list[str]:
    problems = []
    if not column.name:
        problems.append("has no name")
    if column.datatype not in DATATYPES:
        meant = _MEANT.get(column.datatype.lower()) or _closest(column.datatype)
        problems.append(f"has the datatype {column.datatype!r}{meant}")
    if any(size < -1 or size == 0 for size in column.shape):
        problems.append(f"has the shape {list(column.shape)}; each size is -1 (any) or more than 0")
    categories = column.categories
    if categories is not None:
        wanted = str if column.datatype == "BYTES" else int if "INT" in column.datatype else None
        if wanted is None:
            problems.append(
                f"has categories, which {column.datatype} cannot have: only BYTES and whole numbers"
            )
        elif not all(type(value) is wanted for value in categories):
            problems.append(f"has categories that are not {'texts' if wanted is str else 'whole numbers'}")
        if not categories:
            problems.append("has an empty list of categories: leave it out")
        elif len(set(categories)) < len(categories):
            problems.append("has a category twice")
    return problems


def _closest(datatype: str) -> str:
    return suggest(datatype.upper(), sorted(DATATYPES)) or f"; there are {', '.join(sorted(DATATYPES))}"


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A sample request, and the response that a backend must give to it.

    The response must match within `tolerance`. A backend scores the first one to warm up.
    """

    request: dict[str, Any]
    response: dict[str, Any]
    tolerance: float = 1e-6


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The manifest of one published version. It is stored in manifest.json."""

    schema: Literal[1]
    model: str
    version: str
    created: str = ""
    created_by: str = ""
    format: str
    runtime: dict[str, str] = {}
    files: tuple[File, ...]
    signature: Signature = Signature()
    samples: tuple[Sample, ...] = ()
    rows: RowsPolicy = "independent"
    # Predicting changes nothing and may be repeated. Not written where it is not said: older manifests keep their digests.
    pure: bool | msgspec.UnsetType = msgspec.UNSET

    def encode(self) -> bytes:
        """The manifest as JSON, as it is stored. The same content gives the same bytes."""
        return msgspec.json.format(msgspec.json.encode(self, order="deterministic"), indent=2) + b"\n"

    def has_same_content_as(self, other: "Manifest") -> bool:
        """Whether both describe the same artifact. It does not matter who published it, when, and on which machine."""
        by_whom = {"created": other.created, "created_by": other.created_by, "runtime": other.runtime}
        return msgspec.structs.replace(self, **by_whom) == other

    @property
    def digest(self) -> str:
        """The digest of the manifest, and so of the whole artifact (`sha256:…`).

        The manifest's bytes hold the digests of all files.
        """
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
    problem = _first_problem(manifest)
    if problem:
        raise ValueError(f"its {MANIFEST_NAME} is wrong: {problem}")
    return manifest


# backends/manifest-cases.json is what these rules are, for every reader of a manifest.


def _first_problem(manifest: Manifest) -> str:
    return (
        _problem_of_names(manifest)
        or _problem_of_files(manifest.files)
        or _problem_of_tensors("inputs", manifest.signature.inputs)
        or _problem_of_tensors("outputs", manifest.signature.outputs)
        or ("a tolerance is below zero" if any(s.tolerance < 0 for s in manifest.samples) else "")
    )


def _problem_of_names(manifest: Manifest) -> str:
    try:
        check_model_name(manifest.model)
        check_version(manifest.version)
    except ValueError as error:
        return str(error)
    return "" if manifest.format else "its format is empty"


def _problem_of_files(files: Sequence[File]) -> str:
    if not files:
        return "it names no files"
    for file in files:
        if not _stays_inside(file.path):
            return f"it names {file.path[:200]!r}, which lies outside of the artifact"
        if not _SHA256.fullmatch(file.sha256) or not 0 <= file.bytes <= _LARGEST_BYTES:
            return f"{file.path[:200]!r} has no valid size and SHA-256"
    places = [file.path_without_digest for file in files]
    if MANIFEST_NAME in places:
        return f"it names {MANIFEST_NAME}, which is itself"
    taken = set(places)
    if len(taken) < len(places):
        return f"it names {next(place for place in places if places.count(place) > 1)[:200]!r} twice"
    for place in places:
        parts = place.split("/")
        folders = {"/".join(parts[:length]) for length in range(1, len(parts))}
        if folders & taken:
            return f"{place[:200]!r} lies below another file"
    return ""


def _problem_of_tensors(what: str, tensors: Sequence[Tensor]) -> str:
    for tensor in tensors:
        if not tensor.name:
            return f"one of the {what} has no name"
        if tensor.datatype not in DATATYPES:
            return f"{tensor.name[:80]!r} has the unknown datatype {tensor.datatype[:40]!r}"
        if any(size < -1 for size in tensor.shape):
            return f"{tensor.name[:80]!r} has a shape with a size below -1"
    names = {tensor.name for tensor in tensors}
    return f"two of the {what} have one name" if len(names) < len(tensors) else ""


def _stays_inside(path: str) -> bool:
    return not any(part in {"", ".", ".."} for part in path.split("/")) and not _NO_PATH.search(path)


def list_all_files(source: Path) -> list[tuple[str, Path]]:
    """List all files of an artifact, hidden ones too, with their paths in it.

    Each is (path in the artifact, path here): of one file, or of all below a folder. Only a manifest.json at the top of the
    folder is left out. ValueError where there is nothing, or something that is not a plain file.
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


def format_from_suffixes(files: Sequence[tuple[str, Path]]) -> str:
    """The format of a model, from the suffixes of its files. ValueError where they name none, or several."""
    formats = {
        FORMATS[suffix] for name, _ in files if (suffix := PurePosixPath(name).suffix.lower()) in FORMATS
    }
    for sidecar in ("json", "python"):  # settings or code next to a model, most likely
        if len(formats) > 1:
            formats.discard(sidecar)
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
    pure: bool = False,
) -> Manifest:
    """Build the manifest of `files`. It reads each once for its digest. ValueError for a wrong name or version."""
    return Manifest(
        schema=1,
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
        pure=pure or msgspec.UNSET,
    )


def _describe(name: str, path: Path) -> File:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return File(path=name, bytes=size, sha256=digest.hexdigest())
