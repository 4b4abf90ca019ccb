"""aiohttp's server protocol, made as strict as the fast path.

It judges request lines, has a time-out for heads, and answers with problem documents. This is the one file on the plain
path that touches what aiohttp does not document; tests/flow pins it.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from gateway.core.errors import GatewayError, InternalError
from gateway.core.problem_details import render_problem
from gateway.core.trace_context import new_trace_id
from gateway.server.open_connections import HALF_HEAD, SILENT, OpenConnections, has_unread_bytes
from gateway.server.request_framing import cannot_be_request_head, error_for_refused_head, parse_minor_version

_log = logging.getLogger(__name__)

_NEVER: Final = float("inf")
_EMPTY_LINES: Final = 8


class StrictRequestHandler(RequestHandler):
    """aiohttp's request handler of one connection, with a time-out for each head and a check of the first request line.

    What cannot be parsed is answered with problem details. Only aiohttp knows where later requests begin, so
    `AiohttpRequestHandler` checks what aiohttp forgives in them, and the framing of all.
    """

    __slots__ = (
        "_head_timeout_s",
        "_heads",
        "_held",
        "_last_payload",
        "_limit_bytes",
        "_line",
        "after_chunks",
        "busy",
        "due",
        "open",
        "peer",
        "recognized",
        "stalled_at",
    )

    def __init__(
        self,
        server: "StrictAiohttpServer",
        *,
        connections: OpenConnections,
        head_timeout_s: float,
        **arguments: Any,
    ) -> None:
        super().__init__(server, **arguments)
        self.open = connections
        self._head_timeout_s = head_timeout_s
        self._heads = 0
        self._limit_bytes: int = arguments["max_line_size"]
        self._held: bytes | None = b""  # of the first line, until it is whole
        self._line = b""  # that line
        self._last_payload: StreamReader = EMPTY_PAYLOAD  # of the request read last
        self.peer = ""
        self.after_chunks = False  # the last request had its body in chunks
        self.busy = False
        self.recognized = False
        self.due = _NEVER
        self.stalled_at = _NEVER  # aiohttp does not tell

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if peer else ""
        self.due = time.monotonic() + self._head_timeout_s
        super().connection_made(transport)
        self.open.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.open.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._held is not None and data:
            data = self._judge_line(self._held + data, len(self._held))
            if not data:
                return
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            message, payload = self._messages[-1]
            if isinstance(message, _ErrInfo):
                self._fail_body(self._messages[-2][1] if len(self._messages) > 1 else self._last_payload)
            self._last_payload = payload
        if not self.busy and not self._messages and self.due == _NEVER:  # a part of a head
            self.due = time.monotonic() + self._head_timeout_s

    def _judge_line(self, held: bytes, seen: int) -> bytes:
        """What of `held` aiohttp may see: nothing before the first line is whole, or where that is refused."""
        if held.startswith(b"\r\n"):
            seen = 0
        for _ in range(_EMPTY_LINES):
            held = held.removeprefix(b"\r\n")
        line, end, rest = held.partition(b"\r\n")
        if (
            not end
            and len(held) <= self._limit_bytes
            and (held == b"\r" or not cannot_be_request_head(held, seen))
        ):
            self._held = held
            return b""
        self._held, self._line = None, line
        try:
            minor = parse_minor_version(line)
        except GatewayError as error:
            if end or len(line) <= self._limit_bytes:
                self._refuse(error)
                return b""
            minor = 1  # aiohttp says that it is too long
        return (line[:-1] + b"1" if minor > 1 else line) + end + rest

    def _refuse(self, error: BaseException) -> None:
        self._request_count += 1
        self._messages.append((_ErrInfo(status=400, exc=error, message=""), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail_body(self, payload: StreamReader) -> None:
        """Tell who reads a body that the rest of it is not valid; aiohttp tells only who waits for the next request."""
        if not payload.is_eof():
            self._lingering_time = 0.0  # there is no end to wait for
            payload.set_exception(web.RequestPayloadError("the chunks of the body are not valid"))

    def begin_request(self) -> None:
        self.busy = True
        self._heads += 1
        self.due = _NEVER

    def end_request(self, *, recognized: bool) -> None:
        self.busy = False
        if recognized and not self.recognized:
            self.open.mark_authenticated(self)
        if self.open.draining:
            self.due = time.monotonic() + self.open.linger_s

    @property
    def closes_to_drain(self) -> bool:
        """Whether the connection closes after the response that begins now because the gateway stops.

        It does if no further request has arrived.
        """
        return self.open.draining and not self._messages

    def expire(self) -> None:
        """Close the connection without an answer, because its time `due` has come, unless a request is under way.

        A request that has just arrived keeps it open, too.
        """
        self.due = _NEVER
        if self.busy or self._messages:
            return
        if has_unread_bytes(self.transport):
            self.due = time.monotonic()  # a request is here that the loop has not brought yet
            return
        if not self.open.draining:
            if self._heads:
                self.open.count_turned_away(HALF_HEAD, "a caller took too long for a request's head")
            else:
                self.open.count_turned_away(SILENT, "a caller opened a connection and sent no request")
        self.force_close()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        if isinstance(exc, GatewayError):
            return closing_problem_response(exc)
        if status < 500 or isinstance(exc, BadHttpMessage):
            line = self._line if self._request_count == 1 else b""
            return closing_problem_response(error_for_refused_head(exc, line, self._limit_bytes))
        return closing_problem_response(InternalError(), exc)


class StrictAiohttpServer(web.Server):
    """aiohttp's server with a `StrictRequestHandler` for each connection. `connections` counts and limits them."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        *,
        connections: OpenConnections,
        head_timeout_s: float,
        **arguments: Any,
    ) -> None:
        super().__init__(handler, **arguments)
        self.open = connections
        self._head_timeout_s = head_timeout_s

    def __call__(self) -> RequestHandler:
        return StrictRequestHandler(
            self, loop=self._loop, connections=self.open, head_timeout_s=self._head_timeout_s, **self._kwargs
        )

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  (aiohttp's signature)
        await super().shutdown(timeout)
        self.open.stop_timers()


def closing_problem_response(error: GatewayError, cause: BaseException | None = None) -> web.Response:
    """A problem details response that closes the connection.

    The request is not valid, or failed outside the pipeline. Logs it.
    """
    request_id = new_trace_id()
    if error.code == "internal-error":
        _log.error("request %s failed outside the pipeline", request_id, exc_info=cause)
    else:
        _log.warning("request %s cannot be parsed: %s", request_id, error.code)
    answer = render_problem(error, request_id)
    response = web.Response(status=answer.status, reason=error.title, body=answer.body)
    for name, value in answer.headers:
        response.headers[name.decode("ascii")] = value.decode("latin-1")
    response.headers["X-Request-Id"] = request_id
    response.headers["Server"] = "chips"
    response.force_close()
    return response
