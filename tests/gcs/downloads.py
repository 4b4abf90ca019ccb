"""Objects' content: ranges, transcoding, checksums in headers."""

import base64
import gzip
import re

from aiohttp import web

from tests.gcs.faults import Fault
from tests.gcs.objects import Object

_RANGE = re.compile(r"\s*bytes=(\d*)-(\d*)\s*")
_BLOCK_BYTES = 1 << 20


async def send(request: web.Request, found: Object, fault: Fault | None) -> web.StreamResponse:
    """Answer with the content of `found`, or the part of it that is asked for."""
    data, status, headers = (
        found.data,
        200,
        _headers(found, json_api=request.path.startswith(("/storage", "/download"))),
    )
    if found.content_encoding == "gzip":
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
        else:
            data = gzip.decompress(data)
            headers["Warning"] = "214 UploadServer gunzipped"
    span = _span(request.headers.get("Range"), len(data)) if data is found.data else None
    if span is not None:
        begin, end = span
        if begin >= len(data) or end < begin:
            return web.Response(status=416, headers={"Content-Range": f"bytes */{len(data)}"})
        headers["Content-Range"] = f"bytes {begin}-{end}/{len(data)}"
        data, status = data[begin : end + 1], 206
    if fault is not None and fault.corrupt and data:
        data = bytes([data[0] ^ 1]) + data[1:]
    return await _stream(request, data, status, headers, fault)


async def _stream(
    request: web.Request, data: bytes, status: int, headers: dict[str, str], fault: Fault | None
) -> web.StreamResponse:
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = len(data)
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    limit = len(data) if fault is None or fault.truncate is None else fault.truncate
    view = memoryview(data)[:limit]
    for at in range(0, len(view), _BLOCK_BYTES):
        await response.write(bytes(view[at : at + _BLOCK_BYTES]))
    if limit < len(data) and request.transport is not None:
        request.transport.close()
        return response
    await response.write_eof()
    return response


def _span(header: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte of a single range (RFC 9110 section 14.1.2); None for the whole."""
    match = _RANGE.fullmatch(header or "")
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        return max(0, size - int(match[2])), size - 1
    return int(match[1]), min(int(match[2]), size - 1) if match[2] else size - 1


def _headers(found: Object, *, json_api: bool) -> dict[str, str]:
    crc32c, md5 = (base64.b64encode(digest).decode() for digest in (found.crc32c, found.md5))
    return {
        "Content-Type": found.content_type,
        "ETag": found.etag if json_api else f'"{found.md5.hex()}"',
        "X-Goog-Generation": str(found.generation),
        "X-Goog-Metageneration": str(found.metageneration),
        "X-Goog-Hash": f"crc32c={crc32c},md5={md5}",
        "X-Goog-Stored-Content-Length": str(len(found.data)),
        "X-Goog-Stored-Content-Encoding": found.content_encoding or "identity",
        "X-Goog-Storage-Class": "STANDARD",
        "Accept-Ranges": "bytes",
        "Last-Modified": found.updated.strftime("%a, %d %b %Y %H:%M:%S GMT"),
        "Cache-Control": found.cache_control or "private, max-age=0",
        **{f"x-goog-meta-{name}": value for name, value in found.metadata.items()},
    }
