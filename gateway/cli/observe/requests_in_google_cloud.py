"""Read requests from Google Cloud Trace and Cloud Logging.

The spans of one come from Cloud Trace; without them, Cloud Logging has its log line.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gateway.cli.observe.requests_in_cloud_logging import (
    find_log_line,
    open_cloud_logging,
    request_row_of_line,
    spans_of_line,
    tail_log_lines,
    trace_id_of_line,
)
from gateway.cli.support.console import EX_DATAERR, EX_UNAVAILABLE, Failure
from gateway.telemetry.spans_of_request import Span

_TIMEOUT_S = 15.0
_TRACE_ID_LENGTH = 32


def spans_from_cloud(
    project: str, request_or_trace_id: str, *, trace: Any = None, logging: Any = None
) -> list[Span]:
    """The spans of a request in Google Cloud.

    There is at least one, and the first has no parent. `trace` and `logging` are clients for tests.
    """
    with _asking():
        spans = []
        if _may_be_trace(request_or_trace_id):  # an id we made may be a request's, which looks like a trace's
            spans = _spans(project, request_or_trace_id, trace)
        if not spans:
            line = find_log_line(logging or open_cloud_logging(), project, request_or_trace_id)
            if line is None:
                raise Failure(
                    f"Google Cloud project {project} knows no request {request_or_trace_id}",
                    hint="the log has a line for each request that went wrong, and, by default, for each other",
                    code=EX_DATAERR,
                )
            found = trace_id_of_line(line)
            if found and found != request_or_trace_id:
                spans = _spans(project, found, trace)
            spans = spans or spans_of_line(line)  # most traces are not kept
        return spans


def requests_from_cloud(
    project: str, *, model: str, errors: bool, last: int, follow: bool, logging: Any = None
) -> Iterator[dict[str, Any]]:
    """Recorded requests of a project from Cloud Logging.

    They are the log lines of all its gateways, as `chips tail` shows them.
    """
    with _asking():
        client = logging or open_cloud_logging()
        for line in tail_log_lines(client, project, model=model, errors=errors, last=last, follow=follow):
            yield request_row_of_line(line)


@contextmanager
def _asking() -> Iterator[None]:
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except (GoogleAPICallError, GoogleAuthError) as error:
        raise Failure(
            f"Google Cloud cannot be asked: {error}",
            hint="gcloud auth application-default login; the roles are roles/cloudtrace.user and roles/logging.viewer",
            code=EX_UNAVAILABLE,
        ) from None


def _may_be_trace(text: str) -> bool:
    return len(text) == _TRACE_ID_LENGTH and set(text) <= set("0123456789abcdef")


def _spans(project: str, trace_id: str, client: Any) -> list[Span]:
    """None where the trace was not kept."""
    from google.api_core.exceptions import NotFound

    if client is None:
        from google.cloud.trace_v1 import TraceServiceClient

        client = TraceServiceClient()
    try:
        found = client.get_trace(project_id=project, trace_id=trace_id, timeout=_TIMEOUT_S)
    except NotFound:
        return []
    raw = sorted(found.spans, key=lambda span: span.start_time)
    begin = raw[0].start_time if raw else None
    known = {span.span_id for span in raw}
    return [
        Span(
            name=span.name,
            span_id=f"{span.span_id:016x}",
            parent_id=f"{span.parent_span_id:016x}" if span.parent_span_id in known else None,
            kind={1: "server", 2: "client"}.get(int(span.kind), "internal"),  # type: ignore[arg-type]
            start_s=(span.start_time - begin).total_seconds(),
            end_s=(span.end_time - begin).total_seconds(),
            error=span.labels.get("error.type", ""),
            attributes=dict(span.labels),
        )
        for span in raw
    ]
