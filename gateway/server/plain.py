"""The plain server side: an aiohttp request as an Exchange, and an aiohttp response as its Reply."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from aiohttp import HttpVersion11, web

from gateway.core.exchange import Exchange
from gateway.core.response import Response, gateway_field_lines
from gateway.pipeline import Pipeline
from gateway.server.plain_protocol import ProblemRequestHandler
from gateway.server.request_body import timeout_error


class PlainServer:
    """The function that aiohttp's low-level server calls for each request."""

    def __init__(self, pipeline: Pipeline, *, body_timeout_s: float) -> None:
        self._pipeline = pipeline
        self._body_timeout_s = body_timeout_s

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        response = PlainResponse(request)
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        exchange = Exchange(
            method=request.method,
            raw_target=request.raw_path,
            headers=request.raw_headers,
            peer=peer[0] if peer else "",
            scheme=request.scheme,
            body=PlainBody(request, self._body_timeout_s),
            response=response,
            arrived=time.monotonic(),
        )
        response.exchange = exchange
        handler: ProblemRequestHandler = request.protocol  # type: ignore[assignment]  # ProblemServer makes no other
        handler.begin_request()
        try:
            await self._pipeline(exchange)
        finally:
            handler.end_request(recognized=bool(exchange.authenticated))
        return response.response


class PlainBody:
    def __init__(self, request: web.BaseRequest, timeout_s: float) -> None:
        self._request = request
        self._timeout_s = timeout_s
        self.length = request.content_length if request.can_read_body else 0
        self._whole = None if self.length != 0 else b""

    @property
    def complete(self) -> bool:
        return self._whole is not None

    async def buffer(self, deadline: float) -> None:
        await self._send_continue()
        try:
            async with asyncio.timeout(min(deadline - time.monotonic(), self._timeout_s)):
                self._whole = await self._request.content.read()
        except TimeoutError:
            raise timeout_error() from None

    async def read(self) -> bytes:
        if self._whole is None:
            self._whole = b"".join([chunk async for chunk in self.iter_chunks()])
        return self._whole

    async def iter_chunks(self) -> AsyncIterator[bytes]:
        await self._send_continue()
        while True:
            try:
                async with asyncio.timeout(self._timeout_s):
                    chunk = await self._request.content.readany()
            except TimeoutError:
                raise timeout_error() from None
            if not chunk:
                return
            yield chunk

    async def _send_continue(self) -> None:
        """Answer `Expect: 100-continue` once we do want the body (RFC 9110 section 10.1.1)."""
        request = self._request
        if request.headers.get("Expect", "").lower() == "100-continue" and request.version >= HttpVersion11:
            transport = request.transport
            if transport is not None and not request.content.is_eof():
                transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


class PlainResponse:
    """An aiohttp response, made when the pipeline knows what it is."""

    exchange: Exchange
    response: web.StreamResponse

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self._cut = False
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
        for name, value in (*fields, *exchange.added_fields):
            response.headers.add(name.decode("latin-1"), value.decode("latin-1", "surrogateescape"))
        for line in gateway_field_lines(exchange, time.monotonic()).split("\r\n")[:-1]:
            own_name, _, own_value = line.partition(": ")
            response.headers[own_name] = own_value
        if length is not None:
            response.content_length = length
        # A body that we did not read would be taken for the next request.
        if not self._request.content.is_eof() and exchange.error is not None:
            response.force_close()
        if self._request.protocol.closes_after_response:  # type: ignore[attr-defined]  # of ProblemRequestHandler
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
