"""The interface of an artifact store: an immutable folder for each version, with its manifest. And its errors.

The folder is `<root>/<model>/<version>/`, with the files and, written last, their manifest. Until the manifest
is there nothing is published; once it is there nothing changes any more. The interface has no deletion.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from gateway.artifacts.manifest import File, Manifest

Progress = Callable[[int], None]  # called with the number of bytes that have newly arrived


class StoreError(Exception):
    """An operation of the artifact store failed. The text says why and what to do."""


class StoreUnavailable(StoreError):
    """The store cannot be reached now. A later attempt may succeed."""


class PermissionRefused(StoreError):
    """The store refuses permission. These credentials do not have it for the operation."""


class PublishedWithOtherContent(StoreError):
    """The version is published already with other content. A published version never changes."""

    def __init__(self, address: str) -> None:
        super().__init__(f"{address} is published already, with other content; a version never changes")


class ArtifactStore(Protocol):
    """The interface of an artifact store.

    Immutable versions of models are published there, each with a manifest. Its methods raise StoreError.
    """

    def address(self, model: str, version: str) -> str:
        """The address of a published artifact. It is a URI or a folder. A backend takes it in CHIPS_ARTIFACT."""

    def manifest(self, model: str, version: str) -> Manifest | None: ...

    def manifest_content(self, model: str, version: str) -> bytes | None:
        """The stored bytes of a version's manifest. None where it is not published. Their SHA-256 is the artifact's digest."""

    def versions(self, model: str | None = None) -> list[tuple[str, str]]:
        """List the published versions. They are those of one model or of all, as (model, version) in order."""

    def unverified_file_blocks(self, manifest: Manifest, file: File) -> Iterator[bytes]:
        """The content of one file of an artifact, block by block, as it is stored.

        It is not verified: the caller compares its SHA-256 with the manifest. Raises FileNotFoundError where it is not there.
        """

    def with_stored_paths(self, manifest: Manifest) -> Manifest:
        """The manifest with the paths under which this store keeps its files. In a bucket they begin with the file's digest."""

    def publish(self, manifest: Manifest, files: Mapping[str, Path], progress: Progress) -> bool:
        """Publish an artifact in the store.

        It stores the files, and then the manifest. `files` are by their path in the artifact. Returns False where the
        same is there already. Interrupted, it can be called again and goes on where it was. Raises
        PublishedWithOtherContent or another StoreError.
        """

    def close(self) -> None: ...


def is_published(store: ArtifactStore, manifest: Manifest) -> bool:
    """Whether this artifact is published in the store.

    Raises PublishedWithOtherContent where the version is published with other content.
    """
    published = store.manifest(manifest.model, manifest.version)
    if published is None:
        return False
    # A bucket's paths begin with digests; place by place the files are the same.
    ours, theirs = (
        msgspec.structs.replace(
            m, files=tuple(msgspec.structs.replace(f, path=f.path_without_digest) for f in m.files)
        )
        for m in (manifest, published)
    )
    if not ours.has_same_content_as(theirs):
        raise PublishedWithOtherContent(store.address(manifest.model, manifest.version))
    return True
