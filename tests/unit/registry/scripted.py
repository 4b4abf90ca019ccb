"""A registry that does what the test says, and a clock that the test moves."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from gateway.registry.base import MODELS, REVOCATIONS, Document, MirroredListing, Unavailable


def model(name: str = "wine", revision: int = 1, **changes: Any) -> Document:
    body = {
        "name": name,
        "backends": [{"version": "1", "url": f"http://backend/{name}"}],
        "traffic": {"1": 100},
        **changes,
    }
    return Document(kind=MODELS, name=name, revision=revision, body=body)


def revocation(digest: str) -> Document:
    return Document(kind=REVOCATIONS, name=digest, revision=1, body={})


def listing(generation: int, *documents: Document, registry_id: str = "one") -> MirroredListing:
    return MirroredListing(registry_id=registry_id, generation=generation, documents=documents)


class Clock:
    """Time that passes only when somebody sleeps, or the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sleeps: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


class Scripted:
    """`tell` makes the watch yield a listing, None or an exception; `documents` is what `read` finds."""

    def __init__(self) -> None:
        self._told: asyncio.Queue[MirroredListing | Exception | None] = asyncio.Queue()
        self.taken = 0
        self.documents: dict[str, Document] = {}
        self.reads: list[str] = []
        self.read_gate: asyncio.Event | None = None
        self.read_error: Exception | None = None
        self.since: list[MirroredListing | None] = []
        self.down = False

    def tell(self, *what: MirroredListing | Exception | None) -> None:
        for one in what:
            self._told.put_nowait(one)

    async def told(self) -> None:
        """Until everything told was taken, and what came of it is done."""
        await self._told.join()

    async def watch(self, since: MirroredListing | None = None) -> AsyncIterator[MirroredListing | None]:
        self.since.append(since)
        if self.down:
            raise Unavailable("down")
        while True:
            what = await self._told.get()
            try:
                if isinstance(what, Exception):
                    raise what
                yield what
            finally:
                self._told.task_done()

    async def load_mirrored(self) -> MirroredListing:
        raise NotImplementedError

    async def read(self, kind: str, name: str) -> Document | None:
        self.reads.append(name)
        if self.read_gate is not None:
            await self.read_gate.wait()
        if self.read_error is not None:
            raise self.read_error
        return self.documents.get(name)
