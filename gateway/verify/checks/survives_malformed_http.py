"""Checks that the backend survives malformed HTTP.

It must also survive broken connections, and answer the next good request.
"""

import asyncio
import contextlib

import msgspec

from gateway.verify.conformance_check_type import (
    JSON,
    Check,
    CheckContext,
    ContractViolation,
    check,
    require_status,
)
from gateway.verify.raw_http import EmptyResponse, Fields, NoCompleteResponse, RawRequest

_REFUSED = (
    "what is not HTTP is refused with 4xx or by closing the connection; the next good request is answered"
)

_RAW = {
    "garbage": b"\x00\x01\x02 what is this\r\n\r\n",
    "no-version": b"GET /v2/health/live\r\n\r\n",
    "tls-hello": b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + b"\x00" * 40 + b"\r\n\r\n",
    "negative-length": b"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: -1\r\n\r\n",
    "length-not-a-number": b"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: ten\r\n\r\n",
    "bad-chunk": b"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "long-header": b"GET /v2/health/live HTTP/1.1\r\nHost: {host}\r\nX-Long: " + b"x" * 200_000 + b"\r\n\r\n",
    "long-target": b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: {host}\r\n\r\n",
}


def survival_check(name: str, raw: bytes) -> Check:
    """Make a check that the backend survives the bytes `raw`. It must answer the next good request."""

    async def run(context: CheckContext) -> None:
        # Closing without a word is allowed here, and waiting for more as well: only the process must live.
        request = RawRequest("", "", raw=raw)
        context.last = (request, NoCompleteResponse("the connection was closed, or nothing came"))
        with contextlib.suppress(NoCompleteResponse, TimeoutError):
            async with asyncio.timeout(3), context.client.connection() as connection:
                response = await connection.request(request)
                context.last = (request, response)
                if response.status < 400 or (response.status > 499 and response.status not in {501, 505}):
                    raise ContractViolation(f"status {response.status}")
        await context.require_still_serving()

    return Check(f"http/{name}", _REFUSED, run)


@check("http/path-tricks", "what is not one of the routes is 404 or 400, however it is written")
async def path_tricks(context: CheckContext) -> None:
    for path in (
        "//predict",
        "/../predict",
        "/%2e%2e/etc/passwd",
        "/predict%00",
        "/predict%2f..%2fx",
        "/.%2e/.%2e/etc/passwd",
    ):
        require_status(await context.get(path), 400, 404, 405)
    await context.require_still_serving()


@check("http/half-a-body", "a caller who leaves in the middle of a body breaks nothing")
async def half_a_body(context: CheckContext) -> None:
    for _ in range(5):
        async with context.client.connection() as connection:
            connection.send_nowait(
                RawRequest(
                    "",
                    "",
                    raw=b"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
                )
            )
            connection.abort()
    await context.require_still_serving()


@check("http/caller-leaves", "a caller who leaves before the answer breaks nothing")
async def caller_leaves(context: CheckContext) -> None:
    first = context.require_good_request()["instances"][0]
    body = msgspec.json.encode({"instances": [first] * 2000})
    for _ in range(5):
        async with context.client.connection() as connection:
            connection.send_nowait(RawRequest("POST", "/predict", JSON, body))
            connection.abort()
    for _ in range(3):  # it may take a moment until the backend sees that nobody is there
        await context.require_still_serving()


@check("http/expect", "Expect: 100-continue is answered, so that curl's large bodies do not wait a second")
async def expect(context: CheckContext) -> None:
    fields = (*JSON, ("Expect", "100-continue"))
    require_status(await context.post("/predict", context.require_good_request(), fields), 200)


_UPGRADES: tuple[Fields, ...] = (
    (
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ),
    # As Java's HttpClient asks with each first request.
    (
        ("Connection", "Upgrade, HTTP2-Settings"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA"),
    ),
    (("Connection", "keep-alive, Upgrade"), ("Upgrade", "TLS/1.2, Unknown/7")),
)


@check(
    "http/upgrade",
    "an upgrade (WebSocket, h2c or any other) is not taken: HTTP/1.1 answers as if it had not asked, or with 400",
)
async def upgrade(context: CheckContext) -> None:
    for fields in _UPGRADES:
        await _not_taken(context, RawRequest("GET", "/v2/health/live", fields), 200)
        await _not_taken(context, RawRequest("GET", "/predict", fields), 405)
        if context.good is not None:
            body = msgspec.json.encode(context.good)
            await _not_taken(context, RawRequest("POST", "/predict", (*JSON, *fields), body), 200)
    await context.require_still_serving()


async def _not_taken(context: CheckContext, request: RawRequest, status: int) -> None:
    try:
        response = await context.client.request(request)
    except NoCompleteResponse as error:
        # A server may end the connection instead; but not where a browser asks for a WebSocket, which has no body.
        context.last = (request, error)
        if ("Upgrade", "websocket") in request.fields and request.body is None:
            raise ContractViolation(str(error)) from None
        return
    context.last = (request, response)
    # 400 with or without a body: some servers read no body, and write none, where a request asks for an upgrade.
    require_status(response, status, 400)


@check(
    "http/head",
    "an answer to HEAD has no body, so that the next answer on the connection is the next request's",
)
async def head_has_no_body(context: CheckContext) -> None:
    for path in ("/v2/health/live", "/openapi.json", "/no-such-path", "/predict"):
        async with context.client.connection() as connection:
            for request in (RawRequest("HEAD", path), RawRequest("GET", "/v2/health/live")):
                try:
                    response = await connection.request(request)
                except EmptyResponse:
                    if request.method == "GET":
                        break  # the backend closed the connection after the head, and sent nothing behind it
                    raise
                context.last = (request, response)
                if request.method == "GET":
                    require_status(response, 200)


CHECKS = (
    *(survival_check(name, raw) for name, raw in _RAW.items()),
    path_tricks,
    half_a_body,
    caller_leaves,
    expect,
    upgrade,
    head_has_no_body,
)
