"""Open an artifact store by its URL: `gs://bucket/prefix`, or a folder."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from gateway.artifacts.artifact_store_interface import ArtifactStore, StoreError


def open_store(url: str, *, upload_state_folder: Path) -> ArtifactStore:
    """Open the store at `url`. `upload_state_folder` keeps what is needed to resume an interrupted upload."""
    if not url:
        raise StoreError(
            "no artifact store is set: use --store, or set CHIPS_ARTIFACTS to gs://bucket/prefix or a folder"
        )
    parts = urlsplit(url)
    if parts.scheme == "gs":
        from gateway.artifacts.gcs import GcsStore

        if not parts.netloc:
            raise StoreError(f"{url} names no bucket: write gs://bucket/prefix")
        return GcsStore(parts.netloc, parts.path.strip("/"), upload_state_folder)
    if parts.scheme in {"", "file"}:
        from gateway.artifacts.local import LocalStore

        return LocalStore(Path(unquote(parts.path) if parts.scheme else url).absolute())
    raise StoreError(f'"{parts.scheme}" is no kind of artifact store: use gs://bucket/prefix or a folder')
