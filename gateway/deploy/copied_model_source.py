"""Record where the model in a backend folder was copied from. So an old copy is noticed."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec

SOURCE_NAME: Final = "source.json"
COPY_NAME: Final = "trained"
REQUIREMENTS_NAME: Final = "requirements.txt"

SourceKind = Literal["saved", "mlflow", "vetiver", "hf"]


class CopiedModelSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the model in a backend folder was copied from.

    It is the folder's `source.json`. Digests are SHA-256 in hexadecimal.
    """

    kind: SourceKind  # "saved": a folder that `save` wrote, or a model's file
    place: str  # a path relative to the folder, or an address that only another tool can resolve
    is_path: bool = True
    source_digest: str = ""  # of the files at `place`, when they were copied; empty for an address
    copy_digest: str  # of trained/, as it was written
    requirements_digest: str = ""  # of requirements.txt, as it was written
    samples: bool = True  # whether the model answered its example

    def copied_from(self, backend_folder: Path) -> Path:
        """The path that the model was copied from."""
        return Path(os.path.normpath(backend_folder.absolute() / self.place))

    def display_text(self, backend_folder: Path) -> str:
        """The source as a text for people, as they write it."""
        place = str(self.copied_from(backend_folder)) if self.is_path else self.place
        return place if self.kind == "saved" else f"{self.kind}:{place}"

    def has_changed(self, backend_folder: Path) -> bool:
        """Whether the source has changed since it was copied. A source that is not there, or is an address, has not."""
        path = self.copied_from(backend_folder)
        return self.is_path and path.exists() and content_digest(path) != self.source_digest

    def is_copy_edited(self, backend_folder: Path) -> bool:
        return content_digest(backend_folder / COPY_NAME) != self.copy_digest

    def are_requirements_edited(self, backend_folder: Path) -> bool:
        return content_digest(backend_folder / REQUIREMENTS_NAME) != self.requirements_digest


def read_source(folder: Path) -> CopiedModelSource | None:
    """Read where the model in a backend folder was copied from.

    None where the model was not copied. ValueError where the record is damaged.
    """
    path = folder / SOURCE_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=CopiedModelSource)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}; delete it to deploy the folder as it is") from None


def write_source(
    folder: Path,
    kind: SourceKind,
    place: Path | str,
    *,
    source_digest: str,
    requirements_digest: str | None = None,
    samples: bool = True,
) -> None:
    """Record where the model in a backend folder was copied from.

    It is in trained/ of `folder`; `place` is a path or an address. `source_digest`: of the files there before they were
    copied. `requirements_digest`: where requirements.txt was edited, that of what was written before.
    """
    if requirements_digest is None:
        requirements_digest = content_digest(folder / REQUIREMENTS_NAME)
    record = CopiedModelSource(
        kind=kind,
        place=os.path.relpath(place.resolve(), folder.resolve()) if isinstance(place, Path) else place,
        is_path=isinstance(place, Path),
        source_digest=source_digest,
        copy_digest=content_digest(folder / COPY_NAME),
        requirements_digest=requirements_digest,
        samples=samples,
    )
    (folder / SOURCE_NAME).write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")


def content_digest(path: Path) -> str:
    """The digest of a file, or of all files below a folder.

    Of a file it covers the content, of a folder the names and contents; it is empty where there is nothing.
    """
    if not path.exists():
        return ""
    found = hashlib.sha256()
    for name, file in _files(path):
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        found.update(f"{len(name)} {name} {content}\n".encode())
    return found.hexdigest()


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    if path.is_file():
        yield "", path
        return
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path)
        if file.is_file() and "__pycache__" not in name.parts:
            yield name.as_posix(), file
