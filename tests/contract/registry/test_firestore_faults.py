"""Firestore where things go wrong, on Google's own emulator: killed, cut off, frozen, refilled by strangers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gateway.registry import mirror as mirror_module
from gateway.registry.base import MODELS, REVOCATIONS, Conflict, Delete, Put, RegistryError, Unavailable
from gateway.registry.firestore import retried_commit
from gateway.registry.firestore import rpc as rpc_module
from gateway.registry.firestore.document_layout import Fields
from gateway.registry.firestore.registry import FirestoreRegistry
from gateway.registry.firestore.rpc import DocumentWrite
from gateway.registry.mirror import Mirror
from gateway.registry.open_by_url import open_registry
from tests.firestore.cable import Cable
from tests.firestore.emulator import Emulator
from tests.firestore.fixture import registry_url
from tests.patience import patience


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror_module, "_LONGEST_DELAY_S", 0.2)


@pytest.fixture
async def opened() -> AsyncIterator[Callable[[str], FirestoreRegistry]]:
    clients: list[FirestoreRegistry] = []

    def opening(url: str) -> FirestoreRegistry:
        client = open_registry(url)
        assert isinstance(client, FirestoreRegistry)
        clients.append(client)
        return client

    yield opening
    for client in clients:
        await client.close()


@pytest.fixture
async def mirrored() -> AsyncIterator[Callable[..., Any]]:
    mirrors = []

    async def start(registry: FirestoreRegistry, **options: Any) -> Mirror:
        mirrors.append(Mirror(registry, first_load_timeout_s=patience(60), **options))
        await mirrors[-1].start()
        return mirrors[-1]

    yield start
    for mirror in mirrors:
        await mirror.stop()


@pytest.fixture
async def cable(firestore_emulator: Emulator) -> AsyncIterator[Cable]:
    cable = Cable(firestore_emulator.port)
    yield cable
    await cable.unplug()


def wine(name: str = "wine", expected: int = 0, **changes: Any) -> Put:
    body = {
        "name": name,
        "backends": [{"version": "1", "url": "http://127.0.0.1:9"}],
        "traffic": {"1": 100},
        **changes,
    }
    return Put(kind=MODELS, name=name, body=body, expected=expected)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(patience(40)):
        while not condition():
            await asyncio.sleep(0.01)


async def through(cable: Cable, url: str) -> str:
    """The same registry, by way of the cable."""
    return url.partition("?")[0] + f"?emulator={await cable.plug_in()}"


# -- killed


@pytest.mark.slow
async def test_a_killed_emulator_that_comes_back_empty(own_emulator: Emulator, opened, mirrored):
    url = registry_url(own_emulator)
    registry, registrar = opened(url), opened(url)
    await registrar.write(wine(), author="ana")
    mirror = await mirrored(registry, accept_reset_after_s=0.0)
    assert sorted(mirror.snapshot.entries) == ["wine"]
    own_emulator.kill()
    await until(lambda: not mirror.connected)
    assert sorted(mirror.snapshot.entries) == ["wine"]
    age_s = mirror.age_s
    with pytest.raises(Unavailable, match=r"Nothing was written\."):
        await registrar.write(wine("beer"), author="ana")
    with pytest.raises(Unavailable):
        await mirror.read_missing_model("beer")
    await until(lambda: mirror.age_s > age_s)
    own_emulator.start()
    await until(lambda: "is gone" in mirror.last_error)
    assert sorted(mirror.snapshot.entries) == ["wine"], "an emulator that comes back empty empties no gateway"
    assert mirror.age_s > age_s
    await registrar.write(wine("beer"), author="ana")
    await until(lambda: sorted(mirror.snapshot.entries) == ["beer"])  # held for no time at all here
    assert mirror.connected


# -- cut off


async def test_network_loss_and_back(firestore: str, cable: Cable, opened, mirrored):
    registrar = opened(firestore)
    await registrar.write(*(wine(f"m{n}") for n in range(20)), author="ana")
    registry = opened(await through(cable, firestore))
    mirror = await mirrored(registry)
    for n in range(3):
        cable.cut()
        await until(lambda: not mirror.connected)
        generation = await registrar.write(wine(f"while-away-{n}"), author="ana")
        if n == 1:
            generation = await registrar.write(Delete(kind=MODELS, name="m0", expected=1), author="ana")
        cable.mend()
        assert await mirror.wait_for_generation(generation, timeout_s=patience(40))
    names = set(mirror.snapshot.entries)
    assert names == {f"m{n}" for n in range(1, 20)} | {f"while-away-{n}" for n in range(3)}


async def test_a_silent_network_is_noticed(firestore: str, cable: Cable, opened, mirrored, monkeypatch):
    registrar = opened(firestore)
    await registrar.write(wine(), author="ana")
    registry = opened(await through(cable, firestore))
    registry._look_s = 0.05
    mirror = await mirrored(registry)
    with monkeypatch.context() as hurried:
        hurried.setattr(rpc_module, "_READ_S", 0.3)
        cable.freeze()
        await until(lambda: not mirror.connected)
    generation = await registrar.write(wine("beer"), author="ana")
    cable.mend()
    assert await mirror.wait_for_generation(generation, timeout_s=patience(40))


async def test_a_write_whose_answer_is_lost_is_done_once(
    firestore: str, cable: Cable, opened, monkeypatch: pytest.MonkeyPatch
):
    watcher = opened(firestore)
    registrar = opened(await through(cable, firestore))
    await registrar.write(wine(), author="ana")
    commit = rpc_module.FirestoreRpc.commit

    async def commit_into_the_void(self: Any, writes: Any) -> None:
        monkeypatch.setattr(rpc_module.FirestoreRpc, "commit", commit)
        cable.lose_answers()
        try:
            with monkeypatch.context() as hurried:
                hurried.setattr(rpc_module, "_COMMIT_S", 0.5)
                await commit(self, writes)
        finally:
            cable.cut()
            cable.mend()

    monkeypatch.setattr(rpc_module.FirestoreRpc, "commit", commit_into_the_void)
    generation = await registrar.write(wine("beer"), wine("tea"), author="ana", reason="twice?")
    assert generation == 2
    assert (await watcher.load_mirrored()).generation == 2
    assert [c.name for c in await watcher.history(limit=10) if c.reason == "twice?"] == ["tea", "beer"]


async def test_a_write_of_which_nothing_is_known_says_so(
    firestore: str, cable: Cable, opened, monkeypatch: pytest.MonkeyPatch
):
    watcher = opened(firestore)
    registrar = opened(await through(cable, firestore))
    await registrar.write(wine(), author="ana")
    commit = rpc_module.FirestoreRpc.commit

    async def commit_into_the_void(self: Any, writes: Any) -> None:
        monkeypatch.setattr(rpc_module, "_COMMIT_S", 0.3)
        monkeypatch.setattr(rpc_module, "_READ_S", 0.3)
        cable.lose_answers()
        await commit(self, writes)

    monkeypatch.setattr(retried_commit, "_WRITE_S", 1.0)

    monkeypatch.setattr(rpc_module.FirestoreRpc, "commit", commit_into_the_void)
    with pytest.raises(Unavailable, match="it was written whole, as generation 2") as caught:
        await registrar.write(wine("beer"), wine("tea"), author="ana")
    monkeypatch.setattr(rpc_module, "_QUERY_S", 50.0)
    assert "chips history" in str(caught.value)
    listing = await watcher.load_mirrored()
    assert {document.name for document in listing.documents} in ({"wine"}, {"wine", "beer", "tea"})


async def test_calls_are_bounded(cable: Cable, firestore: str, opened, monkeypatch: pytest.MonkeyPatch):
    registry = opened(await through(cable, firestore))
    await registry.load_mirrored()
    cable.freeze()
    monkeypatch.setattr(rpc_module, "_READ_S", 0.2)
    monkeypatch.setattr(rpc_module, "_QUERY_S", 0.2)
    for call in (
        registry.load_mirrored,
        lambda: registry.read(MODELS, "a"),
        lambda: registry.list(MODELS),
        registry.history,
    ):
        with pytest.raises(Unavailable):
            await call()
    with pytest.raises(Unavailable, match=r"Nothing was written\."):
        await registry.write(wine(), author="ana")


# -- what strangers write


async def spoil(registry: FirestoreRegistry, identity: str, fields: Fields) -> None:
    """Write a document behind the registry's back."""
    rpc = await registry._rpc()
    collection = "chips-mirror"
    found = (await rpc.get((collection, identity))).get((collection, identity))
    await rpc.commit(
        [DocumentWrite(collection, identity, fields, found.updated if found is not None else None)]
    )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"revision": 2, "generation": 1},
        {"revision": 2, "generation": 1, "body": "{"},
        {"revision": 2, "generation": 1, "body": "[1]"},
        {"revision": 2, "generation": 1, "body": 7},
        {"revision": "two", "generation": 1, "body": "{}"},
        {"revision": -1, "generation": 1, "body": "{}"},
        {"revision": 2, "generation": 1, "body": '{"name": "wine"}', "more": "of a newer release"},
        {"revision": 2, "generation": "none", "body": '{"name": "wine", "traffic": 7}'},
    ],
    ids=[
        "empty",
        "no-body",
        "no-json",
        "no-object",
        "no-text",
        "no-revision",
        "minus",
        "newer",
        "no-traffic",
    ],
)
async def test_a_spoilt_document_hides_no_other(firestore: str, opened, mirrored, fields: Fields):
    registry = opened(firestore)
    await registry.write(wine(), wine("beer"), author="ana")
    await spoil(registry, "models:wine", fields)
    mirror = await mirrored(opened(firestore))
    assert "beer" in mirror.snapshot.entries
    if "more" in fields:
        assert mirror.snapshot.problems == ()
        return
    assert len(mirror.snapshot.problems) == 1
    assert mirror.snapshot.problems[0].startswith("models/wine ")
    # It can be repaired by the ordinary means.
    broken = await registry.read(MODELS, "wine")
    assert broken is not None
    generation = await registry.write(wine(expected=broken.revision), author="ana")
    assert await mirror.wait_for_generation(generation, timeout_s=patience(20))
    assert sorted(mirror.snapshot.entries) == ["beer", "wine"]
    assert mirror.snapshot.problems == ()
    assert len(await registry.history(name="wine")) == 2


async def test_a_spoilt_revocation_revokes_all_the_same(firestore: str, opened, mirrored):
    registry = opened(firestore)
    await registry.write(Put(kind=REVOCATIONS, name="abc", body={}, expected=0), author="ana")
    await spoil(registry, "revocations:abc", {"body": 7})
    mirror = await mirrored(opened(firestore))
    assert mirror.snapshot.revoked == {"abc"}


async def test_documents_that_are_no_business_of_ours(firestore: str, opened, mirrored):
    registry = opened(firestore)
    await registry.write(wine(), author="ana")
    for identity in ("notes", "futures:x", ":", "models", "a:b:c"):
        await spoil(registry, identity, {"generation": 99, "body": "x"})
    mirror = await mirrored(opened(firestore))
    assert sorted(mirror.snapshot.entries) == ["wine"]
    assert mirror.snapshot.problems == ()
    assert mirror.snapshot.generation == 1


# -- too large


async def test_a_document_of_one_mebibyte(firestore: str, opened):
    registry = opened(firestore)
    await registry.write(wine(description="x" * 400_000), author="ana")
    await registry.write(wine(expected=1, description="y" * 400_000), author="ana")
    for size in (450_000, 1024 * 1024, 20_000_000):
        with pytest.raises(RegistryError, match=r"models/wine takes \d+ bytes.*Nothing was written"):
            await registry.write(wine(expected=2, description="z" * size), author="ana")
    with pytest.raises(RegistryError, match="Nothing was written"):
        await registry.write(wine(expected=2), author="ana", reason="r" * 20_000)
    document = await registry.read(MODELS, "wine")
    assert document is not None
    assert document.revision == 2


async def test_a_batch_that_is_larger_than_a_request_may_be(firestore: str, opened):
    registry = opened(firestore)
    batch = [wine(f"m{n}", description="x" * 400_000) for n in range(15)]
    with pytest.raises(
        RegistryError, match=r"Firestore writes at most 9500000 at once\. Nothing was written"
    ):
        await registry.write(*batch, author="ana")
    assert (await registry.load_mirrored()).documents == ()


# -- two registrars


async def test_two_registrars_with_the_same_model(firestore: str, opened):
    one, two = opened(firestore), opened(firestore)
    await one.write(wine(), author="ana")
    outcomes = await asyncio.gather(
        one.write(wine(expected=1, owner="ana"), author="ana"),
        two.write(wine(expected=1, owner="bea"), author="bea"),
        return_exceptions=True,
    )
    conflicts = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
    assert len(conflicts) == 1
    assert (conflicts[0].expected, conflicts[0].actual) == (1, 2)
    document = await one.read(MODELS, "wine")
    assert document is not None
    winner = ["ana", "bea"][[isinstance(outcome, int) for outcome in outcomes].index(True)]
    assert document.body["owner"] == winner


def test_it_works_on_uvloop(firestore: str):
    uvloop = pytest.importorskip("uvloop")

    async def scene() -> None:
        registry, other = open_registry(firestore), open_registry(firestore)
        mirror = Mirror(registry)
        await mirror.start()
        for n in range(10):
            generation = await other.write(wine(f"m{n}"), author="ana")
            assert await mirror.wait_for_generation(generation, timeout_s=patience(20))
        assert len(mirror.snapshot.entries) == 10  # type: ignore[union-attr]
        await mirror.stop()
        await registry.close()
        await other.close()

    for _ in range(2):  # a second loop in the same process, as the command line's tests have it
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(scene())
        firestore += "&prefix=second"
