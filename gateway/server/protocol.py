"""aiohttp's server, kept to what the fast path keeps to: strict request lines, a time for each head, our problem documents.

This is the one file on the plain path that touches what aiohttp does not document; tests/flow pins it.
"""

import asyncio
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from gateway.core.errors import GatewayError, InternalError
from gateway.server.framing import check_request_line, is_no_head, refusal_of
from gateway.server.plain import problem_response

_EMPTY_LINES: Final = 8


class StrictRequestHandler(RequestHandler):
    """Looks at a connection's first request line before aiohttp does, and ends what aiohttp would wait for without an end.

    Where later requests begin, only aiohttp knows: what it forgives in them, `PlainServer` judges.
    """

    __slots__ = ("_alarm", "_held", "_last_payload", "_limit_bytes", "_line", "_timeout_s")

    def __init__(self, manager: web.Server, *, head_timeout_s: float, **options: Any) -> None:
        super().__init__(manager, **options)
        self._timeout_s = head_timeout_s
        self._limit_bytes: int = options["max_line_size"]
        self._alarm: asyncio.TimerHandle | None = None
        self._held: bytes | None = b""  # of the first line, until it is whole
        self._line = b""  # that line
        self._last_payload: StreamReader = EMPTY_PAYLOAD  # of the request read last

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._head_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._last_payload.is_eof() and data:
            self._await_head()
            if self._held is not None:
                data = self._judge_line(self._held + data)
                if not data:
                    return
        before = self._request_count
        super().data_received(data)
        if self._request_count == before:
            return
        self._head_came()
        message, payload = self._messages[-1]
        if isinstance(message, _ErrInfo):
            self._fail_body(self._messages[-2][1] if len(self._messages) > 1 else self._last_payload)
        self._last_payload = payload

    def _judge_line(self, held: bytes) -> bytes:
        """What of `held` aiohttp may see: nothing before the first line is whole, or where that is refused."""
        for _ in range(_EMPTY_LINES):
            held = held.removeprefix(b"\r\n")
        line, end, rest = held.partition(b"\r\n")
        if not end and len(held) <= self._limit_bytes and (held == b"\r" or not is_no_head(held)):
            self._held = held
            return b""
        self._held, self._line = None, line
        try:
            minor = check_request_line(line)
        except GatewayError as error:
            if end or len(line) <= self._limit_bytes:
                self._refuse(error)
                return b""
            minor = 1  # aiohttp says that it is too long
        return (line[:-1] + b"1" if minor > 1 else line) + end + rest

    # -- the time of a head

    def _await_head(self) -> None:
        if self._alarm is None and not self._force_close:
            self._alarm = self._loop.call_later(self._timeout_s, self._head_is_late)

    def _head_came(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _head_is_late(self) -> None:
        self._alarm = None
        if not self._request_in_progress:
            self.force_close()

    # -- refusals

    def _refuse(self, error: BaseException) -> None:
        self._head_came()
        self._request_count += 1
        self._messages.append((_ErrInfo(status=400, exc=error, message=""), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail_body(self, payload: StreamReader) -> None:
        """Tell who reads a body that the rest of it is not valid; aiohttp tells only who waits for the next request."""
        if not payload.is_eof():
            self._lingering_time = 0.0  # there is no end to wait for
            payload.set_exception(web.RequestPayloadError("the chunks of the body are not valid"))

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        if isinstance(exc, GatewayError):
            return problem_response(exc)
        if status < 500 or isinstance(exc, BadHttpMessage):
            line = self._line if self._request_count == 1 else b""
            return problem_response(refusal_of(exc, line, self._limit_bytes))
        return problem_response(InternalError(), exc)


class StrictServer(web.Server):
    """aiohttp's server with such handlers. `head_timeout_s` is how long a caller may take to send a head."""

    def __init__(self, handler: Any, *, head_timeout_s: float, **options: Any) -> None:
        super().__init__(handler, **options)
        self._head_timeout_s = head_timeout_s

    def __call__(self) -> RequestHandler:
        return StrictRequestHandler(
            self, head_timeout_s=self._head_timeout_s, loop=self._loop, **self._kwargs
        )
