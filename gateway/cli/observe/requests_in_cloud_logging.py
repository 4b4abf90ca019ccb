"""Find a request in the gateways' lines in Cloud Logging, and tail the last and new ones."""

import threading
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from gateway.cli.support.console import note
from gateway.telemetry.spans_of_request import Span

_TIMEOUT_S = 15.0
# The gateways' own lines: backends write httpRequest and request_id, too, but know of no generation.
_OURS = "jsonPayload.generation>=0"

_PARTS = ("limits", "queue", "backend", "receive")  # of timing_us, in the order in which they happen

Line = dict[str, Any]  # a LogEntry as Cloud Logging's JSON has it


def open_cloud_logging() -> Any:
    """A client for Cloud Logging. It uses the default credentials."""
    from google.cloud.logging_v2.services.logging_service_v2 import LoggingServiceV2Client

    return LoggingServiceV2Client()


def find_log_line(client: Any, project: str, request_or_trace_id: str) -> Line | None:
    """Find the log line of a request by its id or its trace. Returns the newest one, or None."""
    either = (
        f"jsonPayload.request_id={_quoted(request_or_trace_id)}"
        f" OR trace={_quoted(f'projects/{project}/traces/{request_or_trace_id}')}"
    )
    return next(_newest(client, project, f"{_OURS} AND ({either})", 1), None)


def tail_log_lines(
    client: Any, project: str, *, model: str, errors: bool, last: int, follow: bool
) -> Iterator[Line]:
    """Yield the last log lines of requests. Yields `last` lines, oldest first; with `follow`, also new ones as they come."""
    wanted = _OURS
    if model:
        wanted += f" AND jsonPayload.model={_quoted(model)}"
    if errors:
        wanted += " AND httpRequest.status>=400"
    if last:
        yield from reversed(list(_newest(client, project, wanted, last)))
    while follow:  # Google ends a session after an hour, at the latest
        yield from _coming(client, project, wanted)


def _newest(client: Any, project: str, wanted: str, limit: int) -> Iterator[Line]:
    from google.cloud.logging_v2.types import ListLogEntriesRequest

    found = client.list_log_entries(
        ListLogEntriesRequest(
            resource_names=[f"projects/{project}"],
            filter=wanted,
            order_by="timestamp desc",
            page_size=min(limit, 1000),
        ),
        timeout=_TIMEOUT_S,
    )
    for _, entry in zip(range(limit), found, strict=False):
        yield _as_line(entry)


def _coming(client: Any, project: str, wanted: str) -> Iterator[Line]:
    from google.api_core.exceptions import OutOfRange
    from google.cloud.logging_v2.types import TailLogEntriesRequest

    over = threading.Event()

    def requests() -> Iterator[Any]:
        yield TailLogEntriesRequest(resource_names=[f"projects/{project}"], filter=wanted)
        over.wait()  # to end the requests would be to end the session

    try:
        for response in client.tail_log_entries(requests=requests()):
            for entry in response.entries:
                yield _as_line(entry)
            for suppressed in response.suppression_info:
                note(
                    f"{suppressed.suppressed_count} lines are not shown: {suppressed.reason.name.lower()};"
                    " --model or --errors asks for fewer"
                )
    except OutOfRange:
        pass  # the hour is over
    finally:
        over.set()


def _as_line(entry: Any) -> Line:
    from google.protobuf.json_format import MessageToDict

    line: Line = MessageToDict(type(entry).pb(entry))
    return line


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def trace_id_of_line(line: Line) -> str:
    """The trace id of a log line. An id has 32 hexadecimal digits. Empty where the line has none."""
    return str(line.get("trace", "")).rpartition("/")[2]


def request_row_of_line(line: Line) -> dict[str, Any]:
    """A log line as a row of recorded requests.

    The row is that of `gateway.control.recorded_requests.request_row`, as far as the line has its fields.
    """
    asked, said = line.get("httpRequest", {}), line.get("jsonPayload", {})
    timing = said.get("timing_us", {})
    return {
        "at": _seconds(line),
        "request_id": said.get("request_id", ""),
        "trace_id": trace_id_of_line(line),
        "method": asked.get("requestMethod", ""),
        "path": asked.get("requestUrl", ""),
        "status": int(asked.get("status", 0)),
        "model": said.get("model", ""),
        "version": said.get("version", ""),
        "caller": said.get("caller", ""),
        "duration_ms": round(_latency_s(asked) * 1000, 3),
        "backend_ms": (timing.get("backend", 0) + timing.get("receive", 0)) / 1000,
        "attempts": int(timing.get("attempts", 1 if "backend" in timing else 0)),
        "error": said.get("error", ""),
        "detail": said.get("detail", ""),
        "kept": "",
    }


def spans_of_line(line: Line) -> list[Span]:
    """Make the spans of a request from its log line.

    They stand in for a trace that was not kept. Durations are exact, starts are estimated.
    """
    asked, said = line.get("httpRequest", {}), line.get("jsonPayload", {})
    timing = {name: us / 1e6 for name, us in said.get("timing_us", {}).items()}
    took_s = _latency_s(asked)
    span_id = str(line.get("spanId", "")) or f"{1:016x}"
    told = {
        "status": int(asked.get("status", 0)),
        "bytes in": asked.get("requestSize", ""),
        "bytes out": asked.get("responseSize", ""),
        "address": asked.get("remoteIp", ""),
        "trace": trace_id_of_line(line),
        **{
            name: said[name]
            for name in (
                *("request_id", "model", "version", "caller", "error", "detail", "cause"),
                "generation",
            )
            if name in said
        },
    }
    root = Span(
        name=f"{asked.get('requestMethod', '')} {asked.get('requestUrl', '')}",
        span_id=span_id,
        kind="server",
        start_s=0.0,
        end_s=took_s,
        error=str(said.get("error", "")),
        attributes={
            name: value if isinstance(value, int | float) else str(value) for name, value in told.items()
        },
    )
    spans = [root]
    start_s = max(took_s - sum(timing.get(name, 0.0) for name in _PARTS), 0.0)
    for number, name in enumerate(_PARTS, 1):
        part_s = timing.get(name, 0.0)
        if part_s:
            end_s = min(start_s + part_s, took_s)
            spans.append(
                Span(
                    name=name,
                    span_id=f"{span_id}-{number}",
                    parent_id=span_id,
                    kind="client" if name == "backend" else "internal",
                    start_s=start_s,
                    end_s=end_s,
                    attributes={"chips.start_estimated": True},
                )
            )
            start_s = end_s
    return spans


def _seconds(line: Line) -> float:
    try:
        return datetime.fromisoformat(str(line.get("timestamp", ""))).timestamp()
    except ValueError:
        return 0.0


def _latency_s(asked: Line) -> float:
    try:
        return float(str(asked.get("latency", "0s")).removesuffix("s"))
    except ValueError:
        return 0.0
