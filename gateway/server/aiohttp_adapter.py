"""Adapts aiohttp's requests and responses to an Exchange. This is the plain path from callers."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from aiohttp import HttpVersion10, HttpVersion11, web

from gateway.core.added_response_headers import gateway_field_lines
from gateway.core.direct_response import Response
from gateway.core.errors import BadRequest, GatewayError, HttpVersionNotSupported
from gateway.core.exchange import BUFFERED_BODY_BYTES, Exchange
from gateway.core.header_classification import parse_token_list
from gateway.pipeline import Pipeline
from gateway.server.request_body import INVALID_CHUNKS, body_timeout_error
from gateway.server.request_framing import RequestFraming, determine_framing
from gateway.server.strict_aiohttp_protocol import StrictRequestHandler, closing_problem_response


class AiohttpRequestHandler:
    """Runs the pipeline for each request that aiohttp received. The low-level server of aiohttp calls it."""

    def __init__(self, pipeline: Pipeline, *, body_timeout_s: float) -> None:
        self._pipeline = pipeline
        self._body_timeout_s = body_timeout_s

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        handler: StrictRequestHandler = request.protocol  # type: ignore[assignment]  # StrictAiohttpServer makes no other
        try:
            framing = _frame(request)
            if handler.after_chunks and request.raw_headers and request.raw_headers[0][0].lower() != b"host":
                # aiohttp's parser puts the last trailer of a request before the fields of the next one.
                raise BadRequest("Behind a request with chunks, Host must be the first header field.")
        except GatewayError as error:
            return closing_problem_response(error)
        handler.after_chunks = framing.length is None
        response = AiohttpResponseWriter(request, last=framing.closes)
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        exchange = Exchange(
            method=request.method,
            raw_target=request.raw_path,
            headers=request.raw_headers,
            peer=peer[0] if peer else "",
            scheme=request.scheme,
            body=AiohttpRequestBody(request, self._body_timeout_s, expected=framing.expects),
            response=response,
            arrived=time.monotonic(),
        )
        response.exchange = exchange
        handler.begin_request()
        try:
            await self._pipeline(exchange)
        finally:
            handler.end_request(recognized=bool(exchange.authenticated))
        return response.response


def _frame(request: web.BaseRequest) -> RequestFraming:
    """How aiohttp framed the request. Raises a CallerError where that leaves a doubt."""
    if request.version not in {HttpVersion11, HttpVersion10}:
        raise HttpVersionNotSupported("This gateway supports HTTP/1.1 and HTTP/1.0, and no other version.")
    framing = determine_framing(
        request.method, request.raw_headers, version_11=request.version == HttpVersion11
    )
    if framing.length != 0 and not request.body_exists:  # it took the coding for another one, or for none
        raise BadRequest("The request's Transfer-Encoding must be exactly: chunked.")
    if _upgrades(request):  # aiohttp loses what came behind the head in one piece with it
        if framing.length != 0:
            raise BadRequest(
                "With server.path = plain, a request for a protocol other than WebSocket cannot have a body."
            )
        return framing._replace(closes=True)
    return framing


def _upgrades(request: web.BaseRequest) -> bool:
    """Whether the caller offers another protocol than those that aiohttp knows."""
    offered = request.headers.get("Upgrade", "").lower()
    named = parse_token_list(request.headers.get("Connection", "").encode("utf-8", "surrogateescape"))
    return bool(offered) and offered not in {"websocket", "tcp"} and b"upgrade" in named


class AiohttpRequestBody:
    """A request body read through aiohttp's public API."""

    def __init__(self, request: web.BaseRequest, timeout_s: float, *, expected: bool) -> None:
        self._request = request
        self._timeout_s = timeout_s
        self._expected = expected
        self.length = request.content_length if request.can_read_body else 0
        self._whole = None if self.length != 0 else b""
        self._begun: list[bytes] = []  # what `buffer` has read of it

    @property
    def complete(self) -> bool:
        return self._whole is not None

    def buffered_body(self) -> bytes:
        assert self._whole is not None  # noqa: S101  (only once it is complete)
        return self._whole

    async def buffer_start(self, deadline: float) -> None:
        await self._send_continue()
        try:
            async with asyncio.timeout(min(deadline - time.monotonic(), self._timeout_s)):
                while sum(map(len, self._begun)) < BUFFERED_BODY_BYTES:
                    chunk = await self._request.content.readany()
                    if not chunk:
                        self._whole = b"".join(self._begun)
                        break
                    self._begun.append(chunk)
        except TimeoutError:
            raise body_timeout_error() from None
        except web.RequestPayloadError as error:
            raise BadRequest(INVALID_CHUNKS) from error

    async def read_small_body(self) -> bytes:
        if self._whole is None:
            self._whole = b"".join([chunk async for chunk in self.iter_chunks()])
        return self._whole

    async def iter_chunks(self) -> AsyncIterator[bytes]:
        await self._send_continue()
        while self._begun:
            yield self._begun.pop(0)
        left_s, size = self._timeout_s, 0
        while True:
            began = time.monotonic()
            try:
                async with asyncio.timeout(left_s):
                    chunk = await self._request.content.readany()
            except TimeoutError:
                raise body_timeout_error() from None
            except web.RequestPayloadError as error:
                raise BadRequest(INVALID_CHUNKS) from error
            if not chunk:
                return
            left_s -= time.monotonic() - began
            size += len(chunk)
            if size >= BUFFERED_BODY_BYTES:
                left_s, size = self._timeout_s, 0
            yield chunk

    async def _send_continue(self) -> None:
        """Answer `Expect: 100-continue` once we do want the body (RFC 9110 section 10.1.1)."""
        request = self._request
        if self._expected:
            self._expected = False
            transport = request.transport
            if transport is not None and not request.content.is_eof():
                transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


class AiohttpResponseWriter:
    """Writes the response through aiohttp. The aiohttp response is made when the pipeline knows the status."""

    exchange: Exchange
    response: web.StreamResponse

    def __init__(self, request: web.BaseRequest, *, last: bool) -> None:
        self._request = request
        self._last = last
        self.started = False

    async def send(self, answer: Response) -> None:
        await self.start(answer.status, "", list(answer.headers), len(answer.body))
        if self._request.method != "HEAD":
            await self.write(answer.body)
        await self.finish()

    async def start(
        self, status: int, reason: str, fields: list[tuple[bytes, bytes]], length: int | None
    ) -> None:
        response = web.StreamResponse(status=status, reason=reason or None)
        exchange = self.exchange
        added = [line.partition(b": ")[::2] for line in exchange.added_lines.split(b"\r\n")[:-1]]
        for name, value in (*fields, *added):
            response.headers.add(name.decode("ascii"), value.decode("utf-8", "replace"))
        own = gateway_field_lines(exchange, time.monotonic()).encode("latin-1").decode("utf-8", "replace")
        for line in own.split("\r\n")[:-1]:
            own_name, _, own_value = line.partition(": ")
            response.headers[own_name] = own_value
        if length is not None:
            response.content_length = length
        endless = length is None and self._request.version < HttpVersion11  # it ends with the connection
        # A body that we did not read would be taken for the next request.
        unread = not self._request.content.is_eof() and exchange.error is not None
        if self._last or endless or unread:
            response.force_close()
        if self._request.protocol.closes_to_drain:  # type: ignore[attr-defined]  # of StrictRequestHandler
            response.force_close()
        exchange.status = status
        self.response = response
        self.started = True
        with _unless_gone():
            await response.prepare(self._request)

    async def write(self, chunk: bytes) -> None:
        self.exchange.bytes_out += len(chunk)
        with _unless_gone():
            await self.response.write(chunk)

    async def finish(self) -> None:
        with _unless_gone():
            await self.response.write_eof()

    def abort(self) -> None:
        transport = self._request.transport
        if transport is not None:
            transport.abort()


@contextmanager
def _unless_gone() -> Iterator[None]:
    """A caller who cannot be written to has left, which is nobody's error; the pipeline knows that as a cancellation."""
    try:
        yield
    except ConnectionError as error:
        raise asyncio.CancelledError from error
