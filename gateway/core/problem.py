"""The one place where an error becomes bytes: RFC 9457 problem details."""

import msgspec

from gateway.core.errors import GatewayError
from gateway.core.response import Response


def render_problem(error: GatewayError, request_id: str, *, open_inference: bool = False) -> Response:
    """Render `error` as `application/problem+json`.

    The shape is the backend contract's, so that a caller reads one shape whichever side failed. `open_inference` adds
    the member `error` that the Open Inference Protocol's REST binding asks for, so one body serves both.
    """
    body = {
        "type": "about:blank",
        "title": error.title,
        "status": error.status,
        "code": error.code,
        "detail": error.detail,
        "request_id": request_id,
    }
    if open_inference:
        body["error"] = error.detail
    headers = (
        (b"Content-Type", b"application/problem+json"),
        (b"chips-error", error.code.encode("ascii")),
        (b"Cache-Control", b"no-store"),
        *error.headers,
    )
    return Response(error.status, headers, msgspec.json.encode(body) + b"\n")
