"""`chips why`: explain what happened to one request.

It shows the stages and times as a waterfall, from the trace store, a gateway, or Google Cloud.
"""

import re
import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
import typer
from rich.text import Text

from gateway.cli.support import console
from gateway.cli.support.operator_pages_client import GatewayOption, KeyOption, operator_pages_client
from gateway.core.escape_unprintable import printable
from gateway.cost.registry_price_tables import read_default_prices
from gateway.settings import load_settings
from gateway.telemetry.recorded_request import RecordedRequest
from gateway.telemetry.recorded_request_store import RequestAndTickReader, RequestFilter
from gateway.telemetry.spans_of_request import Span, spans_of

_BAR = 44
_BACKEND_ERROR = re.compile(r'\berror;desc="([a-z0-9-]{1,64})"')
_STYLES = {"server": "blue", "client": "cyan", "internal": "white"}
_KEPT = {
    "asked": "an operator asked for its trace",
    "caller": "the caller asked for its trace",
    "sampled": "its trace was drawn",
    "failed": "it failed",
    "slow": "it was slower than 99 % of the model's last minute",
    "left": "the caller left first",
    "recent": "there was room in the store",
}


class FoundRequest(msgspec.Struct, frozen=True):
    """A request and where it was found."""

    request: RecordedRequest
    source: str


def why(
    request_or_trace_id: Annotated[
        str, typer.Argument(help="X-Request-Id or X-Trace-Id of an answer.", metavar="ID")
    ] = "",
    last: Annotated[bool, typer.Option("--last", help="The newest request that is kept.")] = False,
    errors: Annotated[
        bool, typer.Option("--errors", help="The newest that failed (status 4xx or 5xx).")
    ] = False,
    slowest: Annotated[
        str,
        typer.Option(
            "--slowest", metavar="MODEL[@VERSION]", help="The slowest request of this model that is kept."
        ),
    ] = "",
    gateway: GatewayOption = "",
    key: KeyOption = "",
    store: Annotated[
        str, typer.Option("--store", help="The store's file; otherwise the setting trace.store.")
    ] = "",
    project: Annotated[
        str, typer.Option("--project", help="Look in Cloud Trace and Cloud Logging of this project.")
    ] = "",
    as_json: console.JsonOption = False,
) -> None:
    """Explain what happened to one request.

    It shows who sent it, what answered, and where the time went. It is looked for in the store on this machine, then at
    --gateway (CHIPS_GATEWAY), then in Google Cloud's --project: in Cloud Trace, or, where its trace was not kept, in its
    line in Cloud Logging.

    Examples:

    `chips why 4bf92f3577b34da6a3ce929d0e0e4736`

    `chips why --last`

    `chips why --errors`

    `chips why --slowest wine`

    `chips why --slowest wine@3`

    `chips why order-66 --gateway https://models.example.com`
    """
    if bool(request_or_trace_id) + (last or errors) + bool(slowest) != 1:
        raise console.Failure(
            "say which request: its id (X-Request-Id of the answer), --last, --errors, or --slowest MODEL",
            hint="`chips tail --no-follow --last 20` lists some",
            code=console.EX_USAGE,
        )
    if project:
        from gateway.cli.observe.requests_in_google_cloud import spans_from_cloud

        if not request_or_trace_id:
            raise console.Failure(
                "--last, --errors and --slowest look at a gateway or at the store of this machine, not at Google Cloud",
                hint="`chips tail --project PROJECT` lists requests with their ids",
                code=console.EX_USAGE,
            )
        show_spans(spans_from_cloud(project, request_or_trace_id), as_json=as_json)
        return
    if not request_or_trace_id:
        request_or_trace_id = console.run_async(
            _choose(slowest or None, errors=errors, gateway=gateway, key=key, store=store)
        )
    stories, looked = console.run_async(_find(request_or_trace_id, gateway=gateway, key=key, store=store))
    if not stories:
        raise console.Failure(
            f"no request {request_or_trace_id} is kept in {' or '.join(looked)}",
            hint="bad requests are kept, good ones as far as they were sampled; name a running gateway with --gateway, or "
            "a Google Cloud project with --project",
            code=console.EX_DATAERR,
        )
    if as_json:
        console.print_json(
            [
                msgspec.to_builtins({"source": s.source, "request": s.request, "spans": spans_of(s.request)})
                for s in stories
            ]
        )
        return
    for number, story in enumerate(stories):
        if number:
            console.out.print()
        _show(story)


_ASSIGNED = {"sticky": "the caller's sticky share", "pin": "the caller"}


async def _choose(slowest_of: str | None, *, errors: bool, gateway: str, key: str, store: str) -> str:
    """The id of the newest kept request, or that failed, or of the slowest one of a model. Raises Failure where there is none."""
    kind = "failed" if errors else "all"
    model, _, version = (slowest_of or "").partition("@")
    if gateway:
        query = {"kind": kind, "limit": 1}
        if slowest_of:
            query = {"kind": "slowest", "limit": 1, "model": model} | (
                {"version": version} if version else {}
            )
        async with operator_pages_client(gateway, key) as at:
            document = await at.get_json(f"/-/requests?{urlencode(query)}", "requests")
        found = [str(row["request_id"]) for row in document["requests"]]
        place = gateway
    else:
        place = store or load_settings().trace.store
        reader = RequestAndTickReader(Path(place))
        kept = (
            reader.slowest(RequestFilter(model=model, version=version or None), limit=1)
            if slowest_of
            else reader.newest(RequestFilter(kind=kind), limit=1)
        )
        found = [one.request.request_id for one in kept]
    if not found:
        what = (
            f"no request of {slowest_of}"
            if slowest_of
            else "no request that failed"
            if errors
            else "no request"
        )
        raise console.Failure(
            f"{what} is kept in {place}",
            hint="send one, or name a running gateway with --gateway",
            code=console.EX_DATAERR,
        )
    return found[0]


async def _find(
    request_or_trace_id: str, *, gateway: str, key: str, store: str
) -> tuple[list[FoundRequest], list[str]]:
    looked = []
    path = store or ("" if gateway else load_settings().trace.store)
    if path and path != "off":
        looked.append(path)
        found = RequestAndTickReader(Path(path)).find(request_or_trace_id)
        if found:
            return [FoundRequest(request, path) for request in found], looked
    if gateway:
        looked.append(gateway)
        async with operator_pages_client(gateway, key) as at:
            document = await at.get_json_or_none(f"/-/requests/{request_or_trace_id}")
        if document is not None:
            return [
                FoundRequest(msgspec.convert(request, RecordedRequest), gateway)
                for request in document["requests"]
            ], looked
    return [], looked or ["no store (the setting trace.store is off)"]


def _show(story: FoundRequest) -> None:
    s = story.request
    console.out.print(
        Text.assemble(
            (printable(f"{s.method} {s.path}"), "bold"),
            "  ",
            (str(s.status), _style(s.status)),
            f"  {_ms(s.duration_s)}  ",
            (time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(s.at)), "dim"),
        )
    )
    if s.error:
        console.say("error", _error_text(s), style="bold red")
    if s.cause:
        console.say("cause", s.cause)
    console.say(
        "caller",
        f"{s.caller or 'nobody known'}{f' ({s.caller_label})' if s.caller_label else ''}, from {s.address}",
    )
    if s.model:
        chosen = f", chosen by {_ASSIGNED[s.assigned]}" if s.assigned in _ASSIGNED else ""
        console.say(
            "answered",
            f"{s.model}@{s.version} at {s.url}{chosen}, routed by registry generation {s.generation}",
        )
        if s.artifact_digest:
            console.say("artifact", s.artifact_digest)
    own_s = max(s.duration_s - s.backend_s - s.queued_s - s.rate_limit_s - s.buffering_s, 0.0)
    awaited = f"{_ms(s.buffering_s)} for the caller to send the body, " if s.buffering_s else ""
    limits = f"{_ms(s.rate_limit_s)} on the shared limits, " if s.rate_limit_s else ""
    console.say(
        "time",
        f"{awaited}{_ms(s.backend_s)} at the backend, {_ms(s.queued_s)} in the queue, {limits}{_ms(own_s)} our own",
    )
    if len(s.attempts) > 1:
        tries = "; ".join(a.failure or f"status {a.status}" for a in s.attempts)
        console.say("attempts", f"{len(s.attempts)}: {tries}")
    console.say("sizes", f"{s.bytes_in} bytes in, {s.bytes_out} bytes out")
    if s.attempts:
        console.say("cost", _cost(s.backend_s))
    console.say("kept", f"because {_KEPT.get(s.kept, s.kept)}; by {s.gateway}")
    console.say("trace", f"{s.trace_id}  request {s.request_id}")
    console.out.print()
    draw_waterfall(spans_of(s))


def _error_text(s: RecordedRequest) -> str:
    """What went wrong. Of an error that the backend answered, its code: the rest of that answer may quote what was sent."""
    code = _BACKEND_ERROR.search(s.server_timing)
    if s.detail or code is None:
        return f"{s.error}, for the {s.side} to fix. {s.detail}"
    return (
        f"{code[1]}, answered by the backend, for the {s.side} to fix. The detail is in the answer alone, since it may quote "
        f"what was sent; the backend's log has the line of request {s.request_id} (chips logs {s.model})"
    )


def draw_waterfall(spans: list[Span]) -> None:
    """Print the waterfall: a line for each span."""
    if not spans:
        return
    begin = min(span.start_s for span in spans)
    total = max(max(span.end_s for span in spans) - begin, 1e-9)
    depths: dict[str, int] = {}
    for span in spans:
        depth = depths.get(span.parent_id or "", -1) + 1
        depths[span.span_id] = depth
        start = min(int((span.start_s - begin) / total * _BAR), _BAR - 1)
        width = max(round((span.end_s - span.start_s) / total * _BAR), 1)
        name = ("  " * depth + span.name)[:30]
        line = Text(printable(f"{name:<31}"))
        line.append(" " * start)
        line.append("█" * min(width, _BAR - start), style="red" if span.error else _STYLES[span.kind])
        line.append(" " * max(_BAR - start - width, 0))
        line.append(f" {_ms(span.end_s - span.start_s):>9}")
        if span.error:
            line.append(printable(f"  {span.error}"), style="red")
        console.out.print(line)


def _cost(backend_s: float) -> str:
    """As `chips cost` has it for a backend of undeclared size: the request's sizes are not kept with it."""
    prices = read_default_prices()
    run = prices.cloud_run
    amount = 2 * run.per_million_requests / 1e6 + backend_s * (run.cpu_active + run.memory_gib_active)
    return (
        f"at most {amount:.8f} {prices.currency} for one processor and 1 GiB on Cloud Run, nothing else on the instance, at the list "
        f"prices of {prices.date}"
    )


def show_spans(spans: list[Span], *, as_json: bool) -> None:
    """Print a trace as a waterfall, or as JSON."""
    if as_json:
        console.print_json(msgspec.to_builtins(spans))
        return
    for name, value in spans[0].attributes.items():
        console.say(name.removeprefix("chips.")[:10], str(value), style="dim")
    draw_waterfall(spans)


def _ms(seconds: float) -> str:
    ms = seconds * 1000
    return f"{ms / 1000:.2f} s" if ms >= 1000 else f"{ms:.1f} ms" if ms >= 1 else f"{ms:.3f} ms"


def request_line(request: dict[str, Any], *, width: int | None = None) -> Text:
    """One recorded request as a line for the terminal.

    Where `width` columns do not suffice, caller and note are shortened first. The request id stays whole, because
    `chips why` takes it.
    """
    status = request["status"]
    served = printable(
        f"{request['model']}@{request['version']}" if request["model"] else request["path"][:40]
    )
    note = request["error"] or ("" if request["kept"] in {"recent", "sampled"} else request["kept"])
    start = time.strftime("%H:%M:%S ", time.localtime(request["at"]))
    method = printable(f" {request['method']:<4} ")
    took = f" {_ms(request['duration_ms'] / 1000):>9} "
    end = f" {request['request_id']}"
    more = [f" {request['caller'] or '–':<14} ", f"{note} "]
    room = 24
    if width is not None:
        room = width - len(start) - len(str(status)) - len(method) - len(took) - len(end)
        while more and room - sum(map(len, more)) < min(24, len(served)):
            more.pop()
        room = max(8, min(24, room - sum(map(len, more))))
        served = served if len(served) <= room else f"{served[: room - 1]}…"
    return Text.assemble(
        start,
        (str(status), _style(status)),
        f"{method}{served:<{room}}{took}",
        *more[:1],
        *((text, _style(status)) for text in more[1:]),
        (end, "dim"),
    )


def _style(status: int) -> str:
    return "red" if status >= 500 else "yellow" if status >= 400 else "green"
