"""The recorded requests of the trace store as JSON for the console.

One page lists them, another shows one with its waterfall. They are a sample.
"""

import asyncio
import re
from collections.abc import Mapping, Set
from typing import Any
from urllib.parse import parse_qsl

from gateway.core.errors import BadRequest, PageNotFound
from gateway.telemetry.recorded_request import RecordedRequest
from gateway.telemetry.recorded_request_store import RequestAndTickReader, RequestFilter, StoredRequest
from gateway.telemetry.spans_of_request import spans_of

_KINDS = ("all", "failed", "bad", "slowest")
_SIDES = ("gateway", "backend", "caller")
_STATUS = re.compile(r"[1-5](?:xx|[0-9]{2})")
_PARAMETERS = frozenset(
    {
        *("kind", "model", "version", "status", "side", "caller", "since", "until", "text", "slower_ms"),
        *("limit", "after", "before", "skip"),
    }
)
_MAX_LIMIT = 500
_NO_STORE = "This gateway keeps no requests: its setting trace.store is off."


class RecordedRequests:
    """Answers the console's queries for recorded requests. They are in the trace store."""

    def __init__(self, reader: RequestAndTickReader | None) -> None:
        self._reader = reader

    async def page(self, query: str) -> dict[str, Any]:
        """A page of recorded requests. `next` holds the parameters of the next page; None: this is the last."""
        asked = parse_query(query, _PARAMETERS)
        wanted = _filter(asked)
        if self._reader is None:
            return {"requests": [], "found": 0, "next": None, "note": _NO_STORE}
        limit = max(1, min(int(number_parameter(asked, "limit", 100)), _MAX_LIMIT))
        return await asyncio.to_thread(self._page, self._reader, asked, wanted, limit)

    def _page(
        self, reader: RequestAndTickReader, asked: Mapping[str, str], wanted: RequestFilter, limit: int
    ) -> dict[str, Any]:
        more: dict[str, int] | None = None
        if "after" in asked:
            kept = reader.stored_after(int(number_parameter(asked, "after", 0)), limit=limit)
        elif asked.get("kind") == "slowest":
            skip = int(number_parameter(asked, "skip", 0))
            kept = reader.slowest(wanted, skip=skip, limit=limit + 1)
            more = {"skip": skip + limit}
        else:
            kept = reader.newest(wanted, before=int(number_parameter(asked, "before", 0)), limit=limit + 1)
            more = {"before": kept[limit - 1].number} if len(kept) > limit else None
        return {
            "requests": [request_row(one) for one in kept[:limit]],
            "found": reader.count(wanted),
            "next": more if len(kept) > limit else None,
        }

    async def with_id(self, request_or_trace_id: str) -> dict[str, Any]:
        if self._reader is None:
            raise PageNotFound(_NO_STORE)
        found = await asyncio.to_thread(self._reader.find, request_or_trace_id)
        if not found:
            raise PageNotFound(
                "No request with this id is kept here: it may be too old, or its trace was not kept."
            )
        return requests_with_waterfalls(found)


def requests_with_waterfalls(found: list[RecordedRequest]) -> dict[str, Any]:
    """The requests, each with its waterfall of spans. They share an id, and the newest comes first."""
    return {"requests": [{**_fields(request), "spans": spans_of(request)} for request in found]}


def _fields(request: RecordedRequest) -> dict[str, Any]:
    return {name: getattr(request, name) for name in request.__struct_fields__}


def request_row(kept: StoredRequest) -> dict[str, Any]:
    """A recorded request as one row of a list. The row is JSON values."""
    number, request = kept
    return {
        "number": number,
        "at": round(request.at, 3),
        "request_id": request.request_id,
        "trace_id": request.trace_id,
        "method": request.method,
        "path": request.path,
        "status": request.status,
        "model": request.model,
        "version": request.version,
        "caller": request.caller,
        "caller_label": request.caller_label,
        "duration_ms": round(request.duration_s * 1000, 3),
        "backend_ms": round(request.backend_s * 1000, 3),
        "attempts": len(request.attempts),
        "error": request.error,
        "side": request.side,
        "detail": request.detail,
        "kept": request.kept,
    }


def parse_query(query: str, known: Set[str]) -> Mapping[str, str]:
    """Parse a query string, and refuse unknown parameters.

    Raises BadRequest for one that is not `known`: ignoring it would return unfiltered results.
    """
    asked = dict(parse_qsl(query.removeprefix("?"), keep_blank_values=True))
    unknown = sorted(set(asked) - known)
    if unknown:
        raise BadRequest(
            f'There is no parameter "{unknown[0][:40]}" here; there are {", ".join(sorted(known))}.'
        )
    return asked


def _filter(asked: Mapping[str, str]) -> RequestFilter:
    kind, status, side = asked.get("kind", "all"), asked.get("status", ""), asked.get("side", "")
    if kind not in _KINDS:
        raise BadRequest(f"kind must be one of {', '.join(_KINDS)}.")
    if status and not _STATUS.fullmatch(status):
        raise BadRequest("status must be a number such as 404, or a class such as 4xx.")
    if side and side not in _SIDES:
        raise BadRequest(f"side must be one of {', '.join(_SIDES)}.")
    return RequestFilter(
        kind="all" if kind == "slowest" else kind,
        model=asked.get("model") or None,
        version=asked.get("version") or None,
        status=status,
        side=side,
        caller=asked.get("caller", ""),
        since=number_parameter(asked, "since", 0),
        until=number_parameter(asked, "until", 0),
        text=asked.get("text", ""),
        slower_s=number_parameter(asked, "slower_ms", 0) / 1000,
    )


def number_parameter(asked: Mapping[str, str], name: str, default: float) -> float:
    try:
        number = float(asked.get(name, default))
    except ValueError:
        number = -1
    if not 0 <= number < 1e15:
        raise BadRequest(f"{name} must be a number, not below 0.")
    return number
