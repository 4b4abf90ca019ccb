"""The fallback copy: whole or not at all, only ever newer, for its owner only."""

import asyncio
from pathlib import Path

import pytest

from gateway.registry.base import MODELS, Put, RegistryError, Unavailable
from gateway.registry.fallback_copy import (
    CloudStorageFallback,
    FileFallback,
    decode_fallback,
    encode_fallback,
    open_fallback,
    refresh_fallback,
)
from gateway.registry.memory import MemoryRegistry
from tests.gcs.fixture import Gcs
from tests.unit.registry.scripted import listing, model, revocation

FULL = listing(7, model("wine"), model("beer", description="Ünï\n\u2028"), revocation("abc"))


@pytest.fixture(params=["file", "gs"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return f"file:{tmp_path}/new/folder/fallback.gz"
    gcs: Gcs = request.getfixturevalue("gcs")
    return f"gs://{gcs.bucket}/chips/fallback.gz"


async def test_what_is_kept_is_what_was_saved(url: str):
    fallback = open_fallback(url)
    assert await fallback.load() is None
    assert await fallback.save_if_newer(FULL)
    kept = await open_fallback(url).load()
    assert kept is not None
    assert kept.listing == FULL
    assert -1 < kept.age_s < 60


async def test_an_older_listing_replaces_no_newer_one(url: str):
    fallback = open_fallback(url)
    assert await fallback.save_if_newer(listing(7))
    assert not await fallback.save_if_newer(listing(6))
    assert not await fallback.save_if_newer(listing(7))
    assert await fallback.save_if_newer(listing(8))
    assert await fallback.save_if_newer(listing(1, registry_id="another"))


async def test_many_writers_leave_the_newest(url: str):
    clients = [open_fallback(url) for _ in range(4)]
    await asyncio.gather(
        *(client.save_if_newer(listing(n)) for n, client in enumerate(clients, 1)), return_exceptions=True
    )
    await clients[0].save_if_newer(listing(4))
    kept = await clients[0].load()
    assert kept is not None
    assert kept.listing.generation == 4


async def test_a_writer_refreshes_it_from_the_registry(url: str):
    registry = MemoryRegistry()
    fallback = open_fallback(url)
    for n in (1, 2):
        await registry.write(Put(kind=MODELS, name=f"m{n}", body={}, expected=0), author="ana")
        assert await refresh_fallback(fallback, registry, with_keys=False)
        kept = await fallback.load()
        assert kept is not None
        assert kept.listing == await registry.load_mirrored()
    assert not await refresh_fallback(fallback, registry, with_keys=False)


async def test_one_that_is_damaged_is_replaced(tmp_path: Path):
    path = tmp_path / "fallback.gz"
    path.write_bytes(encode_fallback(FULL)[:-20])
    registry = MemoryRegistry()
    assert await refresh_fallback(FileFallback(path), registry, with_keys=False)
    assert await FileFallback(path).load() is not None


def test_a_part_of_it_is_never_taken_for_the_whole():
    whole = encode_fallback(FULL)
    for cut in range(len(whole)):
        with pytest.raises(RegistryError, match="damaged"):
            decode_fallback(whole[:cut], "here")


def test_a_flipped_bit_is_noticed():
    content = bytearray(encode_fallback(FULL))
    content[len(content) // 2] ^= 16
    with pytest.raises(RegistryError, match="damaged"):
        decode_fallback(bytes(content), "here")


async def test_a_file_is_for_its_owner_only(tmp_path: Path):
    path = tmp_path / "fallback.gz"
    await FileFallback(path).save_if_newer(FULL)
    assert path.stat().st_mode & 0o077 == 0
    assert [p.name for p in tmp_path.iterdir()] == ["fallback.gz"], "nothing else is left behind"


async def test_storage_that_refuses_or_is_away(gcs: Gcs):
    fallback = CloudStorageFallback(gcs.bucket, "fallback.gz")
    gcs.fault(status=403, path="fallback")
    with pytest.raises(RegistryError, match="no permission"):
        await fallback.load()
    gcs.clear()
    gcs.fault(status=503, path="fallback")
    with pytest.raises(Unavailable):
        await fallback.load()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "fallback.gz",
        "file:fallback.gz",
        "file://host/fallback.gz",
        "file:/folder/",
        "gs://bucket",
        "gs:///object",
        "gs://b/o?x=1",
        "s3://bucket/object",
        "gs://user:secret@bucket/o",
    ],
)
def test_what_is_no_fallback(url: str):
    with pytest.raises(ValueError, match="fallback"):
        open_fallback(url)
