"""The recorded (sampled) requests of the trace store as JSON: the list, and one with its waterfall."""

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from gateway.core.errors import BadRequest, NotFound
from gateway.telemetry.request_summary import RequestSummary
from gateway.telemetry.spans import spans_of
from gateway.telemetry.trace_store import StoredRequest, TraceStoreReader

_KINDS = ("all", "failed", "bad", "slowest")
_MAX_LIMIT = 500
_NO_STORE = "This gateway keeps no requests: its setting trace.store is off."


class RecordedRequests:
    """Answers the console's queries for recorded requests from the trace store."""

    def __init__(self, reader: TraceStoreReader | None) -> None:
        self._reader = reader

    async def listed(self, query: str) -> dict[str, Any]:
        if self._reader is None:
            return {"requests": [], "note": _NO_STORE}
        asked = parse_query(query, {"model", "kind", "limit", "slower_ms", "after"})
        kind, model = asked.get("kind", "all"), asked.get("model") or None
        if kind not in _KINDS:
            raise BadRequest(f"kind must be one of {', '.join(_KINDS)}.")
        limit = min(int(_number(asked, "limit", 100)), _MAX_LIMIT)
        if "after" in asked:
            number = int(_number(asked, "after", 0))
            kept = await asyncio.to_thread(self._reader.after, number, limit=limit)
        elif kind == "slowest":
            kept = await asyncio.to_thread(self._reader.slowest, model=model, limit=limit)
        else:
            slower_s = _number(asked, "slower_ms", 0) / 1000
            kept = await asyncio.to_thread(
                self._reader.newest, model=model, kind=kind, slower_s=slower_s, limit=limit
            )
        return {"requests": [request_row(one) for one in kept]}

    async def one(self, request_or_trace_id: str) -> dict[str, Any]:
        if self._reader is None:
            raise NotFound(_NO_STORE)
        found = await asyncio.to_thread(self._reader.find, request_or_trace_id)
        if not found:
            raise NotFound(
                "No request with this id is kept here: it may be too old, or its trace was not kept."
            )
        return document(found)


def document(found: list[RequestSummary]) -> dict[str, Any]:
    """Requests that share an id, each with its waterfall, the newest first."""
    return {"requests": [{**_fields(summary), "spans": spans_of(summary)} for summary in found]}


def _fields(summary: RequestSummary) -> dict[str, Any]:
    return {name: getattr(summary, name) for name in summary.__struct_fields__}


def request_row(kept: StoredRequest) -> dict[str, Any]:
    """A recorded request as one row of a list, as JSON values."""
    number, summary = kept
    return {
        "number": number,
        "at": round(summary.at, 3),
        "request_id": summary.request_id,
        "trace_id": summary.trace_id,
        "method": summary.method,
        "path": summary.path,
        "status": summary.status,
        "model": summary.model,
        "version": summary.version,
        "caller": summary.caller,
        "duration_ms": round(summary.duration_s * 1000, 3),
        "backend_ms": round(summary.backend_s * 1000, 3),
        "attempts": len(summary.attempts),
        "error": summary.error,
        "side": summary.side,
        "detail": summary.detail,
        "kept": summary.kept,
    }


def parse_query(query: str, known: set[str]) -> Mapping[str, str]:
    """The query's parameters; an unknown one is an error, for it would be a filter that filters nothing."""
    asked = dict(parse_qsl(query.removeprefix("?"), keep_blank_values=True))
    unknown = sorted(set(asked) - known)
    if unknown:
        raise BadRequest(
            f'There is no parameter "{unknown[0][:40]}" here; there are {", ".join(sorted(known))}.'
        )
    return asked


def _number(asked: Mapping[str, str], name: str, default: float) -> float:
    try:
        number = float(asked.get(name, default))
    except ValueError:
        number = -1
    if not 0 <= number < 1e15:
        raise BadRequest(f"{name} must be a number, not below 0.")
    return number
