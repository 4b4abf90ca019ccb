"""Import the module of a command only when the command runs. So it does not pay for what all others need."""

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Any, NamedTuple

import typer
import typer.core
import typer.main


class LazyCommand(NamedTuple):
    """A command that is imported on first use. It has its module, its name there, and its panel in the help."""

    module: str
    name: str  # of a function, or of a Typer application with commands of its own
    panel: str

    def load(self, name: str) -> Any:
        found = getattr(import_module(self.module), self.name)
        if not isinstance(found, typer.Typer):
            single = typer.Typer(
                add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False
            )
            single.command(name, rich_help_panel=self.panel)(found)
            found = single
        command = typer.main.get_command(found)
        command.name = name
        command.rich_help_panel = self.panel  # type: ignore[attr-defined]  # groups and commands have it, their base has not
        return command


class LazyCommands(MutableMapping[str, Any]):
    """The commands of a group by name, imported on first use. They are in the order of the help."""

    def __init__(self, loaded: Mapping[str, Any], lazy: Mapping[str, LazyCommand]) -> None:
        self._lazy = dict(lazy)
        self._loaded = dict(loaded)
        self._names = dict.fromkeys([*lazy, *loaded])

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = self._lazy[name].load(name)
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._names[name] = None
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._names[name]
        self._loaded.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names


def lazy_group(commands: Mapping[str, LazyCommand]) -> type[typer.core.TyperGroup]:
    """A group class for Typer that loads `commands` on first use.

    It is for `typer.Typer(cls=…)`, and has them in addition to those registered the usual way.
    """

    class LazyGroup(typer.core.TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            self.commands = LazyCommands(self.commands, commands)

    return LazyGroup
