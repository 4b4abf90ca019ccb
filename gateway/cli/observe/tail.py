"""`chips tail`: follow the gateway's requests live. It shows those that are recorded, as they are kept."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.observe.why import request_line
from gateway.cli.support import console
from gateway.cli.support.operator_pages_client import GatewayOption, KeyOption, operator_pages_client
from gateway.control.recorded_requests import request_row
from gateway.settings import load_settings
from gateway.telemetry.recorded_request_store import RequestAndTickReader, RequestFilter

_POLL_S = 0.3


def tail(
    model: Annotated[str, typer.Option("--model", help="Only requests to this model.")] = "",
    errors: Annotated[bool, typer.Option("--errors", help="Only requests that failed.")] = False,
    last: Annotated[
        int, typer.Option("--last", min=0, help="Begin with this many that were there before.")
    ] = 10,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Go on until Ctrl-C, or end after those of --last.")
    ] = True,
    gateway: GatewayOption = "",
    key: KeyOption = "",
    store: Annotated[
        str, typer.Option("--store", help="The store's file; otherwise the setting trace.store.")
    ] = "",
    project: Annotated[
        str, typer.Option("--project", help="All gateways of this Google Cloud project, from Cloud Logging.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document a line.")] = False,
) -> None:
    """Show requests as they happen.

    It shows every one that failed (5xx), was slow, or whose caller left, and some each second of the others that a model
    was found for. They come from the store on this machine; from --gateway (CHIPS_GATEWAY), wherever that runs; or, all
    that have a line in the log, from Google Cloud's --project.

    Examples:

    `chips tail --model wine --errors`

    `chips tail --gateway https://models.example.com --json`

    `chips tail --project my-project --errors --last 50`
    """

    def show(request: dict[str, Any]) -> None:
        if as_json:
            console.print_json_line(request)
        else:
            console.out.print(
                request_line(request, width=console.out.width if console.out.is_terminal else None)
            )

    if project:
        from gateway.cli.observe.requests_in_google_cloud import requests_from_cloud

        for request in requests_from_cloud(project, model=model, errors=errors, last=last, follow=follow):
            show(request)
        return

    wanted = RequestFilter(model=model or None, kind="failed" if errors else "all")

    async def work() -> None:
        if gateway:
            requests = _from_gateway(gateway, key, wanted, last=last, follow=follow)
        else:
            path = store or load_settings().trace.store
            if path == "off":
                raise console.Failure(
                    "there is no store here: the setting trace.store is off",
                    hint="name a running gateway with --gateway",
                    code=console.EX_DATAERR,
                )
            requests = _from_store(RequestAndTickReader(Path(path)), wanted, last=last, follow=follow)
        async for request in requests:
            if (model and request["model"] != model) or (errors and request["status"] < 400):
                continue
            show(request)

    console.run_async(work())


async def _from_store(
    reader: RequestAndTickReader, wanted: RequestFilter, *, last: int, follow: bool
) -> AsyncIterator[dict[str, Any]]:
    number = reader.last_number()
    for kept in reversed(reader.newest(wanted, limit=last) if last else []):
        yield request_row(kept)
    while follow:
        kept_since = await asyncio.to_thread(reader.stored_after, number)
        for kept in kept_since:
            number = kept.number
            yield request_row(kept)
        await asyncio.sleep(_POLL_S)


async def _from_gateway(
    address: str, key: str, wanted: RequestFilter, *, last: int, follow: bool
) -> AsyncIterator[dict[str, Any]]:
    async with operator_pages_client(address, key) as at:
        if last:
            model = {"model": wanted.model} if wanted.model else {}
            before = await at.get_json("/-/requests", "requests", limit=str(last), kind=wanted.kind, **model)
            for request in reversed(before["requests"]):
                yield request
        if follow:
            async for name, content in at.server_sent_events("/-/events?only=requests"):
                if name == "requests":
                    for request in content:
                        yield request
