"""The watch on Firestore's Listen stream, where it does what the emulator never does."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from gateway.registry.base import MirroredListing, RegistryError, Unavailable
from gateway.registry.firestore.location import FirestoreLocation
from gateway.registry.firestore.registry import FirestoreRegistry
from gateway.registry.mirror import Mirror
from tests.firestore.fake import (
    FakeFirestore,
    consistent,
    existence_filter,
    hang,
    target_change,
)
from tests.patience import patience


@pytest.fixture
async def fake() -> AsyncIterator[FakeFirestore]:
    fake = FakeFirestore()
    fake.host = await fake.start()  # type: ignore[attr-defined]
    fake.set("wine")
    fake.set("beer")
    yield fake
    await fake.stop()


@pytest.fixture
async def registry(fake: FakeFirestore) -> AsyncIterator[FirestoreRegistry]:
    registry = FirestoreRegistry(FirestoreLocation("test-project", "(default)", "chips", fake.host))  # type: ignore[attr-defined]
    yield registry
    await registry.close()


class Seen:
    """A watch that goes on after it breaks, as the mirror's does, and what it saw."""

    def __init__(self, registry: FirestoreRegistry) -> None:
        self.listings: list[MirroredListing] = []
        self.errors: list[Exception] = []
        self.looks = 0
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._run(registry))

    async def _run(self, registry: FirestoreRegistry) -> None:
        while True:
            try:
                async for listing in registry.watch():
                    if listing is None:
                        self.looks += 1
                    else:
                        self.listings.append(listing)
                    self._changed.set()
            except RegistryError as error:
                self.errors.append(error)
                self._changed.set()
                if len(self.errors) > 50:
                    raise
                await asyncio.sleep(0.01)

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(patience(20)):
            while not condition(self):
                if self._task.done():
                    self._task.result()
                self._changed.clear()
                await self._changed.wait()

    async def until_names(self, *names: str) -> None:
        await self.until(lambda seen: seen.listings and seen.names() == sorted(names))

    def names(self) -> list[str]:
        return sorted(document.name for document in self.listings[-1].documents)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.fixture
async def seen(registry: FirestoreRegistry) -> AsyncIterator[Any]:
    watches = []

    def begin() -> Seen:
        watches.append(Seen(registry))
        return watches[-1]

    yield begin
    for watch in watches:
        await watch.stop()


async def test_changes_come_as_deltas(fake: FakeFirestore, seen):
    go = asyncio.Event()

    async def change() -> list[Any]:
        await go.wait()
        fake.set("tea")
        return [*fake.told("models:tea", "head"), consistent(3)]

    async def nothing_new() -> list[Any]:
        return [consistent(4), consistent(5)]

    fake.scripts = [lambda fake, since: [*fake.initial(since), change, nothing_new, hang]]
    watch = seen()
    await watch.until_names("beer", "wine")
    go.set()
    await watch.until_names("beer", "tea", "wine")
    await watch.until(lambda seen: seen.looks >= 2)
    generations = [listing.generation for listing in watch.listings]
    assert generations == sorted(set(generations)), "what did not change is not told again"
    assert watch.errors == []


async def test_half_a_batch_is_never_shown(fake: FakeFirestore, seen):
    half, whole = asyncio.Event(), asyncio.Event()

    async def first_half() -> list[Any]:
        fake.set("tea")
        half.set()
        return fake.told("models:tea")

    async def second_half() -> list[Any]:
        await whole.wait()
        return [*fake.told("head"), consistent(4)]

    fake.scripts = [lambda fake, since: [*fake.initial(since), first_half, second_half, hang]]
    watch = seen()
    await half.wait()
    await watch.until_names("beer", "wine")
    for _ in range(20):
        await asyncio.sleep(0)
    assert watch.names() == ["beer", "wine"]
    whole.set()
    await watch.until_names("beer", "tea", "wine")


@pytest.mark.parametrize(
    "end",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        target_change("REMOVE", cause=(7, "permission denied")),
        target_change("REMOVE", cause=(14, "overloaded")),
        target_change("REMOVE"),
        b"\x00\x00\x00\x00\x22\x12",
        None,
    ],
    ids=[
        "unavailable",
        "token-expired",
        "permission-denied",
        "cancelled",
        "internal",
        "exhausted",
        "target-denied",
        "target-removed",
        "target-removed-without-a-word",
        "undecodable",
        "ended-in-peace",
    ],
)
async def test_however_a_stream_ends_the_next_goes_on(fake: FakeFirestore, seen, end: Any):
    def ending(fake: FakeFirestore, since: int) -> list[Any]:
        return [*fake.initial(since), *([] if end is None else [end])]

    def going_on(fake: FakeFirestore, since: int) -> list[Any]:
        fake.set("tea")
        return [*fake.initial(since), hang]

    fake.scripts = [ending, going_on]
    watch = seen()
    await watch.until_names("beer", "tea", "wine")
    assert watch.errors
    assert all(isinstance(error, RegistryError) for error in watch.errors)
    # What is known is not read again: one whole read, then each stream asks for what is newer only.
    assert fake.calls.count("RunQuery") == 1
    assert fake.asked_since[:2] == [2, 2]


async def test_a_reset_tells_everything_anew(fake: FakeFirestore, seen):
    async def reset() -> list[Any]:
        fake.set("tea")
        return [
            target_change("RESET"),
            *fake.told("head", "models:beer", "models:tea"),
            target_change("CURRENT", read=5),
            consistent(5),
        ]

    fake.scripts = [lambda fake, since: [*fake.initial(since), reset, hang]]
    watch = seen()
    await watch.until_names("beer", "tea", "wine")
    assert watch.errors == []
    assert fake.streams == 1


@pytest.mark.parametrize("how", ["delete", "filter", "reset"])
async def test_a_document_that_was_removed_by_hand(fake: FakeFirestore, seen, how: str):
    async def remove() -> list[Any]:
        fake.documents.pop("chips-mirror/models:beer")
        if how == "delete":
            return [fake.removed("models:beer"), consistent(5)]
        if how == "filter":
            return [existence_filter(1), consistent(5)]
        return [
            target_change("RESET"),
            *fake.told("head"),
            target_change("CURRENT", read=5),
            consistent(5),
        ]

    fake.scripts = [
        lambda fake, since: [*fake.initial(since), remove],
        lambda fake, since: [*fake.initial(since), hang],
    ]
    watch = seen()
    await watch.until_names("wine")
    assert watch.errors == []
    assert fake.calls.count("RunQuery") == 2


async def test_a_filter_that_agrees_changes_nothing(fake: FakeFirestore, seen):
    fake.scripts = [
        lambda fake, since: [*fake.initial(since), existence_filter(2), consistent(4), hang],
    ]
    watch = seen()
    await watch.until(lambda seen: seen.looks >= 1)
    assert fake.calls.count("RunQuery") == 1


async def test_another_registry_in_the_same_place(fake: FakeFirestore, seen):
    def wiped(fake: FakeFirestore, since: int) -> list[Any]:
        fake.wipe("two")
        return [*fake.initial(since), hang]

    fake.scripts = [
        lambda fake, since: [*fake.initial(since), grpc.StatusCode.UNAVAILABLE],
        wiped,
        lambda fake, since: [*fake.initial(since), hang],
    ]
    watch = seen()
    await watch.until(lambda seen: seen.listings and seen.listings[-1].registry_id == "two")
    assert watch.names() == []


async def test_a_registry_that_is_gone_is_not_begun_anew_by_a_watch(fake: FakeFirestore, seen):
    def gone(fake: FakeFirestore, since: int) -> list[Any]:
        fake.documents.clear()
        return [*fake.initial(since), hang]

    fake.scripts = [
        lambda fake, since: [*fake.initial(since), grpc.StatusCode.UNAVAILABLE],
        gone,
    ]
    watch = seen()
    await watch.until(lambda seen: any("is gone" in str(error) for error in seen.errors))
    assert watch.names() == ["beer", "wine"]
    assert "Commit" not in fake.calls


async def test_a_stream_that_is_silent_though_something_changed(
    fake: FakeFirestore, registry: FirestoreRegistry, seen, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("gateway.registry.firestore.registry._OVERDUE_S", 0.05)
    registry._look_s = 0.02

    async def change_in_silence() -> list[Any]:
        fake.set("tea")
        return await hang()

    fake.scripts = [
        lambda fake, since: [*fake.initial(since), change_in_silence],
        lambda fake, since: [*fake.initial(since), hang],
    ]
    watch = seen()
    await watch.until_names("beer", "tea", "wine")
    assert any("its stream does not say so" in str(error) for error in watch.errors)


async def test_looks_keep_a_silent_stream_true(fake: FakeFirestore, registry: FirestoreRegistry, seen):
    registry._look_s = 0.01
    fake.scripts = [lambda fake, since: [*fake.initial(since), hang]]
    watch = seen()
    await watch.until(lambda seen: seen.looks >= 3)
    assert fake.streams == 1
    assert fake.calls.count("RunQuery") == 1


async def test_permission_denied_says_what_to_do(fake: FakeFirestore, registry: FirestoreRegistry):
    for method in ("RunQuery", "BatchGetDocuments"):
        fake.refuse[method] = grpc.StatusCode.PERMISSION_DENIED
    for call in (
        registry.load_mirrored(),
        registry.read("models", "wine"),
        registry.list("models"),
        registry.history(),
    ):
        with pytest.raises(RegistryError, match=r"permission denied.*roles/datastore\.viewer") as caught:
            await call
        assert not isinstance(caught.value, Unavailable)


async def test_a_gateway_that_may_not_write_begins_no_registry(
    fake: FakeFirestore, registry: FirestoreRegistry
):
    fake.documents.clear()
    fake.refuse["Commit"] = grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(RegistryError, match=r"there is no registry in Firestore test-project/\(default\)"):
        await registry.load_mirrored()


async def test_a_database_that_is_not_there(fake: FakeFirestore, registry: FirestoreRegistry):
    fake.refuse["RunQuery"] = grpc.StatusCode.NOT_FOUND
    with pytest.raises(RegistryError, match="gcloud firestore databases create"):
        await registry.load_mirrored()


async def test_a_head_that_was_spoilt(fake: FakeFirestore, registry: FirestoreRegistry):
    fake.documents["chips-mirror/head"] = ({"registry_id": "one", "generation": "7"}, 1)
    with pytest.raises(RegistryError, match="head document in Firestore is damaged"):
        await registry.load_mirrored()


async def test_a_mirror_over_a_stream_that_is_rejected_for_a_while(
    fake: FakeFirestore, registry: FirestoreRegistry, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("gateway.registry.mirror._LONGEST_DELAY_S", 0.05)
    fake.scripts = [
        lambda fake, since: [*fake.initial(since), grpc.StatusCode.UNAUTHENTICATED],
        *[lambda fake, since: [grpc.StatusCode.UNAUTHENTICATED]] * 5,
        lambda fake, since: [*fake.initial(since), hang],
    ]
    mirror = Mirror(registry)
    await mirror.start()
    async with asyncio.timeout(patience(20)):
        while fake.streams < 7:
            assert mirror.snapshot is not None
            assert sorted(mirror.snapshot.entries) == ["beer", "wine"]
            await asyncio.sleep(0.01)
    await mirror.stop()
