"""Strangers by the thousand at a gateway process: silent, with half a head, with a body that drips, with keys they made up."""

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from gateway.core.api_keys import make_key
from tests.flow.scripted import read_message, request

OTHER_FILES = 300  # what the process of the strangers has open besides them
_AT_ONCE = 100


@contextmanager
def many_files() -> Iterator[int]:
    """The soft limit of files is the hard one meanwhile; how many strangers that allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 65_536 if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield most - OTHER_FILES
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@asynccontextmanager
async def strangers(port: int, count: int) -> AsyncIterator[list[asyncio.StreamWriter]]:
    """`count` of them hold connections meanwhile; one in fifty guesses keys, again and again."""
    writers: list[asyncio.StreamWriter] = []
    guessing: list[asyncio.Task[None]] = []
    kinds = (
        b"",
        b"POST /slow HTTP/1.1\r\nHost: chips\r\nX-",
        b"POST /slow HTTP/1.1\r\nHost: chips\r\nContent-Length: 60000\r\n\r\nx",
        b"POST /slow HTTP/1.1\r\nHost: chips\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
    )

    async def come(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(writer)
        if number % 50:
            writer.write(kinds[number % len(kinds)])
        else:
            guessing.append(asyncio.create_task(_guess(reader, writer)))

    try:
        for begin in range(0, count, _AT_ONCE):
            await asyncio.gather(*(come(number) for number in range(begin, min(count, begin + _AT_ONCE))))
        yield writers
    finally:
        for task in guessing:
            task.cancel()
        await asyncio.gather(*guessing, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()


async def _guess(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            writer.write(request("POST", "/slow", body=b"{}", fields=[("X-Api-Key", make_key())]))
            await read_message(reader, request=False)
            await asyncio.sleep(1)
