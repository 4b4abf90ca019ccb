"""`chips check`: check the settings. It shows each, and where it comes from."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from gateway.cli.support import console
from gateway.settings import load_effective_settings


def check(
    config: Annotated[
        Path | None, typer.Option("--config", help="Settings file; otherwise ./chips.toml if it exists.")
    ] = None,
    as_json: console.JsonOption = False,
) -> None:
    """Check the settings.

    It shows the effective ones and where each comes from, and ends with 78 where they are wrong.

    Example: `CHIPS_SERVER__PORT=9000 chips check`
    """
    values = load_effective_settings(config=config)
    if as_json:
        console.print_json(
            {
                value.name: {"value": msgspec.to_builtins(value.value), "source": value.source}
                for value in values
            }
        )
        return
    from rich.table import Table

    table = Table("setting", "value", "source", box=None, pad_edge=False)
    for value in values:
        shown = ", ".join(map(str, value.value)) if isinstance(value.value, tuple) else str(value.value)
        table.add_row(
            value.name, shown or "–", value.source, style="" if value.source == "default" else "bold"
        )
    console.out.print(table)
