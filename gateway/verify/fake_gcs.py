"""A fake Cloud Storage server, to check how backends download.

It serves objects, and records what was fetched. It can only be read.
"""

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from aiohttp import web

BUCKET = "chips-verify"
_BLOCK_BYTES = 1 << 20
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class FakeGcs:
    """A fake Cloud Storage server that serves `objects` by name.

    Of the object named `stalls_at` it sends half, and then nothing more.
    """

    def __init__(self, objects: Mapping[str, bytes | memoryview]) -> None:
        self._objects = objects
        self.fetched: list[str] = []  # whose content was asked for
        self.stalls_at: str | None = None
        self.stalled = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Start the server; return its address. The address is for STORAGE_EMULATOR_HOST."""
        app = web.Application()
        for path in ("/storage/v1/b/{bucket}/o/{name:.+}", "/download/storage/v1/b/{bucket}/o/{name:.+}"):
            app.router.add_get(path, self._get)
        app.router.add_get("/{bucket}/{name:.+}", self._get)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _get(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        content = self._objects.get(name)
        if content is None or request.match_info["bucket"] != BUCKET:
            return web.json_response(
                {"error": {"code": 404, "message": f"No such object: {name}"}}, status=404
            )
        if request.path.startswith("/storage/") and request.query.get("alt") != "media":
            return web.json_response(self._metadata(name, content))
        self.fetched.append(name)
        return await self._send(request, name, content)

    @staticmethod
    def _metadata(name: str, content: bytes | memoryview) -> dict[str, Any]:
        return {
            "kind": "storage#object",
            "bucket": BUCKET,
            "name": name,
            "generation": "1",
            "metageneration": "1",
            "size": str(len(content)),
            "contentType": "application/octet-stream",
        }

    async def _send(self, request: web.Request, name: str, content: bytes | memoryview) -> web.StreamResponse:
        wanted = _RANGE.fullmatch(request.headers.get("Range", ""))
        begin = int(wanted[1]) if wanted else 0
        end = min(int(wanted[2]) + 1, len(content)) if wanted and wanted[2] else len(content)
        if wanted and begin >= len(content):
            return web.Response(status=416, headers={"Content-Range": f"bytes */{len(content)}"})
        answer = web.StreamResponse(status=206 if wanted else 200, headers={"x-goog-generation": "1"})
        if wanted:
            answer.headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(content)}"
        answer.content_type = "application/octet-stream"
        answer.content_length = end - begin
        await answer.prepare(request)
        middle = len(content) // 2
        for at in range(begin, end, _BLOCK_BYTES):
            stop = min(at + _BLOCK_BYTES, end)
            if name == self.stalls_at and stop > middle:
                await answer.write(content[at:middle])
                self.stalled.set()
                await asyncio.Event().wait()  # until the caller is gone
            await answer.write(content[at:stop])
        await answer.write_eof()
        return answer
