"""Render an error as problem details (RFC 9457)."""

from functools import lru_cache
from typing import Final

import msgspec

from gateway.core.direct_response import Response
from gateway.core.errors import GatewayError, HeaderList

_encode = msgspec.json.Encoder().encode


_REMEMBERED_CHARACTERS: Final = 256  # of a detail, which may hold what a caller sent


def render_problem(
    error: GatewayError, request_id: str, *, add_open_inference_error: bool = False
) -> Response:
    """Render `error` as `application/problem+json`.

    `add_open_inference_error` adds the member `error` that the Open Inference Protocol's REST binding asks for, so one body
    serves both. The shape is the backend contract's, so that a caller reads one shape whichever side failed. `request_id`
    holds nothing that JSON escapes.
    """
    detail = error.detail
    make = _remembered_parts if len(detail) <= _REMEMBERED_CHARACTERS else _parts
    status, headers, before, after = make(error.__class__, detail, error.headers, add_open_inference_error)  # type: ignore[arg-type]  # to mypy, an error's class cannot be hashed
    return Response(status, headers, f"{before}{request_id}{after}".encode())


def _parts(
    kind: type[GatewayError],
    detail: str,
    headers: HeaderList,
    add_open_inference_error: bool,  # noqa: FBT001
) -> tuple[int, HeaderList, str, str]:
    """What is the same for all requests that meet this error: status and fields, and the body around the request id."""
    members = {
        "type": "about:blank",
        "title": kind.title,
        "status": kind.status,
        "code": kind.code,
        "detail": detail,
    }
    fields = (
        (b"Content-Type", b"application/problem+json"),
        (b"chips-error", kind.code.encode("ascii")),
        (b"Cache-Control", b"no-store"),
        *headers,
    )
    after = f'","error":{_encode(detail).decode()}}}\n' if add_open_inference_error else '"}\n'
    return kind.status, fields, f'{_encode(members)[:-1].decode()},"request_id":"', after


_remembered_parts = lru_cache(maxsize=1024)(_parts)  # strangers cause the same refusals again and again
