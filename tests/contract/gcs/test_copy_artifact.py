"""An artifact is copied between buckets bit for bit, and what was changed on the way is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.artifacts.artifact_store_interface import StoreError
from gateway.artifacts.copy_artifact import copy_artifact, require_manifest_digest
from gateway.artifacts.local import LocalStore
from gateway.artifacts.open_store_by_url import open_store
from gateway.artifacts.prepare_artifact import prepare_artifact
from gateway.make_cloud_storage_client import make_storage_client
from tests.gcs.fixture import Gcs


def nothing(_: int) -> None: ...


@pytest.fixture
def client(gcs: Gcs) -> Iterator[Any]:
    client = make_storage_client(project="p")
    yield client
    client.close()


def published(url: str, folder: Path) -> tuple[Any, str]:
    """A store with wine 4, and the digest of its manifest as it is stored."""
    source = folder / "trained"
    source.mkdir(exist_ok=True)
    (source / "model.joblib").write_bytes(b"\x80weights")
    (source / "more.bin").write_bytes(b"more")
    prepared = prepare_artifact(source, model="wine", version="4", created_by="ana")
    store = open_store(url, upload_state_folder=folder / "state")
    store.publish(prepared.manifest, dict(prepared.files), nothing)
    manifest = store.manifest("wine", "4")
    assert manifest is not None
    return store, manifest.digest


def test_between_buckets_and_into_a_folder(gcs: Gcs, tmp_path: Path):
    store, digest = published(f"gs://{gcs.bucket}/qa", tmp_path)
    for target in (
        open_store(f"gs://{gcs.bucket}/prod", upload_state_folder=tmp_path / "state"),
        LocalStore(tmp_path / "prod"),
    ):
        assert copy_artifact(store, target, "wine", "4", digest, nothing)
        assert target.manifest_content("wine", "4") == store.manifest_content("wine", "4")
        manifest = require_manifest_digest(target, "wine", "4", digest)
        assert {b"".join(target.unverified_file_blocks(manifest, file)) for file in manifest.files} == {
            b"\x80weights",
            b"more",
        }
        assert not copy_artifact(store, target, "wine", "4", digest, nothing)
        target.close()
    store.close()


def test_from_a_folder_into_a_bucket_is_refused_where_the_digest_would_change(gcs: Gcs, tmp_path: Path):
    store, digest = published(str(tmp_path / "qa"), tmp_path)
    target = open_store(f"gs://{gcs.bucket}/prod", upload_state_folder=tmp_path / "state")
    with pytest.raises(StoreError, match="copy between stores of one kind"):
        copy_artifact(store, target, "wine", "4", digest, nothing)
    assert target.versions() == [], "the version is still free for the artifact that was approved"
    target.close()


def test_an_object_that_was_uploaded_again(gcs: Gcs, tmp_path: Path, client: Any):
    store, digest = published(f"gs://{gcs.bucket}/qa", tmp_path)
    (name,) = [blob.name for blob in client.list_blobs(gcs.bucket) if blob.name.endswith("model.joblib")]
    client.bucket(gcs.bucket).blob(name).upload_from_string(b"\x80WEIGHTS")
    target = LocalStore(tmp_path / "prod")
    with pytest.raises(StoreError, match=r"model\.joblib of wine 4 is not what was published"):
        copy_artifact(store, target, "wine", "4", digest, nothing)
    assert target.versions() == []
    store.close()
