"""A response, and its head as bytes."""

from http import HTTPStatus
from typing import Final, NamedTuple

_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


class Response(NamedTuple):
    """`fields` are lines of the head, each with its end."""

    status: int
    fields: str
    body: bytes


def render_response(response: Response, date: str, more_fields: str = "") -> bytes:
    """The head of a response, with the empty line behind it."""
    return (
        f"{_STATUS_LINES[response.status]}{response.fields}Content-Length: {len(response.body)}\r\n"
        f"Date: {date}\r\n{more_fields}\r\n"
    ).encode()
