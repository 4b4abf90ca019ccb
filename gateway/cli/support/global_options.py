"""The global options given before the command (`chips --env prod --yes …`), kept for the commands to read."""

import re
import shlex
from collections.abc import Collection
from typing import Final

_COMMAND: Final = re.compile(r"(?<![\w/-])chips (?=([a-z][a-z-]*))")


class GlobalOptions:
    """The global options that were given before the command. `commands` are those that act on an environment."""

    def __init__(self) -> None:
        self.env: str | None = None
        self.yes = False
        self.told = False  # which environment this acts on is said once
        self.commands: Collection[str] = ()

    def add_environment_to_commands(self, text: str) -> str:
        """Insert `--env NAME` into the `chips` commands in a text.

        So they can be copied as they are. Without --env, and for commands that act on no environment, `text` stays as
        it is.
        """
        if not self.env:
            return text
        before = f"chips --env {shlex.quote(self.env)} "
        return _COMMAND.sub(lambda found: before if found[1] in self.commands else found[0], text)


choice = GlobalOptions()
