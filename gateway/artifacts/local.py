"""An artifact store in a local folder."""

import glob
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import uuid4

from gateway.artifacts.artifact_store_interface import (
    PermissionRefused,
    Progress,
    StoreError,
    StoreUnavailable,
    is_published,
)
from gateway.artifacts.manifest import MANIFEST_NAME, File, Manifest, parse_manifest

_BLOCK_BYTES = 1 << 20


class LocalStore:
    """An artifact store in a local folder, as ROOT/MODEL/VERSION/."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def address(self, model: str, version: str) -> str:
        return str(self._folder(model, version))

    def manifest(self, model: str, version: str) -> Manifest | None:
        content = self.manifest_content(model, version)
        try:
            return None if content is None else parse_manifest(content)
        except ValueError as error:
            raise StoreError(f"{self.address(model, version)}: {error}") from error

    def manifest_content(self, model: str, version: str) -> bytes | None:
        path = self._folder(model, version) / MANIFEST_NAME
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreError(f"{path}: {error}") from error

    def versions(self, model: str | None = None) -> list[tuple[str, str]]:
        found = self._root.glob(f"{glob.escape(model) if model else '*'}/*/{MANIFEST_NAME}")
        names = [path.parent.relative_to(self._root).parts for path in found]
        return sorted(
            (name, version)
            for name, version in names
            if not (name.startswith(".") or version.startswith("."))
        )

    def unverified_file_blocks(self, manifest: Manifest, file: File) -> Iterator[bytes]:
        path = self._folder(manifest.model, manifest.version) / file.path
        try:
            with path.open("rb") as stream:
                while block := stream.read(_BLOCK_BYTES):
                    yield block
        except PermissionError as error:
            raise PermissionRefused(f"no permission to read {path}") from error

    def with_stored_paths(self, manifest: Manifest) -> Manifest:
        return manifest

    def publish(self, manifest: Manifest, files: Mapping[str, Path], progress: Progress) -> bool:
        folder = self._folder(manifest.model, manifest.version)
        if is_published(self, manifest):
            return False
        # Everything is put together next to its place and appears there in one rename, manifest and all.
        draft = folder.parent / f".{folder.name}.{uuid4().hex}"
        try:
            draft.mkdir(parents=True)
            for file in manifest.files:
                _copy(files[file.path], draft / file.path, file.sha256, progress)
            with (draft / MANIFEST_NAME).open("xb") as writer:
                writer.write(manifest.encode())
                writer.flush()
                os.fsync(writer.fileno())
            return self._commit(draft, folder, manifest)
        except PermissionError as error:
            raise PermissionRefused(f"no permission to write {error.filename}") from error
        except OSError as error:
            raise StoreUnavailable(f"{folder} cannot be written: {error.strerror or error}") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def close(self) -> None: ...

    def _commit(self, draft: Path, folder: Path, manifest: Manifest) -> bool:
        try:
            draft.rename(folder)  # fails where the folder is there and not empty
        except OSError:
            if not is_published(self, manifest):
                raise
            return False
        return True

    def _folder(self, model: str, version: str) -> Path:
        return self._root / model / version


def _copy(source: Path, target: Path, sha256: str, progress: Progress) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with source.open("rb") as reader, target.open("xb") as writer:
        while block := reader.read(_BLOCK_BYTES):
            digest.update(block)
            writer.write(block)
            progress(len(block))
        writer.flush()
        os.fsync(writer.fileno())
    if digest.hexdigest() != sha256:
        raise StoreError(f"{source} changed while it was published; publish again when it is finished")
