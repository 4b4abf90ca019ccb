"""The response to a request that never reaches the pipeline. It holds problem details, and the connection closes after it."""

from gateway.core.direct_response import field_lines
from gateway.core.errors import GatewayError
from gateway.core.problem_details import render_problem


def render_refusal(error: GatewayError, request_id: str, date_line: str) -> bytes:
    """Render the error response as bytes.

    They are its head and body. `date_line` is a whole field line with its end, or empty.
    """
    answer = render_problem(error, request_id)
    return (
        b"HTTP/1.1 %d %b\r\n%bX-Request-Id: %b\r\nServer: chips\r\n%bContent-Length: %d\r\nConnection: close\r\n\r\n%b"
        % (
            answer.status,
            error.title.encode("ascii"),
            field_lines(answer.headers),
            request_id.encode("ascii"),
            date_line.encode("ascii"),
            len(answer.body),
            answer.body,
        )
    )
