"""API keys over time: looked up again behind the caller's back, kept while the registry is away, rationed."""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Callable
from types import FrameType
from typing import Any, ClassVar, cast

import pytest

from gateway.auth.api_key import ApiKeyAuthenticator
from gateway.core.api_key_document import Key
from gateway.core.api_keys import PREFIX, _checksum, digest_key, is_well_formed, make_key
from gateway.core.errors import RegistryUnavailable, Unauthenticated
from gateway.core.header_classification import RequestHead, classify_request_headers
from gateway.core.token_bucket import TokenBucket
from gateway.registry.base import KEYS, Document, Registry, RegistryError
from gateway.registry.mirror import Mirror
from tests.patience import patience
from tests.unit.registry.scripted import Clock, Scripted, listing, model, revocation


class World:
    def __init__(self) -> None:
        self.registry = Scripted()
        self.clock = Clock()
        self.mirror = Mirror(cast(Registry, self.registry), clock=self.clock, sleep=self.clock.sleep)
        self.keys = self.make()

    def make(self, **options: Any) -> ApiKeyAuthenticator:
        options = {"ttl_s": 240.0, **options}  # 300 s at most, with the jitter
        return ApiKeyAuthenticator(cast(Registry, self.registry), self.mirror, clock=self.clock, **options)

    def make_key(self) -> str:
        key = make_key()
        digest = digest_key(key)
        body = {"label": "ana", "models": ["*"], "created": "2026-01-01T00:00:00Z"}
        self.registry.documents[digest] = Document(kind=KEYS, name=digest, revision=1, body=body)
        return key

    async def ask(self, key: str) -> str | None:
        proof = await self.keys(head(key))
        return None if proof is None else proof.principal.label

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


class Watched(bytes):
    """A key that tells what is done with it, but for being hashed, which reads it whole."""

    touched: ClassVar[list[str]] = []


def _telling(name: str) -> Any:
    def method(self: Watched, *arguments: Any, **options: Any) -> Any:
        Watched.touched.append(name)
        return getattr(bytes, name)(self, *arguments, **options)

    return method


for _name in (
    "__eq__",
    "__ne__",
    "__lt__",
    "__gt__",
    "__hash__",
    "__getitem__",
    "__contains__",
    "__iter__",
    "__add__",
):
    setattr(Watched, _name, _telling(_name))
for _name in (
    "startswith",
    "endswith",
    "find",
    "index",
    "decode",
    "hex",
    "strip",
    "split",
    "partition",
    "lower",
    "replace",
):
    setattr(Watched, _name, _telling(_name))


def steps(work: Callable[[], object]) -> list[tuple[str, int]]:
    """Every line of the gateway's that `work` runs."""
    lines: list[tuple[str, int]] = []

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if event == "line" and str(frame.f_globals.get("__name__")).startswith("gateway."):
            lines.append((frame.f_code.co_qualname, frame.f_lineno))
        return trace

    before = sys.gettrace()
    gc.disable()  # it would run what it finds in the midst of this
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
        gc.enable()
    return lines


def sharing(key: str, length: int) -> str:
    """Another key of the right form, whose first `length` of 32 random characters are those of `key`."""
    body = key[len(PREFIX) :][:32]
    rest = "".join("a" if character != "a" else "b" for character in body[length:])
    return PREFIX + body[:length] + rest + _checksum(body[:length] + rest)


def head(key: str) -> RequestHead:
    return classify_request_headers([(b"X-Api-Key", key.encode())])


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    world.registry.tell(listing(1, model("wine")))
    await world.mirror.start()
    yield world
    await world.mirror.stop()


async def test_a_key_is_read_once_and_looked_up_again_later(world: World):
    key = world.make_key()
    for _ in range(3):
        assert await world.ask(key) == "ana"
    assert len(world.registry.reads) == 1
    world.clock.now += 301
    assert await world.ask(key) == "ana"
    await world.settle()
    assert len(world.registry.reads) == 2
    assert await world.ask(key) == "ana"
    assert len(world.registry.reads) == 2


async def test_a_known_key_outlives_an_outage_without_waiting(world: World):
    key = world.make_key()
    assert await world.ask(key) == "ana"
    world.registry.read_error = RegistryError("down")
    for _ in range(100):
        world.clock.now += 301
        proof = world.keys.try_nowait(head(key))  # never NEEDS_WAIT: nobody waits for a registry that is away
        assert getattr(proof, "principal", None) is not None
        await world.settle()
    tries = len(world.registry.reads)
    for _ in range(50):
        world.clock.now += 0.01
        assert await world.ask(key) == "ana"
    await world.settle()
    assert len(world.registry.reads) - tries <= 1, "a failed look is not repeated for each request"


async def test_an_outage_does_not_make_a_key_immortal(world: World):
    world.keys = world.make(stale_s=3600)
    key = world.make_key()
    assert await world.ask(key) == "ana"
    world.registry.read_error = RegistryError("down")
    world.clock.now += 3601
    with pytest.raises(RegistryUnavailable):
        await world.ask(key)


async def test_a_key_from_the_copy_ends_with_the_copys_age(world: World, monkeypatch: pytest.MonkeyPatch):
    kept = Key(label="ana", models=("*",), created="2026-01-01T00:00:00Z")
    end = world.mirror.kept_keys_end = world.clock.now + 100

    def find(_: Mirror, digest: str) -> Key | None:
        return kept if world.clock.now < end else None

    monkeypatch.setattr(Mirror, "find_key_in_fallback_copy", find)
    world.registry.read_error = RegistryError("down")
    key = make_key()
    world.clock.now += 99
    assert await world.ask(key) == "ana"
    world.clock.now += 2
    with pytest.raises(RegistryUnavailable):
        await world.ask(key)


async def test_a_key_that_is_gone_is_refused_after_the_next_look(world: World):
    key = world.make_key()
    assert await world.ask(key) == "ana"
    world.registry.documents.clear()
    world.clock.now += 301
    assert await world.ask(key) == "ana"
    await world.settle()
    with pytest.raises(Unauthenticated):
        await world.ask(key)


async def test_a_wiped_registry_turns_no_known_key_away(world: World):
    key = world.make_key()
    assert await world.ask(key) == "ana"
    world.registry.documents.clear()
    world.registry.tell(listing(0, registry_id="wiped"))
    await world.registry.told()
    assert world.mirror.held
    for _ in range(5):
        world.clock.now += 301
        assert await world.ask(key) == "ana"
        await world.settle()


async def test_a_revoked_key_is_dead_at_once(world: World):
    key = world.make_key()
    assert await world.ask(key) == "ana"
    world.registry.tell(listing(2, model("wine"), revocation(digest_key(key))))
    assert await world.mirror.wait_for_generation(2, timeout_s=patience(5))
    with pytest.raises(Unauthenticated):
        await world.ask(key)


async def test_made_up_keys_are_rationed(world: World):
    world.keys = world.make(bucket=TokenBucket(per_second=10, burst=20, clock=world.clock))
    known = world.make_key()
    assert await world.ask(known) == "ana"
    refused = rationed = 0
    for _ in range(200):
        try:
            await world.ask(make_key())
        except Unauthenticated:
            refused += 1
        except RegistryUnavailable:
            rationed += 1
    assert (refused, rationed) == (19, 181)
    assert len(world.registry.reads) == 20
    assert await world.ask(known) == "ana"


async def test_one_made_up_key_is_read_once_in_two_seconds(world: World):
    key = make_key()
    for _ in range(10):
        with pytest.raises(Unauthenticated):
            await world.ask(key)
    assert len(world.registry.reads) == 1
    world.clock.now += 2.1
    with pytest.raises(Unauthenticated):
        await world.ask(key)
    assert len(world.registry.reads) == 2


async def test_all_who_show_a_new_key_at_once_share_one_read(world: World):
    key = world.make_key()
    world.registry.read_gate = asyncio.Event()
    asking = [asyncio.create_task(world.ask(key)) for _ in range(50)]
    await world.settle()
    asking[0].cancel()
    world.registry.read_gate.set()
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert found[1:] == ["ana"] * 49
    assert len(world.registry.reads) == 1


# -- timing: what a look-up does says nothing about how much of a key was guessed


async def test_a_known_key_is_compared_by_its_digest_alone(world: World):
    key = world.make_key()
    assert await world.ask(key) == "ana"
    shown = classify_request_headers([(b"X-Api-Key", Watched(key.encode()))])
    Watched.touched.clear()
    proof = world.keys.try_nowait(shown)
    assert getattr(proof, "principal", None) is not None
    assert Watched.touched == []
    remembered = (*world.keys._known._entries, *world.keys._missing._entries, *world.keys.used)
    assert set(remembered) == {digest_key(key)}, "nothing to compare a key with is kept"


async def test_the_registry_is_asked_for_digests_alone(world: World):
    key = world.make_key()
    guess = sharing(key, 31)
    with pytest.raises(Unauthenticated):
        await world.ask(guess)
    assert world.registry.reads == [digest_key(guess)]


async def test_a_look_up_takes_the_same_steps_however_much_was_guessed(world: World):
    key = world.make_key()
    assert await world.ask(key) == "ana"
    ways = set()
    for length in (0, 1, 8, 16, 24, 31):
        guess = sharing(key, length)
        assert is_well_formed(guess)
        assert guess != key
        shown = head(guess)
        with pytest.raises(Unauthenticated):
            await world.keys(shown)

        def once_more(shown: RequestHead = shown) -> None:
            assert isinstance(world.keys.try_nowait(shown), Unauthenticated)

        ways.add(tuple(steps(once_more)))
    assert len(ways) == 1
    assert len(next(iter(ways))) > 10
