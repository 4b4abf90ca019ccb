"""The manifest of an artifact, as `chips publish` writes it."""

import re
from typing import Any, Final, Literal

import msgspec

MODEL_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")
VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
DATATYPES: Final = frozenset(
    {"BOOL", "BYTES", "FP16", "FP32", "FP64"}
    | {f"{kind}{bits}" for kind in ("INT", "UINT") for bits in (8, 16, 32, 64)}
)
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """One input or output; the first dimension is the row, -1 is any length."""

    name: str
    datatype: str
    shape: tuple[int, ...] = (-1,)


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()


class File(msgspec.Struct, frozen=True, kw_only=True):
    path: str  # where it lies in the store
    bytes: int
    sha256: str

    @property
    def place(self) -> str:
        """Its path in the artifact: what `chips publish` put before it, to name objects by their content, is left out."""
        return self.path.removeprefix(self.sha256[:16] + "/")


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
    rows: Literal["independent", "together"] = "independent"

    def main_file(self, *suffixes: str) -> str:
        """The path of the one file with such a suffix; ValueError where there is none, or more than one."""
        found = [file.place for file in self.files if file.place.endswith(suffixes)]
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


def _first_problem(manifest: Manifest) -> str:
    if not MODEL_NAME.fullmatch(manifest.model) or not VERSION.fullmatch(manifest.version):
        return f"{manifest.model[:80]!r}@{manifest.version[:80]!r} is no model and version"
    seen = set()
    for file in manifest.files:
        if not _stays_inside(file.path):
            return f"it names {file.path[:200]!r}, which lies outside of the artifact"
        if file.place in seen:
            return f"it names {file.place[:200]!r} twice"
        seen.add(file.place)
        if not _SHA256.fullmatch(file.sha256) or file.bytes < 0:
            return f"{file.path[:200]} has no valid size and SHA-256"
    for tensor in (*manifest.signature.inputs, *manifest.signature.outputs):
        if tensor.datatype not in DATATYPES:
            return f"{tensor.name[:80]!r} has the unknown datatype {tensor.datatype[:40]!r}"
    names = [tensor.name for tensor in manifest.signature.inputs]
    return "two inputs have one name" if len(set(names)) < len(names) else ""


def _stays_inside(path: str) -> bool:
    parts = path.split("/")
    return not any(part in {"", ".", ".."} for part in parts) and not {"\\", "\0"} & set(path)
