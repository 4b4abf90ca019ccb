"""Load authenticator plug-ins from entry points.

The names of authenticators, built-in ones and plug-ins, are checked here, too.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from gateway.auth.base import Authenticator
from gateway.core.suggestions import suggest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

API_KEY: Final = "api-key"
TOKEN: Final = "token"  # noqa: S105  (a kind's name)
CERTIFICATE: Final = "certificate"
BUILT_IN: Final = (API_KEY, TOKEN, CERTIFICATE)
# A plug-in's name is what `auth.chain` calls it; its object is called without arguments and returns an Authenticator.
ENTRY_POINT_GROUP: Final = "chips.auth"


def validate_authenticator_names(names: Sequence[str]) -> None:
    """Check the names in `auth.chain`. Raises ValueError where one is unknown or occurs twice."""
    known = list(BUILT_IN)
    if not set(names) <= set(known):  # else nothing looks through what is installed
        known += _plug_ins()
    for name in names:
        if name not in known:
            hint = suggest(name, known, else_all=True)
            raise ValueError(f'there is no kind of credential called "{name}"{hint}')
        if names.count(name) > 1:
            raise ValueError(f'"{name}" stands twice')


def load_authenticator_plugin(name: str) -> Authenticator:
    """Load the authenticator plug-in called `name`. It comes from the entry points `chips.auth`."""
    opened: Authenticator = _plug_ins()[name].load()()
    return opened


def _plug_ins() -> "dict[str, EntryPoint]":
    from importlib.metadata import entry_points

    return {found.name: found for found in entry_points(group=ENTRY_POINT_GROUP)}
