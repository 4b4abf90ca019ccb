"""Read a body whole, and no more of it than is allowed."""

from collections.abc import AsyncIterable


async def read_at_most(pieces: AsyncIterable[bytes], limit: int) -> bytes:
    """All of `pieces`, such as `StreamReader.iter_any()` of aiohttp, whose `read(n)` ends with the first piece that has arrived.

    Raises ValueError where it is more than `limit` bytes.
    """
    body = bytearray()
    async for piece in pieces:
        body += piece
        if len(body) > limit:
            raise ValueError(f"it sent more than {limit} bytes")
    return bytes(body)
