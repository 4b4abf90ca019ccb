"""The upstream that sends requests with aiohttp's own client.

It is the plain path to backends. It uses aiohttp's public API, but for one method of its pool (`_Connector`). The fast path is
measured against it, and it stands in where a release of aiohttp changes what the fast path relies on.
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
from aiohttp.connector import Connection
from multidict import CIMultiDict
from yarl import URL

from gateway.core.errors import (
    BadRequest,
    BrokenUpstreamResponse,
    GatewayError,
    PayloadTooLarge,
    UpstreamError,
    UpstreamUnreachable,
)
from gateway.core.exchange import BUFFERED_BODY_BYTES, Attempt, Exchange, ResponseWriter
from gateway.core.location_and_link_rewriting import rewrite_urls
from gateway.upstream.backend_tls import backend_tls_context
from gateway.upstream.base import BackendCredentials, EgressCheck, UpstreamRequest, trace_lines
from gateway.upstream.hold_retryable_refusal import REFUSALS, refusal_retry_after_s
from gateway.upstream.response_head import ResponseHead, parse_response_head
from gateway.upstream.timeout_or_deadline_error import timeout_or_deadline_error


class _Connector(aiohttp.TCPConnector):
    """Aiohttp keeps what comes on an idle connection, and takes it for the answer to the next request, another caller's.

    Such a connection is not used again.
    """

    async def _get(self, key: Any, traces: Any) -> Connection | None:
        while (connection := await super()._get(key, traces)) is not None:
            if connection.protocol is not None and not connection.protocol.should_close:
                return connection
            connection.close()
        return None


class AiohttpUpstream:
    """An upstream that sends requests with aiohttp's client.

    It has one shared `ClientSession`. Connections are pooled per backend, `connections` of them at most.
    """

    def __init__(
        self,
        *,
        connections: int,
        connect_timeout_s: float,
        idle_s: float,
        extra_ca_file: str = "",
        egress_policy: EgressCheck | None = None,
        identity: BackendCredentials | None = None,
    ) -> None:
        self._egress_policy = egress_policy
        self._identity = identity
        self._connections = connections
        self._connect_timeout_s = connect_timeout_s
        self._idle_s = idle_s
        self._extra_ca_file = extra_ca_file
        self._session: aiohttp.ClientSession

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=_Connector(
                limit=0,
                limit_per_host=self._connections,
                keepalive_timeout=self._idle_s,
                ttl_dns_cache=30,
                ssl=backend_tls_context(self._extra_ca_file),
                socket_factory=self._socket,
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s),
            trace_configs=[_time_to_open()],
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            max_line_size=16 * 1024,
            max_field_size=16 * 1024,
        )

    def _socket(self, info: tuple[Any, ...]) -> socket.socket:
        """A socket for one of the addresses that a name resolved to, which is the one it is then connected to."""
        family, kind, protocol, _, address = info
        if self._egress_policy is not None:
            try:
                self._egress_policy("", [str(address[0])])
            except UpstreamUnreachable as refused:
                raise OSError(str(refused.__cause__)) from None  # so that the next address gets its turn
        return socket.socket(family=family, type=kind, proto=protocol)

    async def stop(self) -> None:
        await self._session.close()

    async def send(self, exchange: Exchange, request: UpstreamRequest) -> None:
        attempt = Attempt(time.monotonic())
        exchange.attempts.append(attempt)
        try:
            # One scope for the whole attempt: the deadline covers sending, waiting and receiving alike.
            async with asyncio.timeout(exchange.deadline - time.monotonic()):
                await self._attempt(exchange, request, attempt)
        except TimeoutError:
            error = timeout_or_deadline_error(exchange)
            attempt.failure = error.code
            raise error from None
        except GatewayError as error:
            attempt.failure = error.code
            raise
        except (aiohttp.ClientError, OSError) as error:
            failure = _classify(error)
            attempt.failure = failure.code
            raise failure from error
        finally:
            attempt.ended = time.monotonic()

    async def _attempt(self, exchange: Exchange, request: UpstreamRequest, attempt: Attempt) -> None:
        if self._egress_policy is not None:
            self._egress_policy(urlsplit(request.url).hostname or "", ())
        proof: Sequence[bytes] | None = ()
        if self._identity is not None:
            proof = self._identity.cached_fields(request.url, exchange.backend.audience)
            if proof is None:
                proof = await self._identity.fetch_fields(request.url, exchange.backend.audience)
        lines = b"".join((*request.fields, trace_lines(exchange, attempt), *(proof or ())))
        headers = CIMultiDict[str]()
        try:
            text = lines.decode("utf-8")  # which is how aiohttp writes it
        except UnicodeDecodeError:
            raise BadRequest(
                "A header field holds bytes that are not UTF-8, which this gateway cannot pass on with server.path = plain."
            ) from None
        for line in text.split("\r\n")[:-1]:
            name, _, value = line.partition(": ")
            headers.add(name, value)
        upload = _Upload(exchange)
        try:
            response = await self._session.request(
                request.method,
                URL(request.url + request.path, encoded=True),
                headers=headers,
                data=await upload.payload(headers),
                allow_redirects=False,
                trace_request_ctx=attempt,
            )
        except (aiohttp.ClientError, OSError):
            # What broke may have been the caller's side of the body, which aiohttp reports as the backend's.
            if upload.error is not None:
                raise upload.error from None
            raise
        attempt.answered = time.monotonic()
        attempt.status = response.status
        async with response:
            await self._answer(exchange, request, response)

    async def _answer(
        self, exchange: Exchange, request: UpstreamRequest, response: aiohttp.ClientResponse
    ) -> None:
        writer = exchange.response
        head = _read_head(response)
        exchange.backend_server_timing = head.timing
        length = head.length if head.length >= 0 and head.status != 204 else None
        lines = head.fields + rewrite_urls(exchange, head.addresses or ())
        fields = [(name, value) for name, _, value in (line.partition(b": ") for line in lines.splitlines())]
        start = (head.status, head.reason.decode("ascii", "ignore"), fields, length)
        if head.status in REFUSALS and exchange.may_wait and await self._is_held(exchange, response, start):
            return
        await writer.start(*start)
        if request.method != "HEAD":
            await _relay_body(writer, response, chunked=head.chunked)
        await writer.finish()

    async def _is_held(self, exchange: Exchange, response: aiohttp.ClientResponse, start: "_Start") -> bool:
        value = response.headers.get("Retry-After")
        seconds = refusal_retry_after_s(
            response.status, value.encode("latin-1").strip() if value is not None else None
        )
        if seconds is None:
            return False
        exchange.refused_s = seconds
        length = start[-1]
        if not exchange.body.complete or length is None or length > BUFFERED_BODY_BYTES:
            return False
        exchange.refusal = _HeldRefusal(exchange.response, start, await response.read())
        return True


_Start = tuple[int, str, list[tuple[bytes, bytes]], int | None]


class _HeldRefusal(NamedTuple):
    """A refusal that was read as a whole, for `deliver`."""

    writer: ResponseWriter
    start: _Start
    body: bytes

    async def deliver(self) -> None:
        await self.writer.start(*self.start)
        await self.writer.write(self.body)
        await self.writer.finish()


def _time_to_open() -> aiohttp.TraceConfig:
    """Notes in the attempt how long it took to open a connection for it."""

    async def begins(
        _: aiohttp.ClientSession, context: Any, __: aiohttp.TraceConnectionCreateStartParams
    ) -> None:
        context.began = time.monotonic()

    async def ends(
        _: aiohttp.ClientSession, context: Any, __: aiohttp.TraceConnectionCreateEndParams
    ) -> None:
        context.trace_request_ctx.opening_s = time.monotonic() - context.began

    config = aiohttp.TraceConfig()
    config.on_connection_create_start.append(begins)
    config.on_connection_create_end.append(ends)
    return config


class _Upload:
    """The caller's body on its way out, counted against the model's limit."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.error: BaseException | None = None

    async def payload(self, headers: CIMultiDict[str]) -> bytes | AsyncIterator[bytes] | None:
        length = self._exchange.body.length
        if length == 0:
            if self._exchange.method in {"POST", "PUT", "PATCH"}:
                headers["Content-Length"] = "0"
            return None
        if length is not None:
            headers["Content-Length"] = str(length)
            if length <= BUFFERED_BODY_BYTES:
                body = await self._exchange.body.read_small_body()
                self._exchange.bytes_in = len(body)
                return body
        return self._counted()

    async def _counted(self) -> AsyncIterator[bytes]:
        exchange = self._exchange
        try:
            async for chunk in exchange.body.iter_chunks():
                exchange.bytes_in += len(chunk)
                if exchange.bytes_in > exchange.body_limit_bytes:
                    raise PayloadTooLarge(exchange.body_limit_bytes)
                yield chunk
        except BaseException as error:
            self.error = error
            raise


async def _relay_body(writer: ResponseWriter, response: aiohttp.ClientResponse, *, chunked: bool) -> None:
    """Raises BrokenUpstreamResponse where aiohttp did not read a chunked body as one: a blank behind the coding is enough."""
    content = response.content
    if not chunked or content.at_eof():  # aiohttp's empty body never ends when it is read chunk by chunk
        async for piece in content.iter_any():
            await writer.write(piece)
        return
    was_chunked, empty = False, True
    async for piece, ends_chunk in content.iter_chunks():
        was_chunked = was_chunked or ends_chunk
        if piece:
            empty = False
            await writer.write(piece)
    if not was_chunked and not empty:
        raise BrokenUpstreamResponse("The backend's answer was not valid HTTP.")


def _read_head(response: aiohttp.ClientResponse) -> ResponseHead:
    """The head once more, as the fast path reads it: aiohttp's parser forgives what the next program reads differently."""
    version = response.version
    reason = (response.reason or "").encode("utf-8", "surrogateescape")
    first = b"HTTP/%d.%d %d %b" % (*(version or (0, 9)), response.status, reason)
    lines = [b"%b: %b" % field for field in response.raw_headers]
    try:
        head = parse_response_head(b"\r\n".join([first, *lines]))
        if head.status < 200:
            raise ValueError("another protocol, unasked")
        b"".join(lines).decode("utf-8")  # what is not cannot be passed on as it is by aiohttp
    except ValueError as error:
        response.close()
        raise BrokenUpstreamResponse("The backend's answer was not valid HTTP.") from error
    return head


def _classify(error: aiohttp.ClientError | OSError) -> UpstreamError:
    """aiohttp's errors in our words. The most specific comes first; no other file knows them."""
    if isinstance(
        error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | aiohttp.SocketTimeoutError
    ):
        return UpstreamUnreachable("The backend cannot be reached.")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return BrokenUpstreamResponse("The backend closed the connection before it answered.")
    if isinstance(error, aiohttp.ClientPayloadError):
        return BrokenUpstreamResponse("The backend broke off in the middle of its answer.")
    if isinstance(error, aiohttp.ClientResponseError):
        return BrokenUpstreamResponse("The backend's answer was not valid HTTP.")
    return BrokenUpstreamResponse("The connection to the backend broke.")
