"""The response to a request that never reaches the pipeline: problem details, after which the connection closes."""

from gateway.core.errors import GatewayError
from gateway.core.problem_details import render_problem


def render_refusal(error: GatewayError, request_id: str, date_line: str) -> bytes:
    """Head and body of the response for `error`. `date_line` is a whole field line with its end, or empty."""
    answer = render_problem(error, request_id)
    fields = b"".join([b"%b: %b\r\n" % field for field in answer.headers])
    return (
        b"HTTP/1.1 %d %b\r\n%bX-Request-Id: %b\r\nServer: chips\r\n%bContent-Length: %d\r\nConnection: close\r\n\r\n%b"
        % (
            answer.status,
            error.title.encode("ascii"),
            fields,
            request_id.encode("ascii"),
            date_line.encode("ascii"),
            len(answer.body),
            answer.body,
        )
    )
