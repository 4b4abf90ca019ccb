"""A request as Google Cloud remembers it: its spans from Cloud Trace, else what Cloud Logging says about it."""

from typing import Any

from gateway.cli.screen import EX_DATAERR, EX_UNAVAILABLE, Failure
from gateway.telemetry.spans import Span

_TIMEOUT_S = 15.0
_TRACE_ID_LENGTH = 32


def spans_from_cloud(
    project: str, request_or_trace_id: str, *, trace: Any = None, logging: Any = None
) -> list[Span]:
    """Spans, the first without a parent; at least one. `trace` and `logging` are clients, made here where none is given."""
    from google.api_core.exceptions import GoogleAPICallError, NotFound
    from google.auth.exceptions import GoogleAuthError

    try:
        trace_id = request_or_trace_id
        if len(trace_id) != _TRACE_ID_LENGTH or not set(trace_id) <= set("0123456789abcdef"):
            trace_id = _trace_of(project, request_or_trace_id, logging)
        try:
            return _spans(project, trace_id, trace)
        except NotFound:
            # An id we made may be a request's, which looks like a trace's.
            return _spans(project, _trace_of(project, request_or_trace_id, logging), trace)
    except NotFound:
        raise _nothing(project, request_or_trace_id) from None
    except (GoogleAPICallError, GoogleAuthError) as error:
        raise Failure(
            f"Google Cloud cannot be asked: {error}",
            hint="gcloud auth application-default login; the roles are roles/cloudtrace.user and roles/logging.viewer",
            code=EX_UNAVAILABLE,
        ) from None


def _spans(project: str, trace_id: str, client: Any) -> list[Span]:
    if client is None:
        from google.cloud.trace_v1 import TraceServiceClient

        client = TraceServiceClient()
    found = client.get_trace(project_id=project, trace_id=trace_id, timeout=_TIMEOUT_S)
    raw = sorted(found.spans, key=lambda span: span.start_time)
    if not raw:
        raise _nothing(project, trace_id)
    begin = raw[0].start_time
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


def _trace_of(project: str, request_id: str, client: Any) -> str:
    """The trace that the log line of a request belongs to."""
    if client is None:
        from google.cloud.logging import Client

        client = Client(project=project)
    quoted = request_id.replace("\\", "\\\\").replace('"', '\\"')
    entries = client.list_entries(filter_=f'jsonPayload.request_id="{quoted}"', max_results=1)
    for entry in entries:
        if entry.trace:
            return str(entry.trace).rpartition("/")[2]
    raise _nothing(project, request_id)


def _nothing(project: str, request_or_trace_id: str) -> Failure:
    return Failure(
        f"Google Cloud project {project} knows no request {request_or_trace_id}",
        hint="good requests are sampled; the log has a line for each, by default",
        code=EX_DATAERR,
    )
