"""Format API keys for display on the console. `chips keys list` shows what each may do, how much, and until when."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from gateway.core.api_key_document import Key, parse_key
from gateway.core.api_keys import key_id
from gateway.core.escape_unprintable import printable
from gateway.core.model import NetworksAndQuotas
from gateway.registry.base import Document

_INDENT = 14  # an id and two blanks
_STYLES = {"valid": "green", "expired": "yellow", "revoked": "red"}


def key_lines(document: Document, last_used: str | None) -> Iterator[RenderableType]:
    """The lines that show one key. They are id, label and state; then rights and limits; then dates."""
    name = key_id(document.name)
    try:
        key = parse_key(document.body)
    except ValueError as error:
        yield Text.assemble(f"{name}  ", ("unreadable", "bold red"), f"  {printable(str(error))}")
        return
    state = key_state(key)
    yield Text.assemble(f"{name}  ", (printable(key.label), "bold"), "  ", (state, _STYLES[state]))
    yield _below(f"{', '.join(key.verbs)}: {', '.join(key.models)}{''.join(_bounds(key))}")
    expires = f"expires {_day(key.expires)}" if key.expires else "never expires"
    used = f"last used {last_used[:16].replace('T', ' ')}" if last_used else "never used"
    yield _below(f"made {_day(key.created)}, {expires}, {used}")


def key_state(key: Key) -> Literal["valid", "expired", "revoked"]:
    """The state of a key: `valid`, `expired` or `revoked`."""
    if key.revoked is not None:
        return "revoked"
    if key.expires is not None and datetime.fromisoformat(key.expires) <= datetime.now(UTC):
        return "expired"
    return "valid"


def limit_texts(limits: NetworksAndQuotas) -> Iterator[str]:
    """The limits as texts, such as `20 requests per second (burst 50)`. There are none without limits."""
    burst = f" (burst {limits.burst})" if limits.burst is not None else ""
    for number, what in (
        (limits.requests_per_s, f"requests per second{burst}"),
        (limits.max_in_flight, "at once"),
        (limits.requests_per_day, "per day"),
        (limits.requests_per_month, "per month"),
    ):
        if number is not None:
            yield f"{number} {what}" if isinstance(number, int) else f"{number:g} {what}"


def _bounds(key: Key) -> Iterator[str]:
    if limits := list(limit_texts(key)):
        yield f"; {', '.join(limits)}"
    if key.networks:
        yield f"; from {', '.join(key.networks)}"


def _below(text: str) -> Padding:
    return Padding(Text(printable(text), style="dim"), (0, 0, 0, _INDENT))


def _day(moment: str) -> str:
    return moment[:10]
