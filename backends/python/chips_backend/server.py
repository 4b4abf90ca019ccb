"""The HTTP server under the app: aiohttp's, with its limits, and with problem documents for what is no HTTP request."""

import errno
import socket
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from chips_backend.app import App
from chips_backend.problem_details import Problem

_HEADER_BYTES: Final = 16 * 1024  # as the gateway takes them
_READ_BYTES: Final = (
    256 * 1024
)  # of a body are read ahead; aiohttp's 64 KiB pause the connection again and again


class _Connection(RequestHandler):
    """Aiohttp's connection, with a problem where its parser refuses a request."""

    __slots__ = ("app",)
    app: App

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        if isinstance(exc, LineTooLong):
            problem = Problem(431, "headers-too-large", "the request line or a header field is too long")
        elif status < 500:
            problem = Problem(400, "bad-request", "the request is not valid HTTP/1.1")
        else:
            problem = Problem(500, "prediction-failed", "the request failed; the log has the reason")
        return self.app.refuse(request, problem, exc if problem.status == 500 else None)


class _Server(web.Server):
    def __init__(self, app: App, **options: Any) -> None:
        super().__init__(app, **options)
        self._app = app

    def __call__(self) -> RequestHandler:
        connection = _Connection(self, loop=self._loop, **self._kwargs)
        connection.app = self._app
        return connection


async def listen(app: App, port: int, *, stop_grace_s: float) -> web.ServerRunner:
    """Serve `app` on all interfaces; `cleanup()` of what is returned stops accepting and lets what runs finish."""
    server = _Server(
        app,
        handler_cancellation=True,  # who has left waits no more, and is not predicted
        access_log=None,
        auto_decompress=False,  # a coding is refused, whatever the body is
        max_line_size=_HEADER_BYTES,
        max_field_size=_HEADER_BYTES,
        lingering_time=2.0,  # for the rest of a body that was refused
        read_bufsize=_READ_BYTES,
        keepalive_timeout=650.0,  # longer than any caller keeps a connection
    )
    runner = web.ServerRunner(server, shutdown_timeout=stop_grace_s)
    await runner.setup()
    await web.SockSite(runner, _socket(port)).start()
    return runner


def _socket(port: int) -> socket.socket:
    """One socket for all interfaces of both families, so that port 0 means one port."""
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError as error:
            if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                raise
    return socket.create_server(("", port))
