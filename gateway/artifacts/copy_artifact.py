"""Copy a published artifact from one artifact store to another.

The copy is bit for bit: what arrives has the digest that was asked for.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gateway.artifacts.artifact_store_interface import ArtifactStore, Progress, StoreError
from gateway.artifacts.manifest import File, Manifest, parse_manifest


def require_manifest_digest(store: ArtifactStore, model: str, version: str, digest: str) -> Manifest:
    """Check that an artifact's stored manifest has the digest.

    The digest is `sha256:…`. Returns the manifest. Raises StoreError.
    """
    where = store.address(model, version)
    content = store.manifest_content(model, version)
    if content is None:
        raise StoreError(f"there is no artifact at {where}")
    found = "sha256:" + hashlib.sha256(content).hexdigest()
    if found != digest:
        raise StoreError(f"the manifest at {where} has been changed: it is {found}, not {digest}")
    try:
        manifest = parse_manifest(content)
    except ValueError as error:
        raise StoreError(f"{where}: {error}") from None
    if (manifest.model, manifest.version) != (model, version):
        raise StoreError(f"the manifest at {where} is of {manifest.model} {manifest.version}")
    return manifest


def copy_artifact(
    source: ArtifactStore, target: ArtifactStore, model: str, version: str, digest: str, progress: Progress
) -> bool:
    """Copy an artifact from one store to another.

    Returns False where it was there already. Every file that is there in the end was checked. Raises StoreError.
    """
    manifest = require_manifest_digest(source, model, version, digest)
    if manifest.digest != digest:
        raise StoreError(
            f"the manifest at {source.address(model, version)} holds more than this release knows, so it cannot be "
            "copied bit for bit: use the release that published it"
        )
    if target.manifest_content(model, version) is not None:
        require_manifest_digest(target, model, version, digest)
        for file in manifest.files:
            for _ in _checked_blocks(target, manifest, file, progress):
                pass
        return False
    if (
        target.with_stored_paths(manifest).digest != digest
    ):  # before it takes the version's place there for good
        raise StoreError(
            "a folder and a bucket name an artifact's files in different ways, so the copy would have another digest: "
            "copy between stores of one kind"
        )
    with tempfile.TemporaryDirectory(prefix="chips-copy-") as name:
        files = {
            file.path: _fetched(source, manifest, file, Path(name) / str(number), progress)
            for number, file in enumerate(manifest.files)
        }
        target.publish(manifest, files, progress)
    require_manifest_digest(target, model, version, digest)
    return True


def _fetched(store: ArtifactStore, manifest: Manifest, file: File, path: Path, progress: Progress) -> Path:
    try:
        with path.open("xb") as writer:
            writer.writelines(_checked_blocks(store, manifest, file, progress))
    except OSError as error:
        raise StoreError(f"{file.path_without_digest} cannot be copied: {error.strerror}") from error
    return path


def _checked_blocks(
    store: ArtifactStore, manifest: Manifest, file: File, progress: Progress
) -> Iterator[bytes]:
    """The bytes of a file. StoreError, at the end, where they are not those of the manifest."""
    digest, size = hashlib.sha256(), 0
    try:
        for block in store.unverified_file_blocks(manifest, file):
            digest.update(block)
            size += len(block)
            yield block
            progress(len(block))
    except FileNotFoundError:
        raise StoreError(
            f"{file.path_without_digest} is missing in the artifact {manifest.model} {manifest.version}"
        ) from None
    except OSError as error:
        raise StoreError(f"{file.path_without_digest} cannot be read: {error.strerror}") from error
    if (digest.hexdigest(), size) != (file.sha256, file.bytes):
        raise StoreError(
            f"{file.path_without_digest} of {manifest.model} {manifest.version} is not what was published: "
            f"{size} bytes of SHA-256 {digest.hexdigest()}, not {file.bytes} of {file.sha256}"
        )
