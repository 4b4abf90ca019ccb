"""The second place of the history in a bucket, by Google's client: created once, and held by a locked retention policy."""

from collections.abc import Iterator
from typing import Any

import pytest
from google.api_core import exceptions

from gateway.audit.anchor_store import BucketAnchorStore
from gateway.make_cloud_storage_client import make_storage_client
from gateway.registry.base import RegistryError, Unavailable
from tests.gcs.fixture import Gcs


@pytest.fixture
def client(gcs: Gcs) -> Iterator[Any]:
    client = make_storage_client(project="p")
    yield client
    client.close()


async def test_what_is_there_is_created_once_and_read_back(gcs: Gcs):
    place = BucketAnchorStore(gcs.bucket, "prod")
    assert await place.read_all() == {}
    assert await place.create("r1/1.json", b"one")
    assert not await place.create("r1/1.json", b"two")
    assert await BucketAnchorStore(gcs.bucket, "").create("r1/1.json", b"elsewhere")
    assert await place.read_all() == {"r1/1.json": b"one"}
    assert str(place) == f"gs://{gcs.bucket}/prod"


async def test_a_bucket_without_a_lock_is_a_concern(gcs: Gcs, client: Any):
    place = BucketAnchorStore(gcs.bucket, "")
    (concern,) = await place.retention_concerns()
    assert "no retention policy" in concern
    bucket = client.get_bucket(gcs.bucket)
    bucket.retention_period = 365 * 86400
    bucket.patch()
    (concern,) = await place.retention_concerns()
    assert "not locked" in concern
    bucket.reload()
    bucket.lock_retention_policy()
    assert await place.retention_concerns() == ()


async def test_a_locked_policy_holds_what_is_there_against_its_owner(gcs: Gcs, client: Any):
    place = BucketAnchorStore(gcs.bucket, "")
    bucket = client.get_bucket(gcs.bucket)
    bucket.retention_period = 86400
    bucket.patch()
    bucket.lock_retention_policy()
    await place.create("r1/1.json", b"one")
    blob = bucket.blob("r1/1.json")
    with pytest.raises(exceptions.Forbidden, match="retention policy"):
        blob.delete()
    with pytest.raises(exceptions.Forbidden, match="retention policy"):
        blob.upload_from_string(b"two")
    bucket.retention_period = None
    with pytest.raises(exceptions.Forbidden, match="Cannot reduce"):
        bucket.patch()
    assert await place.read_all() == {"r1/1.json": b"one"}


async def test_a_bucket_that_is_not_there_or_does_not_answer(gcs: Gcs, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(RegistryError, match="objectCreator"):
        await BucketAnchorStore("no-such-bucket", "").create("r1/1.json", b"")
    gcs.fault(method="POST", path="/upload", status=403)
    with pytest.raises(RegistryError, match="no permission"):
        await BucketAnchorStore(gcs.bucket, "").create("r1/1.json", b"")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    monkeypatch.setattr("gateway.audit.anchor_store._TIMEOUT_S", 0.2)
    monkeypatch.setattr("gateway.audit.anchor_store._RETRY_S", 0.2)
    with pytest.raises(Unavailable, match="cannot be reached"):
        await BucketAnchorStore(gcs.bucket, "").read_all()
