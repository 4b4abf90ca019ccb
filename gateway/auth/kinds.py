"""The kinds of credentials by name: built-in ones, and plug-ins."""

import difflib
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from gateway.auth.base import Authenticator

API_KEY: Final = "api-key"
TOKEN: Final = "token"  # noqa: S105  (a kind's name)
CERTIFICATE: Final = "certificate"
BUILT_IN: Final = (API_KEY, TOKEN, CERTIFICATE)
# A plug-in's name is what `auth.chain` calls it; its object is called without arguments and returns an Authenticator.
ENTRY_POINT_GROUP: Final = "chips.auth"


def check_chain(names: Sequence[str]) -> None:
    """Raise ValueError where a name is not known, or stands twice."""
    known = [*BUILT_IN, *_plug_ins()]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
            raise ValueError(f'there is no kind of credential called "{name}"; {hint}')
        if names.count(name) > 1:
            raise ValueError(f'"{name}" stands twice')


def open_plug_in(name: str) -> Authenticator:
    opened: Authenticator = _plug_ins()[name].load()()
    return opened


def _plug_ins() -> dict[str, EntryPoint]:
    return {found.name: found for found in entry_points(group=ENTRY_POINT_GROUP)}
