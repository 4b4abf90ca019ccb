"""Ray Serve as a router: its proxy, and one deployment that checks the key and forwards. `ray_router.py PORT BACKEND KEY`."""

import asyncio
import sys
import uuid

import aiohttp
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

PORT, BACKEND, KEY = sys.argv[1:]


@serve.deployment(max_ongoing_requests=1024)
class Router:
    def __init__(self, backend: str, key: str) -> None:
        self._backend = backend
        self._key = key
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, request: Request) -> Response:
        if request.headers.get("x-api-key") != self._key:
            return Response(status_code=401)
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        headers = {"Content-Type": "application/json", "X-Request-Id": uuid.uuid4().hex}
        async with self._session.post(
            self._backend + request.url.path, data=await request.body(), headers=headers
        ) as answer:
            return Response(await answer.read(), answer.status, media_type="application/json")


ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * 1024 * 1024, log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": int(PORT)})
serve.run(Router.bind(f"http://127.0.0.1:{BACKEND}", KEY), route_prefix="/")
asyncio.run(asyncio.Event().wait())
