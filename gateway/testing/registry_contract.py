"""The contract of every registry implementation, as a pytest suite. Subclass it to test one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from gateway.audit.verify_history import verify_history
from gateway.registry.base import (
    KEYS,
    MODELS,
    REVOCATIONS,
    Conflict,
    Delete,
    MirroredListing,
    Precondition,
    Put,
    Registry,
    Unavailable,
)
from gateway.registry.hash_chain import entry_digest

OpenClient = Callable[[], Registry]
_PATIENCE_S = 30.0


def put(name: str, expected: int = 0, *, kind: str = MODELS, **body: Any) -> Put:
    """Make a Put of a model document, for tests."""
    return Put(kind=kind, name=name, body=body, expected=expected)


class RegistryContractTests:
    """A pytest suite for a registry implementation.

    Subclass it. It states what may be assumed of any registry. Asynchronous tests need pytest-asyncio in its automatic mode.
    """

    @pytest.fixture
    async def registry(self, open_client: OpenClient) -> AsyncIterator[Registry]:
        registry = open_client()
        yield registry
        await registry.close()

    @pytest.fixture
    async def other_client(self, open_client: OpenClient) -> AsyncIterator[Registry]:
        """Fixture: another client of the same registry."""
        registry = open_client()
        yield registry
        await registry.close()

    async def test_an_empty_registry(self, registry: Registry) -> None:
        listing = await registry.load_mirrored()
        assert listing.documents == ()
        assert listing.registry_id
        assert await registry.read(MODELS, "wine") is None
        assert await registry.list(MODELS) == ()
        assert await registry.history() == ()

    async def test_what_is_written_is_read(self, registry: Registry, other_client: Registry) -> None:
        body: dict[str, Any] = {
            "text": "Ünïcödé \u0000\u2028",
            "number": 2**53 + 1,
            "real": 0.1,
            "list": [1, [None, True]],
            "future": {},
        }
        generation = await registry.write(Put(kind=MODELS, name="wine", body=body, expected=0), author="ana")
        for client in (registry, other_client):
            document = await client.read(MODELS, "wine")
            assert document is not None
            assert (document.kind, document.name, document.revision, document.body) == (
                MODELS,
                "wine",
                1,
                body,
            )
            listing = await client.load_mirrored()
            assert listing.generation == generation
            assert listing.documents == (document,)
        assert (await registry.load_mirrored()).registry_id == (
            await other_client.load_mirrored()
        ).registry_id

    async def test_what_is_read_cannot_be_changed_by_the_reader(self, registry: Registry) -> None:
        await registry.write(put("wine", list=[1]), author="ana")
        document = await registry.read(MODELS, "wine")
        assert document is not None
        document.body["list"].append(2)
        again = await registry.read(MODELS, "wine")
        assert again is not None
        assert again.body == {"list": [1]}

    async def test_only_mirrored_kinds_are_listed_whole(self, registry: Registry) -> None:
        await registry.write(put("wine"), put("k1", kind=KEYS), put("k0", kind=REVOCATIONS), author="ana")
        kinds = {document.kind for document in (await registry.load_mirrored()).documents}
        assert kinds == {MODELS, REVOCATIONS}
        assert [document.name for document in await registry.list(KEYS)] == ["k1"]

    async def test_a_stale_write_changes_nothing(self, registry: Registry) -> None:
        await registry.write(put("wine", n=1), author="ana")
        await registry.write(put("wine", 1, n=2), author="bea")
        before = await registry.load_mirrored()
        for change in (
            put("wine", n=3),
            put("wine", 1, n=3),
            put("wine", 9, n=3),
            Delete(kind=MODELS, name="wine", expected=1),
        ):
            with pytest.raises(Conflict) as caught:
                await registry.write(change, author="cy")
            assert (caught.value.name, caught.value.actual) == ("wine", 2)
        with pytest.raises(Conflict):
            await registry.write(put("beer", 1), author="cy")
        assert await registry.load_mirrored() == before

    async def test_a_write_holds_only_while_what_it_depends_on_is_unchanged(
        self, registry: Registry, other_client: Registry
    ) -> None:
        await registry.write(put("policy", kind=KEYS, strict=True), author="ana")
        found = Precondition(kind=KEYS, name="policy", expected=1)
        nothing = Precondition(kind=MODELS, name="wine", expected=0)
        await registry.write(put("tea"), author="ana", preconditions=[found, nothing])
        await other_client.write(put("policy", 1, kind=KEYS, strict=False), put("wine"), author="bea")
        before = await registry.load_mirrored()
        for precondition, actual in ((found, 2), (nothing, 1)):
            with pytest.raises(Conflict) as caught:
                await registry.write(put("beer"), author="ana", preconditions=[precondition])
            assert (caught.value.name, caught.value.actual) == (precondition.name, actual)
        assert await registry.load_mirrored() == before
        assert len(await registry.history()) == 4
        await other_client.write(Delete(kind=KEYS, name="policy", expected=2), author="bea")
        gone = Precondition(kind=KEYS, name="policy", expected=0)
        await registry.write(put("beer"), author="ana", preconditions=[gone])

    async def test_a_write_comes_before_a_change_of_its_precondition_or_fails(
        self, open_client: OpenClient
    ) -> None:
        """A write fails, or comes first, where another write at the same time changes what its precondition names."""
        clients = open_client(), open_client()
        await clients[0].write(put("policy", kind=KEYS), author="ana")
        for round_ in range(1, 11):
            depending = clients[0].write(
                put(f"wine-{round_}"),
                author="ana",
                preconditions=[Precondition(kind=KEYS, name="policy", expected=round_)],
            )
            ending = clients[1].write(put("policy", round_, kind=KEYS), author="bea")
            order = (depending, ending) if round_ % 2 else (ending, depending)
            results = await asyncio.gather(*order, return_exceptions=True)
            first, second = results if round_ % 2 else reversed(results)
            assert isinstance(second, int), second
            assert isinstance(first, Conflict) or (isinstance(first, int) and first < second), first
        for client in clients:
            await client.close()

    async def test_a_batch_is_whole_or_not_at_all(self, registry: Registry) -> None:
        await registry.write(put("wine", n=1), author="ana")
        before = await registry.load_mirrored()
        with pytest.raises(Conflict):
            await registry.write(put("beer"), put("wine", 7), put("tea"), author="ana")
        assert await registry.load_mirrored() == before
        assert len(await registry.history()) == 1
        generation = await registry.write(put("beer"), put("wine", 1, n=2), author="ana")
        assert generation == before.generation + 1

    async def test_a_revision_outlives_deletion(self, registry: Registry) -> None:
        await registry.write(put("wine"), author="ana")
        await registry.write(Delete(kind=MODELS, name="wine", expected=1), author="ana")
        assert await registry.read(MODELS, "wine") is None
        assert (await registry.load_mirrored()).documents == ()
        with pytest.raises(Conflict):
            await registry.write(Delete(kind=MODELS, name="wine", expected=2), author="ana")
        await registry.write(put("wine"), author="ana")
        document = await registry.read(MODELS, "wine")
        assert document is not None
        assert document.revision == 3

    async def test_the_history_tells_who_what_when_and_why(self, registry: Registry) -> None:
        await registry.write(put("wine", n=1), put("beer"), author="ana", reason="first")
        await registry.write(put("wine", 1, n=2), author="bea", reason="better")
        await registry.write(Delete(kind=MODELS, name="wine", expected=2), author="cy")
        changes = await registry.history(kind=MODELS, name="wine")
        assert [(c.action, c.author, c.reason, c.revision, c.before, c.after) for c in changes] == [
            ("delete", "cy", "", 3, {"n": 2}, None),
            ("update", "bea", "better", 2, {"n": 1}, {"n": 2}),
            ("create", "ana", "first", 1, None, {"n": 1}),
        ]
        generations = [change.generation for change in changes]
        assert generations == sorted(generations, reverse=True)
        assert all(change.at.endswith("Z") for change in changes)
        assert len(await registry.history(limit=2)) == 2
        assert {change.name for change in await registry.history()} == {"wine", "beer"}

    async def test_of_twenty_writers_one_wins_each_revision(self, open_client: OpenClient) -> None:
        clients = [open_client() for _ in range(4)]
        wins: list[int] = []

        async def writer(number: int) -> None:
            client = clients[number % len(clients)]
            while True:
                document = await client.read(MODELS, "counter")
                revision = document.revision if document is not None else 0
                body: dict[str, Any] = {"n": (document.body["n"] if document is not None else 0) + 1}
                try:
                    await client.write(
                        Put(kind=MODELS, name="counter", body=body, expected=revision), author=str(number)
                    )
                except (Conflict, Unavailable):  # somebody was first, or the store was busy for too long
                    continue
                wins.append(revision + 1)
                return

        await asyncio.gather(*(writer(number) for number in range(20)))
        assert sorted(wins) == list(range(1, 21))
        document = await clients[0].read(MODELS, "counter")
        assert document is not None
        assert (document.revision, document.body) == (20, {"n": 20})
        history = await clients[1].history(name="counter")
        assert sorted(change.revision for change in history) == list(range(1, 21))
        report = await verify_history(clients[2])
        assert (report.chained, report.findings) == (20, ()), "the writers forked the chain"
        for client in clients:
            await client.close()

    async def test_a_watch_sees_what_another_client_writes(
        self, registry: Registry, other_client: Registry
    ) -> None:
        watch = _Watch(registry)
        first = await watch.listing()
        assert first.documents == ()
        generation = await other_client.write(put("wine"), author="ana")
        seen = await watch.listing()
        assert seen.generation == generation
        assert [document.name for document in seen.documents] == ["wine"]
        await registry.write(put("beer"), author="ana")
        assert len((await watch.listing()).documents) == 2
        await other_client.write(put("k", kind=REVOCATIONS), author="ana")
        assert len((await watch.listing()).documents) == 3
        await watch.close()

    async def test_a_watch_never_goes_back(self, registry: Registry, other_client: Registry) -> None:
        watch = _Watch(registry)
        last = (await watch.listing()).generation

        async def write_many() -> None:
            for number in range(30):
                await other_client.write(put(f"m{number}"), author="ana")

        writing = asyncio.create_task(write_many())
        while last < 30:
            generation = (await watch.listing()).generation
            assert generation >= last
            last = generation
        await writing
        await watch.close()

    async def test_writers_of_different_documents_do_not_conflict(self, open_client: OpenClient) -> None:
        clients = [open_client() for _ in range(4)]

        async def write(number: int) -> int:
            while True:
                try:
                    return await clients[number % 4].write(put(f"m{number}"), author=str(number))
                except Unavailable:  # a store that was busy for too long may have time now
                    continue

        generations = await asyncio.gather(*map(write, range(20)))
        assert sorted(generations) == list(range(1, 21))
        assert len((await clients[0].load_mirrored()).documents) == 20
        assert len(await clients[1].history()) == 20
        assert (await verify_history(clients[1])).findings == ()
        for client in clients:
            await client.close()

    async def test_a_watch_never_shows_half_of_a_batch(
        self, registry: Registry, other_client: Registry
    ) -> None:
        watch = _Watch(registry)
        await watch.listing()

        async def write_pairs() -> None:
            for n in range(15):
                await other_client.write(put("left", n, n=n), put("right", n, n=n), author="ana")

        writing = asyncio.create_task(write_pairs())
        seen = -1
        while seen < 14:
            listing = await watch.listing()
            left, right = sorted(listing.documents, key=lambda document: document.name)
            assert left.body == right.body
            assert left.revision == right.revision == listing.generation
            seen = left.body["n"]
        await writing
        await watch.close()

    async def test_a_watch_that_begins_with_what_the_caller_has(
        self, registry: Registry, other_client: Registry
    ) -> None:
        await other_client.write(put("wine"), put("beer"), author="ana")
        known = await other_client.load_mirrored()
        await other_client.write(Delete(kind=MODELS, name="beer", expected=1), put("tea"), author="ana")
        now = await other_client.load_mirrored()
        for since in (known, now, msgspec.structs.replace(known, registry_id="another")):
            watch = _Watch(registry, since)
            seen = await watch.listing()
            assert (seen.registry_id, seen.generation) == (now.registry_id, now.generation)
            assert {document.name for document in seen.documents} == {"wine", "tea"}
            await watch.close()

    @pytest.mark.parametrize(
        "name", ["192.0.2.0/24", "..", "__name__", "a:b", "%2F", " ", "Ünï☃", "x" * 400, "'; --", "head"]
    )
    async def test_any_text_can_be_a_name(
        self, registry: Registry, other_client: Registry, name: str
    ) -> None:
        for kind in (MODELS, KEYS):
            await registry.write(put(name, kind=kind, n=1), author="ana")
            document = await other_client.read(kind, name)
            assert document is not None
            assert (document.kind, document.name, document.body) == (kind, name, {"n": 1})
            assert await other_client.list(kind) == (document,)
            assert [change.name for change in await other_client.history(kind=kind, name=name)] == [name]
        assert [document.name for document in (await registry.load_mirrored()).documents] == [name]

    async def test_the_history_is_a_hash_chain(self, registry: Registry, other_client: Registry) -> None:
        assert (await registry.head()).sequence == 0
        await registry.write(put("wine", text="Ü\u0000", number=2**53 + 1), put("beer"), author="ana")
        await other_client.write(put("wine", 1, n=2), author="bea", reason="“better”\n\u2028")
        generation = await registry.write(Delete(kind=MODELS, name="beer", expected=1), author="cy")
        head = await other_client.head()
        assert (head.generation, head.sequence) == (generation, 4)
        assert head.registry_id == (await registry.load_mirrored()).registry_id
        entries = [entry async for entry in registry.history_entries_newest_first()]
        assert [entry.sequence for entry in entries] == [4, 3, 2, 1]
        assert [entry.digest for entry in entries] == [entry_digest(e, head.registry_id) for e in entries]
        assert [head.digest, *(entry.previous for entry in entries)] == [*(e.digest for e in entries), ""]
        assert [entry.change() for entry in entries] == list(await other_client.history())
        stored = {
            (one.name, one.revision, one.body is None)
            for one in await other_client.raw_documents_with_deleted(MODELS)
        }
        assert stored == {("wine", 2, False), ("beer", 2, True)}
        assert (await verify_history(other_client)).findings == ()

    async def test_a_write_without_a_change_is_refused(self, registry: Registry) -> None:
        with pytest.raises(ValueError, match="at least one"):
            await registry.write(author="ana")
        assert (await registry.head()).generation == 0

    async def test_closing_twice_does_no_harm(self, open_client: OpenClient) -> None:
        registry = open_client()
        await registry.load_mirrored()
        await registry.close()
        await registry.close()


class _Watch:
    """A watch that is called again where it ends by raising Unavailable, as the contract lets it."""

    def __init__(self, registry: Registry, since: MirroredListing | None = None) -> None:
        self._registry = registry
        self._since = since
        self._watch = self._begin()
        self._told = -1  # the generation that was returned last

    def _begin(self) -> AsyncIterator[MirroredListing | None]:
        return self._registry.watch() if self._since is None else self._registry.watch(self._since)

    async def listing(self) -> MirroredListing:
        """The next listing; an error where none comes in a long time."""
        again = -1
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                try:
                    async for listing in self._watch:
                        # A watch begins with what there is, which after a break has been seen already.
                        if listing is not None and listing.generation != again:
                            self._told = listing.generation
                            return listing
                except Unavailable:
                    again = self._told
                    self._watch = self._begin()
                    await asyncio.sleep(0.05)
                else:
                    raise AssertionError("the watch ended")

    async def close(self) -> None:
        await self._watch.aclose()  # type: ignore[attr-defined]
