"""aiohttp's server, speaking our problem documents where its parser refuses a request.

This is the one file on the plain path that touches what aiohttp does not document; tests/flow pins it.
"""

import logging

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from gateway.core.errors import GatewayError, InternalError
from gateway.core.problem import render_problem
from gateway.core.trace import new_trace_id
from gateway.server.parser import refusal_of

_log = logging.getLogger(__name__)


class ProblemRequestHandler(RequestHandler):
    """Answers what cannot be parsed with a problem, and closes."""

    __slots__ = ()

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
    def __call__(self) -> RequestHandler:
        return ProblemRequestHandler(self, loop=self._loop, **self._kwargs)
