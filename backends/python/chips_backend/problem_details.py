"""Errors that become answers: RFC 9457 problem details, one shape in every language."""

from typing import Any

import msgspec
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

TITLES = {
    400: "Bad request",
    404: "Not found",
    405: "Method not allowed",
    413: "Payload too large",
    415: "Unsupported media type",
    422: "Unprocessable request",
    431: "Request header fields too large",
    500: "Prediction failed",
    503: "Overloaded",
    504: "Deadline exceeded",
}


class Problem(Exception):
    """An error with an answer. `detail` is for the caller; what it hides goes to the log as the cause."""

    def __init__(self, status: int, code: str, detail: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = headers or {}
        self.stack = ""  # of the model's own error, for the log

    def render(self, request_id: str, *, open_inference: bool) -> bytes:
        """The body. On `/v2/…` it also carries `error`, so that one body serves both specifications."""
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": TITLES.get(self.status, "Error"),
            "status": self.status,
            "code": self.code,
            "detail": self.detail.encode("utf-8", "replace").decode("utf-8"),
            "request_id": request_id,
        }
        if open_inference:
            body["error"] = body["detail"]
        return msgspec.json.encode(body)


def bad_request(error: HttpProcessingError) -> Problem:
    """The problem for what aiohttp's parser refuses."""
    if isinstance(error, LineTooLong):
        return Problem(431, "headers-too-large", "the request line or a header field is too long")
    return Problem(400, "bad-request", "the request is not valid HTTP/1.1")


def malformed_json(detail: str) -> Problem:
    return Problem(400, "malformed-json", detail)


def invalid_instances(problems: list[str]) -> Problem:
    """At most ten problems are named; the rest is counted."""
    shown = problems[:10]
    if len(problems) > len(shown):
        shown.append("and more")
    return Problem(422, "invalid-instances", "; ".join(shown))
