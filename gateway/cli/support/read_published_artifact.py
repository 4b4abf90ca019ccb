"""Read the manifest, the samples or the model card of a backend's published artifact."""

import hashlib
from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

import typer

from gateway.artifacts.artifact_store_interface import ArtifactStore, StoreError
from gateway.artifacts.copy_artifact import require_manifest_digest
from gateway.artifacts.manifest import MANIFEST_NAME, Manifest, parse_manifest
from gateway.artifacts.model_card_sections import CARD_NAME, MAX_BYTES, card_evidence
from gateway.artifacts.open_store_by_url import open_store
from gateway.cli.support import console
from gateway.cli.support.backend_probe import ModelMetadata
from gateway.core.model import Backend
from gateway.core.version_evidence import EvidenceRecord
from gateway.settings import Settings, state_folder
from gateway.verify.run import ArtifactManifestSubset, parse_manifest_or_samples

RowsOption = Annotated[
    Literal["independent", "together"] | None,
    typer.Option(
        help="`together`: the model looks at all rows of a request on purpose, as one that ranks them does. "
        "[default: what the backend says]"
    ),
]


def published_samples(settings: Settings, metadata: ModelMetadata, version: str) -> ArtifactManifestSubset:
    """The samples of a backend's published artifact.

    The backend says which artifact it loaded. Empty where its manifest cannot be read from here.
    """
    address = metadata.text_parameter("artifact")
    content = _manifest_at(settings, address, metadata.name, version)
    if content is None:
        return ArtifactManifestSubset()
    digest = metadata.text_parameter("artifact_digest")
    if digest and digest != "sha256:" + hashlib.sha256(content).hexdigest():
        console.note(
            f"what lies at {address} is not what the backend loaded, so its samples are not compared"
        )
        return ArtifactManifestSubset()
    try:
        return parse_manifest_or_samples(content, address)
    except ValueError as error:
        console.note(f"its samples are not compared: {error}")
        return ArtifactManifestSubset()


def published_manifest(settings: Settings, address: str, model: str, version: str) -> Manifest | None:
    """The manifest of the artifact at `address`. None where it cannot be read from here."""
    content = _manifest_at(settings, address, model, version)
    try:
        return None if content is None else parse_manifest(content)
    except ValueError as error:
        console.note(f"{address}: {error}")
        return None


def published_card(store_url: str, model: str, backend: Backend) -> EvidenceRecord | None:
    """The published model card of a version, as evidence.

    The artifact's digest tells which. None where there is none, or none that can be read from here.
    """
    root = _root_of(store_url, model, backend)
    if not root:
        return None
    try:
        with closing(open_store(root, upload_state_folder=state_folder())) as store:
            content = _card_in(store, model, backend)
    except StoreError as error:
        console.note(f"the model card cannot be read: {error}")
        return None
    return None if content is None else card_evidence(model, backend, content)


def _root_of(store_url: str, model: str, backend: Backend) -> str:
    """The store that holds the version's artifact: the one that is set, or a folder of this machine. Empty where it is unknown."""
    address, place = backend.artifact.rstrip("/"), f"/{model}/{backend.version}"
    if not backend.artifact_digest:
        return ""
    if store_url:
        try:
            with closing(open_store(store_url, upload_state_folder=state_folder())) as store:
                if address in {"", store.address(model, backend.version).rstrip("/")}:
                    return store_url
        except StoreError:
            return ""
    is_folder = urlsplit(address).scheme in {"", "file"} and address.endswith(place)
    return address.removesuffix(place) if is_folder else ""


def _card_in(store: ArtifactStore, model: str, backend: Backend) -> bytes | None:
    """The bytes of card.md. Raises StoreError where they are not what was published."""
    if store.manifest_content(model, backend.version) is None:
        return None
    manifest = require_manifest_digest(store, model, backend.version, backend.artifact_digest)
    file = next((file for file in manifest.files if file.path_without_digest == CARD_NAME), None)
    if file is None:
        return None
    content, where = b"", store.address(model, backend.version)
    try:
        for block in store.unverified_file_blocks(manifest, file):
            content += block
            if len(content) > MAX_BYTES:  # no card, whatever its digest
                return content
    except OSError as error:
        raise StoreError(f"{CARD_NAME} is missing at {where}: {error}") from None
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise StoreError(f"{CARD_NAME} at {where} has been changed since it was published")
    return content


def _manifest_at(settings: Settings, address: str, model: str, version: str) -> bytes | None:
    if not address:
        return None
    if settings.artifacts:
        try:
            with closing(open_store(settings.artifacts, upload_state_folder=state_folder())) as store:
                if store.address(model, version).rstrip("/") == address.rstrip("/"):
                    return store.manifest_content(model, version)
        except StoreError as error:
            console.note(f"the artifact's samples cannot be read, so they are not compared: {error}")
            return None
    parts = urlsplit(address)
    if parts.scheme not in {"", "file"}:
        return None
    try:
        return (Path(unquote(parts.path) if parts.scheme else address) / MANIFEST_NAME).read_bytes()
    except OSError:  # a folder of another machine
        return None
