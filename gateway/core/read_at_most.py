"""Read a whole body from a stream, up to a size limit."""

from collections.abc import AsyncIterable


async def read_at_most(pieces: AsyncIterable[bytes], limit: int) -> bytes:
    """Read all of `pieces` (such as aiohttp's `StreamReader.iter_any()`). Raises ValueError for more than `limit` bytes.

    That class's own `read(n)` ends with the first piece that has arrived.
    """
    body = bytearray()
    async for piece in pieces:
        body += piece
        if len(body) > limit:
            raise ValueError(f"it sent more than {limit} bytes")
    return bytes(body)
