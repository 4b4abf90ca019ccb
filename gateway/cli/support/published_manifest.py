"""Read the published manifest of a backend's artifact, for the samples that the backend must reproduce."""

import hashlib
from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

import typer

from gateway.artifacts.base import StoreError
from gateway.artifacts.manifest import MANIFEST_NAME, Manifest, parse_manifest
from gateway.artifacts.store import open_store
from gateway.cli.support import console
from gateway.cli.support.backend_probe import ModelMetadata
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
    """The samples of the artifact that the backend says it loaded; empty where its manifest cannot be read from here."""
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
    """The manifest of the artifact at `address`; None where it cannot be read from here."""
    content = _manifest_at(settings, address, model, version)
    try:
        return None if content is None else parse_manifest(content)
    except ValueError as error:
        console.note(f"{address}: {error}")
        return None


def _manifest_at(settings: Settings, address: str, model: str, version: str) -> bytes | None:
    if not address:
        return None
    if settings.artifacts:
        try:
            with closing(open_store(settings.artifacts, state_folder=state_folder())) as store:
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
