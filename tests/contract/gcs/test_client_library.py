"""The Cloud Storage server of the tests, compared with Google's own client library: what that accepts, we may test with."""

import base64
import gc
import gzip
import hashlib
import io
import warnings
from collections.abc import Iterator
from random import Random
from typing import Any

import google_crc32c
import pytest
from google.api_core import exceptions

from gateway.make_cloud_storage_client import make_storage_client
from tests.gcs.fixture import Gcs

DATA = Random(1).randbytes(300_000)
ODD_NAME = "dir/a b+ü.bin"


@pytest.fixture
def client(gcs: Gcs) -> Iterator[Any]:
    client = make_storage_client(project="p")
    yield client
    client.close()
    with warnings.catch_warnings():
        # The library leaves the answer of a failed download open; that is not what these tests are about.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def bucket(client: Any, gcs: Gcs) -> Any:
    return client.bucket(gcs.bucket)


def put(bucket: Any, name: str = "once", data: bytes = b"1", **options: Any) -> Any:
    blob = bucket.blob(name)
    blob.upload_from_string(data, **options)
    return blob


def test_a_bucket_is_created_once(client):
    client.create_bucket("made-once")
    with pytest.raises(exceptions.Conflict):
        client.create_bucket("made-once")
    client.get_bucket("made-once").delete()


def test_a_bucket_that_is_missing(client):
    with pytest.raises(exceptions.NotFound):
        client.get_bucket("nope-nope")


def test_buckets_are_listed(client, gcs):
    assert gcs.bucket in [bucket.name for bucket in client.list_buckets()]


def test_a_bucket_with_objects_is_not_deleted(bucket):
    put(bucket)
    with pytest.raises(exceptions.Conflict):
        bucket.delete()


def test_what_goes_up_comes_down(bucket):
    put(bucket, ODD_NAME, DATA, content_type="application/x-test")
    assert bucket.blob(ODD_NAME).download_as_bytes() == DATA


def test_metadata_of_an_object(bucket):
    put(bucket, ODD_NAME, DATA, content_type="application/x-test")
    blob = bucket.get_blob(ODD_NAME)
    assert blob.size == len(DATA)
    assert blob.content_type == "application/x-test"
    assert blob.md5_hash == base64.b64encode(hashlib.md5(DATA, usedforsecurity=False).digest()).decode()
    assert blob.crc32c == base64.b64encode(google_crc32c.Checksum(DATA).digest()).decode()
    assert blob.generation > 0
    assert blob.metageneration == 1
    assert blob.etag


def test_an_object_that_is_missing(bucket):
    assert bucket.get_blob("zzz") is None
    assert not bucket.blob("zzz").exists()
    with pytest.raises(exceptions.NotFound):
        bucket.blob("zzz").download_as_bytes()


def test_an_object_that_is_there_exists(bucket):
    assert put(bucket).exists()


def test_create_only_if_absent(bucket):
    put(bucket, data=b"1", if_generation_match=0)
    with pytest.raises(exceptions.PreconditionFailed):
        put(bucket, data=b"2", if_generation_match=0)
    assert bucket.blob("once").download_as_bytes() == b"1"


def test_compare_and_swap_by_generation(bucket):
    put(bucket)
    generation = bucket.get_blob("once").generation
    put(bucket, data=b"2", if_generation_match=generation)
    with pytest.raises(exceptions.PreconditionFailed):
        put(bucket, data=b"3", if_generation_match=generation)
    assert bucket.get_blob("once").generation > generation


def test_a_stale_delete(bucket):
    with pytest.raises(exceptions.PreconditionFailed):
        put(bucket).delete(if_generation_match=12345)


def test_a_delete(bucket):
    put(bucket).delete()
    assert not bucket.blob("once").exists()


def test_a_download_of_another_generation(bucket):
    with pytest.raises(exceptions.PreconditionFailed):
        put(bucket).download_as_bytes(if_generation_match=12345)


@pytest.mark.parametrize("attribute", ["generation", "etag"])
def test_a_download_only_if_changed(bucket, attribute):
    put(bucket)
    now = getattr(bucket.get_blob("once"), attribute)
    with pytest.raises(Exception, match="304"):
        bucket.blob("once").download_as_bytes(**{f"if_{attribute}_not_match": now})


def test_a_reload_only_if_changed(bucket):
    put(bucket)
    blob = bucket.get_blob("once")
    with pytest.raises(exceptions.NotModified):
        blob.reload(if_metageneration_not_match=blob.metageneration)


def test_an_overwritten_generation_is_gone(bucket):
    old = put(bucket).generation
    put(bucket, data=b"2")
    with pytest.raises(exceptions.NotFound):
        bucket.blob("once", generation=old).download_as_bytes()


def test_an_overwritten_generation_stays_with_versioning(client, gcs):
    bucket = client.bucket(gcs.bucket + "-v")
    bucket.versioning_enabled = True
    bucket.create()
    old = put(bucket).generation
    put(bucket, data=b"2")
    assert bucket.blob("once", generation=old).download_as_bytes() == b"1"
    bucket.blob("once").delete()
    assert not bucket.blob("once").exists()
    assert bucket.blob("once", generation=old).download_as_bytes() == b"1"


def test_a_resumable_upload_in_chunks(bucket):
    data = Random(2).randbytes(3_000_000)
    blob = bucket.blob("resumable")
    blob.chunk_size = 256 * 1024
    blob.upload_from_file(io.BytesIO(data), size=len(data))
    assert bucket.blob("resumable").download_as_bytes() == data


def test_a_resumable_upload_of_unknown_size(bucket):
    data = Random(3).randbytes(1_000_000)
    blob = bucket.blob("resumable")
    blob.chunk_size = 256 * 1024
    with blob.open("wb") as stream:
        stream.write(data)
    assert bucket.blob("resumable").download_as_bytes() == data


def test_a_resumable_upload_over_an_existing_object(bucket):
    put(bucket)
    data = Random(4).randbytes(9_000_000)
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("once").upload_from_file(io.BytesIO(data), size=len(data), if_generation_match=0)


def test_an_upload_with_a_wrong_checksum(bucket):
    blob = bucket.blob("bad")
    blob.md5_hash = base64.b64encode(b"0" * 16).decode()
    with pytest.raises(exceptions.GoogleAPICallError):
        blob.upload_from_string(b"abc", checksum=None)
    assert not bucket.blob("bad").exists()


@pytest.mark.parametrize("checksum", ["crc32c", "md5", "auto"])
def test_checksums_both_ways(bucket, checksum):
    put(bucket, "checked", DATA, checksum=checksum)
    assert bucket.blob("checked").download_as_bytes(checksum=checksum) == DATA


def test_parts_of_an_object(bucket):
    blob = put(bucket, "parts", DATA)
    assert blob.download_as_bytes(start=10, end=19) == DATA[10:20]
    assert blob.download_as_bytes(start=299_990) == DATA[299_990:]
    with pytest.raises(exceptions.RequestRangeNotSatisfiable):
        blob.download_as_bytes(start=400_000)


def test_reading_like_a_file(bucket):
    put(bucket, "file", DATA)
    with bucket.blob("file").open("rb", chunk_size=65536) as stream:
        stream.seek(1000)
        assert stream.read(100) == DATA[1000:1100]


def test_listing_with_prefix_and_delimiter(client, bucket):
    for name in ("p/1", "p/2", "p/q/3", "p/q/4", "r"):
        put(bucket, name)
    assert [blob.name for blob in client.list_blobs(bucket.name, prefix="p/")] == [
        "p/1",
        "p/2",
        "p/q/3",
        "p/q/4",
    ]
    found = client.list_blobs(bucket.name, prefix="p/", delimiter="/")
    assert [blob.name for blob in found] == ["p/1", "p/2"]
    assert found.prefixes == {"p/q/"}


def test_listing_by_pages(client, bucket):
    for name in "abcd":
        put(bucket, name)
    assert [len(list(page)) for page in client.list_blobs(bucket.name, page_size=2).pages] == [2, 2]
    assert len(list(client.list_blobs(bucket.name, max_results=3))) == 3
    assert [blob.name for blob in client.list_blobs(bucket.name, start_offset="c")] == ["c", "d"]


def test_custom_metadata(bucket):
    put(bucket)
    blob = bucket.get_blob("once")
    blob.metadata = {"sha256": "abc"}
    blob.patch()
    again = bucket.get_blob("once")
    assert (again.metadata, again.metageneration) == ({"sha256": "abc"}, 2)
    again.metadata = {"q": "1"}
    with pytest.raises(exceptions.PreconditionFailed):
        again.patch(if_metageneration_match=1)


def test_copy_rewrite_compose(bucket):
    blob = put(bucket, data=b"2")
    bucket.copy_blob(blob, bucket, "copy")
    assert bucket.blob("copy").download_as_bytes() == b"2"
    token, _, _ = bucket.blob("rewritten").rewrite(blob)
    assert token is None
    bucket.blob("both").compose([bucket.blob("once"), bucket.blob("rewritten")])
    assert bucket.blob("both").download_as_bytes() == b"22"


def test_a_batch_of_deletions(client, bucket):
    put(bucket, "a")
    put(bucket, "b")
    with client.batch():
        bucket.blob("a").delete()
        bucket.blob("b").delete()
    assert not bucket.blob("a").exists()
    assert not bucket.blob("b").exists()


def test_gzip_is_taken_apart_for_who_does_not_take_it(bucket):
    blob = bucket.blob("gz")
    blob.content_encoding = "gzip"
    blob.upload_from_string(gzip.compress(b"hello" * 1000), content_type="text/plain")
    assert bucket.blob("gz").download_as_bytes() == b"hello" * 1000


def test_the_client_repeats_what_failed_for_a_moment(bucket, gcs):
    put(bucket)
    gcs.fault(method="GET", path="alt=media|/download/", status=503, times=2)
    assert bucket.blob("once").download_as_bytes() == b"1"


def test_the_client_notices_corruption(bucket, gcs):
    put(bucket)
    gcs.fault(method="GET", path="/download/", corrupt=True, times=10)
    with pytest.raises(Exception, match=r"[Cc]hecksum"):
        bucket.blob("once").download_as_bytes(checksum="md5")
