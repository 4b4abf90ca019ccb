"""Checks of the backend's log.

They check its format, its fields, and that no payload is in it. The kit can see the log of a process that it started itself.
"""

import json
from typing import Any

import msgspec

from gateway.verify.conformance_check_type import (
    JSON,
    CheckContext,
    ContractViolation,
    check,
    require_predictions,
)
from gateway.verify.raw_http import RawRequest

_TRACE, _SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
_SEVERITIES = {"DEFAULT", "DEBUG", "INFO", "NOTICE", "WARNING", "ERROR", "CRITICAL", "ALERT", "EMERGENCY"}
_PATIENCE_S = 10.0


async def _line_of(context: CheckContext, request_id: str) -> dict[str, Any]:
    line = await context.require_process().wait_for_line(request_id, timeout_s=_PATIENCE_S)
    if line is None:
        raise ContractViolation(f"no line on standard output holds the request's id {request_id}")
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError:
        raise ContractViolation(f"a line of the log is not JSON: {line[:300]}") from None
    return found


@check(
    "logs/json-lines", "the log is one JSON object a line on standard output, with severity, message and time"
)
async def json_lines(context: CheckContext) -> None:
    process = context.require_process()
    await context.get("/v2/health/live")
    if not process.lines:
        raise ContractViolation("nothing has been logged on standard output")
    for line in process.lines:
        try:
            entry = json.loads(line)
        except ValueError:
            raise ContractViolation(f"a line of the log is not JSON: {line[:300]}") from None
        missing = [name for name in ("severity", "message", "time") if name not in entry]
        if missing or entry["severity"] not in _SEVERITIES:
            raise ContractViolation(
                f"a line has no {', '.join(missing) or 'severity that Cloud Logging knows'}: {line[:300]}"
            )


@check("logs/request", "a request's line has httpRequest, request_id, model, version, timing and the caller")
async def request(context: CheckContext) -> None:
    context.require_process()
    fields = (*JSON, ("X-Request-Id", "verify-log-1"), ("X-Chips-Caller", "verify-caller"))
    require_predictions(await context.post("/predict", context.require_good_request(), fields))
    entry = await _line_of(context, "verify-log-1")
    missing = [
        name for name in ("httpRequest", "request_id", "model", "version", "timing") if name not in entry
    ]
    if missing:
        raise ContractViolation(f"the line has no {', '.join(missing)}: {entry}")
    http = entry["httpRequest"]
    if not isinstance(http, dict) or (http.get("requestMethod"), http.get("status")) != ("POST", 200):
        raise ContractViolation(f"httpRequest is {http}")
    if (entry["model"], entry["version"]) != (context.model, context.version):
        raise ContractViolation(f"model is {entry['model']!r}, version {entry['version']!r}")
    if "verify-caller" not in json.dumps(entry):
        raise ContractViolation("the line does not say who called")


def _require_trace(entry: dict[str, Any], trace_id: str, span_id: str) -> None:
    trace = str(entry.get("logging.googleapis.com/trace", ""))
    if trace.rpartition("/")[2] != trace_id:
        raise ContractViolation(f"logging.googleapis.com/trace is {trace!r} instead of …{trace_id}")
    if entry.get("logging.googleapis.com/spanId") != span_id:
        raise ContractViolation(
            f"logging.googleapis.com/spanId is {entry.get('logging.googleapis.com/spanId')!r} instead of {span_id!r}"
        )
    if entry.get("logging.googleapis.com/trace_sampled") is not True:
        raise ContractViolation("logging.googleapis.com/trace_sampled is not true")


@check("logs/traceparent", "the ids of traceparent stand in the request's line")
async def traceparent(context: CheckContext) -> None:
    context.require_process()
    fields = (*JSON, ("X-Request-Id", "verify-log-2"), ("traceparent", f"00-{_TRACE}-{_SPAN}-01"))
    await context.post("/predict", context.good or {}, fields)
    _require_trace(await _line_of(context, "verify-log-2"), _TRACE, _SPAN)


@check("logs/cloud-trace", "X-Cloud-Trace-Context is read where traceparent is absent")
async def cloud_trace(context: CheckContext) -> None:
    context.require_process()
    fields = (
        *JSON,
        ("X-Request-Id", "verify-log-3"),
        ("X-Cloud-Trace-Context", f"{_TRACE}/{int(_SPAN, 16)};o=1"),
    )
    await context.post("/predict", context.good or {}, fields)
    _require_trace(await _line_of(context, "verify-log-3"), _TRACE, _SPAN)


@check(
    "logs/no-payload", "nothing of the payload stands in the log, neither of good requests nor of bad ones"
)
async def no_payload(context: CheckContext) -> None:
    process = context.require_process()
    marker = "verify-marker-8c1f"
    fields = (*JSON, ("X-Request-Id", "verify-log-4"))
    for body in (
        msgspec.json.encode({"instances": [{marker: marker}], "parameters": {marker: marker}}),
        msgspec.json.encode({"instances": [[marker]]}),
        b'{"instances": ["' + marker.encode(),
    ):
        await context.send_and_record(RawRequest("POST", "/predict", fields, body))
    await _line_of(context, "verify-log-4")
    for line in (*process.lines, *process.errors):
        if marker in line:
            raise ContractViolation(f"a line holds what the caller sent: {line[:300]}")


CHECKS = (json_lines, request, traceparent, cloud_trace, no_payload)
