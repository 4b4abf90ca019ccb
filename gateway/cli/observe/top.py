"""`chips top`: show each model's traffic, live. It shows the request rate, failures, latency and requests in flight."""

from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gateway.cli.support import console
from gateway.cli.support.operator_pages_client import GatewayOption, KeyOption, operator_pages_client
from gateway.core.escape_unprintable import printable

_ORDERS = {"rps": "rps", "errors": "failed_share", "p50": "p50_ms", "p99": "p99_ms", "in-flight": "in_flight"}


def top(
    gateway: GatewayOption = "http://127.0.0.1:8080",
    key: KeyOption = "",
    sort: Annotated[str, typer.Option("--sort", help="By name, rps, errors, p50, p99 or in-flight.")] = "rps",
    rows: Annotated[int, typer.Option("--rows", min=1, help="How many models are shown.")] = 30,
    once: Annotated[bool, typer.Option("--once", help="Show it once and end.")] = False,
    as_json: console.JsonOption = False,
) -> None:
    """Show each model's traffic live, until Ctrl-C.

    It shows requests a second, failures, latency and requests in flight.

    Examples:

    `chips top`

    `chips top --sort p99 --gateway https://models.example.com`

    `chips top --json`
    """
    if sort != "name" and sort not in _ORDERS:
        raise console.Failure(
            f"there is no order {sort!r}", hint=f"name, {', '.join(_ORDERS)}", code=console.EX_USAGE
        )

    async def work() -> None:
        async with operator_pages_client(gateway, key) as at:
            if once or as_json:
                board = await at.get_json("/-/models", "models", window="10s")
                if as_json:
                    console.print_json(board)
                else:
                    console.out.print(_picture(board, sort, rows))
                return
            with Live(console=console.out, auto_refresh=False, screen=console.out.is_terminal) as live:
                async for name, content in at.server_sent_events("/-/events?window=10s"):
                    if name == "board":
                        live.update(_picture(content, sort, rows), refresh=True)

    console.run_async(work())


def _picture(board: dict[str, Any], sort: str, rows: int) -> Group:
    gateway, registry = board["gateway"], board["registry"]
    head = Text.assemble(
        (f"{gateway['rps']:.1f}", "bold"),
        " req/s  ",
        (_percent(gateway["failed_share"]), "bold"),
        " failed  p99 ",
        (_ms(gateway["p99_ms"]), "bold"),
        "  overhead p99 ",
        (_ms(gateway["overhead_p99_ms"]), "bold"),
        f"  in flight {gateway['in_flight']:.0f}  workers {gateway['workers']:.0f}  registry #{registry['generation']}",
        ("" if registry["connected"] else f"  registry away for {registry['age_s']:.0f} s", "red"),
    )
    models = board["models"]
    if sort == "name":
        models = sorted(models, key=lambda model: model["name"])
    else:
        models = sorted(models, key=lambda model: -(model[_ORDERS[sort]] or 0))
    table = Table(box=None, pad_edge=False)
    for name in ("model", "req/s", "failed", "p50", "p99", "in flight", "versions"):
        table.add_column(name, justify="left" if name in {"model", "versions"} else "right")
    for model in models[:rows]:
        late = model["latency_s"] is not None and (model["p99_ms"] or 0) > model["latency_s"] * 1000
        versions = ", ".join(
            f"{v['version']} {v['traffic']} % {_ms(v['p99_ms'])}"
            for v in model["versions"]
            if v["traffic"] or v["rps"]
        )
        failing = model["failed_share"] > 0.01
        table.add_row(
            printable(model["name"]),
            f"{model['rps']:.1f}",
            Text(_percent(model["failed_share"]), "red" if failing else ""),
            _ms(model["p50_ms"]),
            Text(_ms(model["p99_ms"]), "red" if late else ""),
            str(model["in_flight"]),
            printable(versions),
        )
    more = [] if len(models) <= rows else [Text(f"and {len(models) - rows} more; --rows shows them", "dim")]
    return Group(head, "", table, *more)


def _ms(ms: float | None) -> str:
    if ms is None:
        return "–"
    return f"{ms / 1000:.2f} s" if ms >= 1000 else f"{ms:.0f} ms" if ms >= 100 else f"{ms:.1f} ms"


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"
