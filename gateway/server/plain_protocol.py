"""aiohttp's server, speaking our problem documents where its parser refuses a request.

This is the one file on the plain path that touches what aiohttp does not document; tests/flow pins it.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from gateway.core.errors import GatewayError, InternalError
from gateway.core.problem import render_problem
from gateway.core.trace import new_trace_id
from gateway.server.open_connections import HALF_HEAD, SILENT, OpenConnections, has_unread
from gateway.server.parser import refusal_of

_log = logging.getLogger(__name__)

_NEVER: Final = float("inf")


class ProblemRequestHandler(RequestHandler):
    """Answers what cannot be parsed with a problem, and closes. A head has its time, as has the first one."""

    __slots__ = ("_head_timeout_s", "_heads", "busy", "due", "open", "peer", "recognized", "stalled_at")

    def __init__(
        self,
        server: "ProblemServer",
        *,
        connections: OpenConnections,
        head_timeout_s: float,
        **arguments: Any,
    ) -> None:
        super().__init__(server, **arguments)
        self.open = connections
        self._head_timeout_s = head_timeout_s
        self._heads = 0
        self.peer = ""
        self.busy = False
        self.recognized = False
        self.due = _NEVER
        self.stalled_at = _NEVER  # aiohttp does not tell

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if peer else ""
        self.due = time.monotonic() + self._head_timeout_s
        super().connection_made(transport)
        self.open.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.open.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.busy and not self._messages and self.due == _NEVER:  # a part of a head
            self.due = time.monotonic() + self._head_timeout_s

    def begin_request(self) -> None:
        self.busy = True
        self._heads += 1
        self.due = _NEVER

    def end_request(self, *, recognized: bool) -> None:
        self.busy = False
        if recognized and not self.recognized:
            self.open.recognize(self)
        if self.open.draining:
            self.due = time.monotonic() + self.open.linger_s

    @property
    def closes_after_response(self) -> bool:
        """Whether the answer that begins now is the connection's last: the gateway stops, and no request waits here."""
        return self.open.draining and not self._messages

    def expire(self) -> None:
        """`due` has come."""
        self.due = _NEVER
        if self.busy or self._messages:
            return
        if has_unread(self.transport):
            self.due = time.monotonic()  # a request is here that the loop has not brought yet
            return
        if not self.open.draining:
            if self._heads:
                self.open.turn_away(HALF_HEAD, "a caller took too long for a request's head")
            else:
                self.open.turn_away(SILENT, "a caller opened a connection and sent no request")
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
        request_id = new_trace_id()
        error: GatewayError
        if status < 500:
            error = refusal_of(exc)
        else:
            error = InternalError()
            _log.error("request %s failed outside the pipeline", request_id, exc_info=exc)
        if error.status < 500:
            _log.warning("request %s cannot be parsed: %s (%s)", request_id, error.code, type(exc).__name__)
        answer = render_problem(error, request_id)
        response = web.Response(status=answer.status, body=answer.body)
        for name, value in answer.headers:
            response.headers[name.decode("ascii")] = value.decode("latin-1")
        response.headers["X-Request-Id"] = request_id
        response.headers["Server"] = "chips"
        response.force_close()
        return response


class ProblemServer(web.Server):
    """Makes the handlers; `connections` has what they share."""

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
        return ProblemRequestHandler(
            self, loop=self._loop, connections=self.open, head_timeout_s=self._head_timeout_s, **self._kwargs
        )

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  (aiohttp's signature)
        await super().shutdown(timeout)
        self.open.stop()
