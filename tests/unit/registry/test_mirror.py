# Long: one mirror through every state of its registry.
"""The mirror: what it serves when the registry is away, wiped, restored, slow, or makes no sense."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from gateway.registry import mirror as mirror_module
from gateway.registry.base import Document, MirroredListing, Registry, RegistryError, Unavailable
from gateway.registry.fallback_api_keys import FallbackKeys
from gateway.registry.fallback_copy import FallbackContent, FileFallback
from gateway.registry.mirror import FALLBACK, REGISTRY, Mirror
from tests.patience import patience
from tests.unit.registry.scripted import Clock, Scripted, listing, model, revocation


@pytest.fixture
def registry() -> Scripted:
    return Scripted()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def start(registry: Scripted, clock: Clock) -> AsyncIterator[Callable[..., Any]]:
    mirrors = []

    async def begin(**options: Any) -> Mirror:
        mirror = Mirror(
            cast(Registry, registry),
            **{"clock": clock, "sleep": clock.sleep, "first_load_timeout_s": 5.0, **options},
        )
        mirrors.append(mirror)
        await mirror.start()
        return mirror

    yield begin
    for mirror in mirrors:
        await mirror.stop()


def names(mirror: Mirror) -> list[str]:
    assert mirror.snapshot is not None
    return sorted(mirror.snapshot.entries)


# -- away


async def test_an_hour_without_the_registry(registry: Scripted, clock: Clock, start):
    registry.tell(listing(1, model("wine")))
    mirror = await start()
    left_at = clock.now
    registry.down = True
    registry.tell(Unavailable("gone"))
    attempts = len(registry.since)
    while clock.now < left_at + 3600:
        await asyncio.sleep(0)
        assert names(mirror) == ["wine"]
    assert not mirror.connected
    assert mirror.last_error == "down"
    assert mirror.age_s >= 3600
    tries = len(registry.since) - attempts
    # Full jitter up to 15 s is 7.5 s on average: neither a storm nor a nap.
    assert 300 < tries < 800
    assert max(clock.sleeps) <= 15
    registry.down = False
    registry.tell(listing(2, model("wine"), model("beer")))
    await registry.told()
    assert await mirror.wait_for_generation(2, timeout_s=patience(5))
    assert names(mirror) == ["beer", "wine"]
    assert mirror.connected
    assert mirror.age_s < 60


async def test_a_watch_that_lives_for_a_moment_each_time_is_not_opened_in_a_storm(
    registry: Scripted, clock: Clock, start
):
    registry.tell(listing(1, model()))
    await start()
    before = clock.now
    for _ in range(30):
        registry.tell(listing(1, model()), Unavailable("rejected"))
    await registry.told()
    assert clock.now - before > 60


async def test_whatever_a_plug_in_raises_the_mirror_lives_on(registry: Scripted, start):
    registry.tell(listing(1, model()))
    mirror = await start()
    registry.tell(KeyError("bug"), listing(2, model(), model("beer")))
    assert await mirror.wait_for_generation(2, timeout_s=patience(5))


async def test_looks_keep_the_age_true(registry: Scripted, clock: Clock, start):
    registry.tell(listing(1, model()))
    mirror = await start()
    clock.now += 30
    assert mirror.age_s == 30
    registry.tell(None)
    await registry.told()
    await asyncio.sleep(0)
    assert mirror.age_s == 0


async def test_a_wall_clock_that_jumps_changes_nothing(
    registry: Scripted, start, monkeypatch: pytest.MonkeyPatch
):
    registry.tell(listing(1, model()))
    mirror = await start(clock=time.monotonic)
    for jump_s in (-10 * 365 * 86400, 10 * 365 * 86400):
        monkeypatch.setattr(time, "time", lambda jump_s=jump_s: time.monotonic() + jump_s)
        assert 0 <= mirror.age_s < 60
        assert mirror.is_authoritative


async def test_nothing_was_ever_read(registry: Scripted, start):
    registry.down = True
    mirror = await start(first_load_timeout_s=0.05)
    assert mirror.snapshot is None
    assert not mirror.connected
    with pytest.raises(Unavailable):
        await mirror.read_missing_model("wine")


# -- another registry, or an older one


async def test_a_wiped_registry_does_not_empty_the_gateway(registry: Scripted, clock: Clock, start):
    registry.tell(listing(5, model("wine")))
    mirror = await start(accept_reset_after_s=300)
    registry.tell(listing(0, registry_id="two"))
    await registry.told()
    assert names(mirror) == ["wine"]
    assert "has become another one (two, generation 0), which lists no model" in mirror.held
    assert mirror.connected
    assert not mirror.is_authoritative
    clock.now += 10_000
    registry.tell(None, None)
    await registry.told()
    assert names(mirror) == ["wine"], "an empty one is never accepted in the place of one that lists models"
    assert mirror.age_s >= 10_000
    registry.tell(listing(1, model("beer"), registry_id="two"))
    assert await _until(lambda: names(mirror) == ["beer"])
    assert not mirror.held


@pytest.mark.parametrize(
    "other",
    [listing(3, model("beer")), listing(9, model("beer"), registry_id="two")],
    ids=["older", "another"],
)
async def test_another_state_is_believed_after_a_while(
    registry: Scripted, clock: Clock, start, other: MirroredListing
):
    registry.tell(listing(5, model("wine")))
    mirror = await start(accept_reset_after_s=300)
    registry.tell(other)
    await registry.told()
    assert names(mirror) == ["wine"]
    assert mirror.held
    clock.now += 299
    registry.tell(None)
    await registry.told()
    assert names(mirror) == ["wine"]
    clock.now += 2
    registry.tell(None)
    assert await _until(lambda: names(mirror) == ["beer"])
    assert not mirror.held
    assert mirror.age_s == 0


async def test_the_registry_that_we_knew_comes_back(registry: Scripted, start):
    registry.tell(listing(5, model("wine")))
    mirror = await start(accept_reset_after_s=300)
    registry.tell(listing(1, model("beer"), registry_id="two"))
    await registry.told()
    assert mirror.held
    registry.tell(listing(6, model("wine"), model("tea")))
    assert await mirror.wait_for_generation(6, timeout_s=patience(5))
    assert names(mirror) == ["tea", "wine"]
    assert not mirror.held


async def test_after_a_restore_another_history_is_not_taken_for_ours_by_its_numbers(
    registry: Scripted, start
):
    """A backup was restored, and then written: generation and revision are the lost history's, the content is not."""

    def at(revision: int, url: str) -> Document:
        return model("wine", revision, backends=[{"version": "1", "url": url}])

    registry.tell(listing(100, at(7, "http://lost")))
    mirror = await start(accept_reset_after_s=300)
    registry.tell(listing(99, at(6, "http://restored")))
    await registry.told()
    assert mirror.held
    registry.tell(listing(100, at(7, "http://written-since")))
    await registry.told()
    assert not mirror.held
    assert mirror.snapshot.entries["wine"].model.backends[0].url == "http://written-since"


async def test_what_is_revoked_meanwhile_is_dead_at_once(registry: Scripted, start):
    registry.tell(listing(5, model("wine"), revocation("a")))
    mirror = await start(accept_reset_after_s=300)
    registry.tell(listing(1, revocation("b"), registry_id="two"))
    assert await _until(lambda: mirror.snapshot.revoked == {"a", "b"})
    assert names(mirror) == ["wine"]


# -- documents that make no sense


async def test_a_spoilt_document_hides_no_other_and_its_last_good_revision_stays(registry: Scripted, start):
    registry.tell(listing(1, model("wine"), model("beer")))
    mirror = await start()
    spoilt = [
        Document(kind="models", name="wine", revision=2, body={}, problem="not a JSON object"),
        model("tea", traffic={"1": 50}),
        Document(kind="models", name="rum", revision=1, body={"name": "gin"}),
    ]
    registry.tell(listing(2, *spoilt, model("beer")))
    assert await mirror.wait_for_generation(2, timeout_s=patience(5))
    assert names(mirror) == ["beer", "wine"]
    problems = " / ".join(mirror.snapshot.problems)
    assert "models/wine revision 2: not a JSON object" in problems
    assert "models/tea revision 1: traffic adds up to 50 %" in problems
    assert 'it says that it is "gin"' in problems


async def test_a_large_registry_is_compiled_in_slices(
    registry: Scripted, start, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(mirror_module, "_SLICE_S", 0.0)
    registry.tell(listing(1))
    mirror = await start()
    turns = 0

    async def others() -> None:
        nonlocal turns
        while mirror.snapshot.generation < 2:
            turns += 1
            await asyncio.sleep(0)

    registry.tell(listing(2, *(model(f"m{n}") for n in range(500))))
    await others()
    assert turns >= 500
    assert len(names(mirror)) == 500


# -- reading through


async def test_a_model_that_the_stream_has_not_told_yet(registry: Scripted, start):
    registry.tell(listing(1))
    mirror = await start()
    registry.documents["wine"] = model("wine")
    entry = await mirror.read_missing_model("wine")
    assert entry is not None
    assert entry.model.name == "wine"


async def test_all_who_miss_at_once_share_one_read(registry: Scripted, start):
    registry.tell(listing(1))
    mirror = await start()
    registry.read_gate = asyncio.Event()
    asking = [asyncio.create_task(mirror.read_missing_model("wine")) for _ in range(50)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking[0].cancel()  # one who leaves takes the answer from nobody
    registry.read_gate.set()
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert found[1:] == [None] * 49
    assert registry.reads == ["wine"]


async def test_what_is_not_there_is_asked_for_once_in_two_seconds(registry: Scripted, clock: Clock, start):
    registry.tell(listing(1))
    mirror = await start()
    for _ in range(10):
        assert await mirror.read_missing_model("wine") is None
    clock.now += 2.1
    assert await mirror.read_missing_model("wine") is None
    assert registry.reads == ["wine", "wine"]


async def test_reads_are_rationed(registry: Scripted, clock: Clock, start):
    registry.tell(listing(1))
    mirror = await start()
    for n in range(1000):
        assert await mirror.read_missing_model(f"m{n}") is None
    assert len(registry.reads) == 20
    clock.now += 60
    for n in range(1000):
        assert await mirror.read_missing_model(f"n{n}") is None
    assert len(registry.reads) == 40


@pytest.mark.parametrize("name", ["wp-login.php", "WINE", "a b", "x" * 64, "v2", "", "ü"])
async def test_what_can_be_no_model_is_not_asked_for(registry: Scripted, start, name: str):
    registry.tell(listing(1))
    mirror = await start()
    assert await mirror.read_missing_model(name) is None
    assert registry.reads == []


async def test_a_registry_that_does_not_answer_is_not_called_empty(registry: Scripted, start):
    registry.tell(listing(1))
    mirror = await start()
    registry.read_error = RegistryError("permission denied")
    with pytest.raises(RegistryError):
        await mirror.read_missing_model("wine")
    registry.read_error = None
    registry.down = True
    registry.tell(Unavailable("gone"))
    await registry.told()
    assert await _until(lambda: not mirror.connected)
    with pytest.raises(Unavailable):
        await mirror.read_missing_model("beer")
    assert registry.reads == ["wine"]


# -- the fallback


class Copy:
    """A fallback in memory."""

    saved_by_gateways = True

    def __init__(self, kept: FallbackContent | Exception | None = None) -> None:
        self.kept = kept
        self.saved: list[MirroredListing] = []
        self.saved_keys: FallbackKeys | None = None

    async def load(self) -> FallbackContent | None:
        if isinstance(self.kept, Exception):
            raise self.kept
        return self.kept

    async def save_if_newer(self, listing: MirroredListing, keys: FallbackKeys | None = None) -> bool:
        self.saved.append(listing)
        self.saved_keys = keys
        return True


async def test_a_cold_start_without_the_registry(registry: Scripted, start, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mirror_module, "_FIRST_LOOK_S", 0.02)
    registry.down = True
    kept = listing(7, model("wine"), revocation("a"))
    mirror = await start(fallback=Copy(FallbackContent(kept, age_s=120.0)))
    assert names(mirror) == ["wine"]
    assert mirror.snapshot.revoked == {"a"}
    assert mirror.source == FALLBACK
    assert mirror.age_s >= 120
    assert not mirror.is_authoritative
    registry.down = False
    registry.tell(listing(7, model("wine")))
    await registry.told()
    assert await _until(lambda: mirror.source == REGISTRY)
    assert mirror.age_s < 60
    assert registry.since[0] is kept, "what is kept already need not be read again"


async def test_keys_of_the_copy_are_found_while_it_is_what_is_served_and_not_too_old(
    registry: Scripted, clock: Clock, start, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(mirror_module, "_FIRST_LOOK_S", 0.02)
    registry.down = True
    document = b'{"label":"app","models":["*"],"created":"2026-01-01T00:00:00Z"}'
    kept = FallbackContent(listing(7, model("wine")), 100.0, FallbackKeys("one", 7, {"a": document}))
    for age_s in (0.0, 99.0):  # turned off; too old
        mirror = await start(fallback=Copy(kept), fallback_keys_age_s=age_s)
        assert mirror.find_key_in_fallback_copy("a") is None
        await mirror.stop()
    mirror = await start(fallback=Copy(kept), fallback_keys_age_s=1e6)
    key = mirror.find_key_in_fallback_copy("a")
    assert key is not None
    assert key.label == "app"
    assert mirror.find_key_in_fallback_copy("b") is None
    clock.now += 1e6
    assert mirror.find_key_in_fallback_copy("a") is None
    clock.now -= 1e6
    registry.down = False
    registry.tell(listing(7, model("wine")))
    assert await _until(lambda: mirror.source == REGISTRY)
    assert mirror.find_key_in_fallback_copy("a") is None


async def test_a_gateway_keeps_keys_in_its_own_copy(
    registry: Scripted, clock: Clock, start, monkeypatch: pytest.MonkeyPatch
):
    async def follow(_: Registry, now: MirroredListing, before: FallbackKeys | None) -> FallbackKeys:
        if now.generation == 2:
            raise RegistryError("permission denied")
        return FallbackKeys(now.registry_id, now.generation, {"a": b"{}"})

    monkeypatch.setattr(mirror_module, "update_fallback_keys", follow)
    copy = Copy()
    registry.tell(listing(1, model("wine")))
    mirror = await start(fallback=copy, fallback_keys_age_s=1e6)
    assert await _until(lambda: copy.saved_keys is not None and copy.saved_keys.generation == 1)
    registry.tell(listing(2, model("wine")))
    assert await mirror.wait_for_generation(2, timeout_s=patience(5))
    # Where they cannot be followed, those of before are kept, as what they are.
    assert await _until(lambda: copy.saved[-1].generation == 2)
    assert copy.saved_keys == FallbackKeys("one", 1, {"a": b"{}"})


async def test_a_copy_has_the_keys_of_its_own_generation(
    registry: Scripted, start, monkeypatch: pytest.MonkeyPatch
):
    moved_on = asyncio.Event()
    failures = 0

    async def follow(_: Registry, now: MirroredListing, before: FallbackKeys | None) -> FallbackKeys:
        nonlocal failures
        if now.generation == 1:
            registry.tell(listing(2, model("wine")))
            await moved_on.wait()
        if now.generation == 2 and not failures:
            failures += 1
            raise RegistryError("not now")
        return FallbackKeys(now.registry_id, now.generation, {"a": b"{}"})

    monkeypatch.setattr(mirror_module, "update_fallback_keys", follow)
    copy = Copy()
    registry.tell(listing(1, model("wine")))
    mirror = await start(fallback=copy, fallback_keys_age_s=1e6)
    assert await mirror.wait_for_generation(2, timeout_s=patience(5))
    moved_on.set()
    # The generation that came meanwhile is kept next, and its keys are asked for until they are there.
    assert await _until(lambda: copy.saved_keys is not None and copy.saved_keys.generation == 2)
    assert [kept.generation for kept in copy.saved] == [1, 2, 2]


@pytest.mark.parametrize("on", [True, False])
async def test_keys_that_are_turned_on_or_off_are_written_or_erased_without_a_change(
    registry: Scripted, start, monkeypatch: pytest.MonkeyPatch, on: bool
):
    async def follow(_: Registry, now: MirroredListing, before: FallbackKeys | None) -> FallbackKeys:
        return FallbackKeys(now.registry_id, now.generation, {"a": b"{}"})

    monkeypatch.setattr(mirror_module, "update_fallback_keys", follow)
    now = listing(7, model("wine"))
    keys = FallbackKeys("one", 7, {"a": b"{}"})
    copy = Copy(FallbackContent(now, 1.0, None if on else keys))
    registry.tell(now)
    mirror = await start(fallback=copy, fallback_keys_age_s=1e6 if on else 0.0)
    assert await _until(lambda: bool(copy.saved))
    assert copy.saved_keys == (keys if on else None)
    await mirror.stop()
    assert len(copy.saved) == 1


async def test_the_registry_is_worth_more_than_a_copy_of_another(registry: Scripted, start):
    registry.tell(listing(2, model("beer")))
    mirror = await start(
        fallback=Copy(FallbackContent(listing(7, model("wine"), registry_id="old"), age_s=1.0))
    )
    assert await _until(lambda: names(mirror) == ["beer"])
    assert mirror.source == REGISTRY
    assert not mirror.held


async def test_a_cold_start_while_the_registry_is_wiped(registry: Scripted, start):
    registry.tell(listing(0, registry_id="new"))
    mirror = await start(fallback=Copy(FallbackContent(listing(7, model("wine")), age_s=1.0)))
    assert await _until(lambda: bool(mirror.held))
    assert names(mirror) == ["wine"]
    assert mirror.source == FALLBACK


async def test_a_fallback_that_cannot_be_used_is_done_without(registry: Scripted, start):
    registry.tell(listing(1, model("wine")))
    mirror = await start(fallback=Copy(RegistryError("damaged")))
    assert names(mirror) == ["wine"]
    assert mirror.source == REGISTRY


async def test_a_gateway_keeps_its_own_copy(registry: Scripted, start):
    registry.tell(listing(1, model("wine")))
    copy = Copy()
    mirror = await start(fallback=copy)
    registry.tell(listing(2, model("wine"), model("beer")))
    assert await mirror.wait_for_generation(2, timeout_s=patience(5))
    await mirror.stop()
    assert copy.saved[-1].generation == 2


async def test_a_copy_that_cannot_be_written_stops_nothing(registry: Scripted, start, tmp_path):
    (tmp_path / "file").write_text("")
    registry.tell(listing(1, model("wine")))
    mirror = await start(fallback=FileFallback(tmp_path / "file" / "fallback.gz"))
    assert names(mirror) == ["wine"]
    await mirror.stop()


async def _until(condition: Callable[[], bool]) -> bool:
    async with asyncio.timeout(patience(10)):
        while not condition():
            await asyncio.sleep(0.001)
    return True
