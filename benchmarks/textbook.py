"""The proxy that everybody writes first: an aiohttp application, middlewares, and one `ClientSession`.

It does the same duties as the gateway: allowlist, key, route, forwarding fields, one JSON line a request.
"""

import hashlib
import ipaddress
import json
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Middleware

HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
    "content-length",
    "x-api-key",
}
NETWORKS = [ipaddress.ip_network(network) for network in ("127.0.0.0/8", "203.0.113.0/24", "10.0.0.0/8")]
SESSION = web.AppKey("session", aiohttp.ClientSession)

Next = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def log(request: web.Request, handler: Next) -> web.StreamResponse:
    began = time.perf_counter()
    request["id"] = uuid.uuid4().hex
    response = await handler(request)
    sys.stdout.write(
        json.dumps(
            {
                "time": time.time(),
                "method": request.method,
                "path": request.path,
                "status": response.status,
                "latency": time.perf_counter() - began,
                "caller": request.get("caller"),
                "address": request.remote,
                "request_id": request["id"],
                "trace": request.headers.get("traceparent"),
            }
        )
        + "\n"
    )
    return response


@web.middleware
async def admit(request: web.Request, handler: Next) -> web.StreamResponse:
    address = ipaddress.ip_address(request.remote or "0.0.0.0")
    if not any(address in network for network in NETWORKS):
        raise web.HTTPForbidden
    return await handler(request)


def authenticate(keys: dict[str, str]) -> Middleware:
    @web.middleware
    async def middleware(request: web.Request, handler: Next) -> web.StreamResponse:
        digest = hashlib.sha256(request.headers.get("X-Api-Key", "").encode()).hexdigest()
        caller = keys.get(digest)
        if caller is None:
            raise web.HTTPUnauthorized
        request["caller"] = caller
        return await handler(request)

    return middleware


def forward(backends: dict[str, str]) -> Next:
    async def handler(request: web.Request) -> web.StreamResponse:
        backend = backends.get(request.path)
        if backend is None:
            raise web.HTTPNotFound
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        headers["X-Request-Id"] = request["id"]
        headers["X-Forwarded-For"] = request.remote or ""
        async with request.app[SESSION].request(
            request.method, backend + request.path_qs, headers=headers, data=await request.read()
        ) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
            return web.Response(status=answer.status, headers=kept, body=await answer.read())

    return handler


def main() -> None:
    port, backend, secure, key, ca_file = sys.argv[1:]
    keys = {hashlib.sha256(key.encode()).hexdigest(): "alice"}
    backends = dict.fromkeys(("/m1k", "/m100k", "/m1m", "/c1k", "/c100k", "/events"), backend) | {
        "/tls": secure
    }

    async def session(app: web.Application) -> AsyncIterator[None]:
        import ssl

        connector = aiohttp.TCPConnector(limit=0, ssl=ssl.create_default_context(cafile=ca_file))
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as app[SESSION]:
            yield

    app = web.Application(middlewares=[log, admit, authenticate(keys)], client_max_size=64 * 1024 * 1024)
    app.cleanup_ctx.append(session)
    app.router.add_route("*", "/{path:.*}", forward(backends))
    web.run_app(app, host="127.0.0.1", port=int(port), access_log=None, print=None)


if __name__ == "__main__":
    main()
