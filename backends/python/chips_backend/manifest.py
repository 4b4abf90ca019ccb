"""The manifest of an artifact, as `chips publish` writes it."""

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final, Literal

import msgspec

MODEL_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")
VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
DATATYPES: Final = frozenset(
    {"BOOL", "BYTES", "FP16", "FP32", "FP64"}
    | {f"{kind}{bits}" for kind in ("INT", "UINT") for bits in (8, 16, 32, 64)}
)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_NO_PATH: Final = re.compile(r"[\\\x00-\x1f\x7f-\x9f]")
_LARGEST_BYTES: Final = 2**53 - 1  # what every language holds exactly
MANIFEST_NAME: Final = "manifest.json"
SIDE_FILES: Final = frozenset({"baseline.json", "card.md"})  # next to a model, never the model itself


class Tensor(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One input or output; the first dimension is the row, -1 is any length."""

    name: str
    datatype: str
    shape: tuple[int, ...] = (-1,)
    categories: tuple[str | int, ...] | None = None  # all values of an input, in the model's own order

    @cached_property
    def members(self) -> frozenset[str | int]:
        return frozenset(self.categories or ())

    def described(self) -> dict[str, Any]:
        """As the Open Inference Protocol's metadata has it."""
        return {"name": self.name, "datatype": self.datatype, "shape": self.shape}


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """The inputs and outputs of a model."""

    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One file of an artifact: path, size in bytes, SHA-256."""

    path: str  # where it lies in the store
    bytes: int
    sha256: str

    @property
    def place(self) -> str:
        """The path inside the artifact, without the digest prefix that `chips publish` may add."""
        return self.path.removeprefix(self.sha256[:16] + "/")


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A request and the response that the model must reproduce."""

    request: dict[str, Any]
    response: dict[str, Any]
    tolerance: float = 1e-6


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The manifest of one published version."""

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
    rows: Literal["independent", "together"] = "independent"
    pure: bool = False  # for the gateway: a request may be sent twice

    def main_file(self, *suffixes: str) -> str:
        """The path of the one file with such a suffix, or of the only file; ValueError where that names none, or several."""
        found = [
            file.place
            for file in self.files
            if file.place.endswith(suffixes) and file.place.rpartition("/")[2] not in SIDE_FILES
        ]
        if not found and len(self.files) == 1:
            return self.files[0].place  # people name models as they like; the loader looks into the file
        if len(found) != 1:
            raise ValueError(f"expected one file that ends in {' or '.join(suffixes)}, found {len(found)}")
        return found[0]


def parse_manifest(content: bytes) -> Manifest:
    """Read a manifest; ValueError says what is wrong. A path that leaves the artifact's folder is wrong."""
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"its manifest.json cannot be read: {error}") from None
    wrong = _first_problem(manifest)
    if wrong:
        raise ValueError(f"its manifest.json is wrong: {wrong}")
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
    known = MODEL_NAME.fullmatch(manifest.model) and VERSION.fullmatch(manifest.version)
    if not known or manifest.model == "v2":  # the root of the Open Inference Protocol
        return f"{manifest.model[:80]!r}@{manifest.version[:80]!r} is no model and version"
    return "" if manifest.format else "its format is empty"


def _problem_of_files(files: Sequence[File]) -> str:
    if not files:
        return "it names no files"
    for file in files:
        if not _stays_inside(file.path):
            return f"it names {file.path[:200]!r}, which lies outside of the artifact"
        if not _SHA256.fullmatch(file.sha256) or not 0 <= file.bytes <= _LARGEST_BYTES:
            return f"{file.path[:200]!r} has no valid size and SHA-256"
    places = [file.place for file in files]
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
        wrong = _wrong_categories(tensor.datatype, tensor.categories)
        if wrong:
            return f"{tensor.name[:80]!r}: {wrong}"
    names = {tensor.name for tensor in tensors}
    return f"two of the {what} have one name" if len(names) < len(tensors) else ""


def _wrong_categories(datatype: str, categories: Sequence[str | int] | None) -> str:
    if categories is None:
        return ""
    kind = str if datatype == "BYTES" else int if "INT" in datatype else None
    if kind is None:
        return f"categories are for BYTES, INT… and UINT…, not for {datatype}"
    if not categories or not all(type(value) is kind for value in categories):
        return f"the categories of {datatype} must be {'texts' if kind is str else 'whole numbers'}, at least one"
    return "" if len(set(categories)) == len(categories) else "a category is there twice"


def _stays_inside(path: str) -> bool:
    return not any(part in {"", ".", ".."} for part in path.split("/")) and not _NO_PATH.search(path)
