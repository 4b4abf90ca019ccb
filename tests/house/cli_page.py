"""The reference page of the command line, made from the commands themselves."""

import inspect
from collections.abc import Iterator
from typing import Any

import typer

from gateway.cli import app
from gateway.serve import USAGE

HEAD = """\
# The command line

<!-- Made from the commands: `make docs` writes this page. -->

`chips VERB --help` shows the same at the terminal. `python -m gateway` is `chips serve`, and
`python -m gateway.register` is `chips register`.

Results go to standard output, progress and errors to standard error. With `--json`, standard output holds exactly one
JSON document; an error is one too: `{"error": {"message": …, "hint": …, "exit_code": …}}`. Colors appear on a terminal
only, and not where `NO_COLOR` is set. `CHIPS_DEBUG=1` shows where an unexpected error happened.

## Before the verb

`chips --env NAME …` acts on a named environment (`chips env`), and `chips --yes …` does not ask before a write to a
protected one. What a command acts on is decided by, in this order: `--registry`, `--env`, `CHIPS_ENV`, the settings
(`CHIPS_REGISTRY`, `chips.toml`), and the environment in use (`chips env use`).

## Exit codes

They follow `sysexits.h` where it has a word for it.

| code | meaning |
|---:|---|
| 0 | done; also where nothing had to be changed |
| 1 | an error of our own |
| 64 | the command line is wrong, or something must be confirmed with `--yes` |
| 65 | a name, an address or a value is wrong, or what it names is not there |
| 69 | the registry, the backend or the artifact store cannot be reached, or is not ready |
| 70 | `serve`: a stop did not come to its end in time |
| 71 | `serve`: the port cannot be had |
| 73 | `publish`: this version exists already, with other content |
| 75 | somebody else changed it first, and nothing was written; `serve`: something in the background failed for good |
| 76 | what answers at the address is not a backend as the contract describes, or not this one |
| 77 | `publish`: the artifact store refuses permission |
| 78 | the settings are wrong |
| 130 | stopped with Ctrl-C |
"""


def render() -> str:
    group: Any = typer.main.get_command(app)
    return "\n".join([HEAD, *_verbs(group, "chips")])


def _verbs(group: Any, prefix: str) -> Iterator[str]:
    for name, command in group.commands.items():
        path = f"{prefix} {name}"
        if hasattr(command, "commands"):
            yield from _verbs(command, path)
            continue
        yield f"## {path}\n"
        if name == "serve":
            yield f"```text\n{USAGE}```\n"
            continue
        arguments = [_argument(p) for p in command.params if p.param_type_name == "argument"]
        yield f"`{' '.join([path, *arguments, '[OPTIONS]'])}`\n"
        yield inspect.cleandoc(command.help or "") + "\n"
        rows = [_row(p) for p in command.params if p.help]
        if rows:
            yield "\n".join(["| | |", "|---|---|", *rows]) + "\n"


def _argument(parameter: Any) -> str:
    name: str = parameter.metavar or parameter.name.upper()
    return name if parameter.required else f"[{name}]"


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        name = _argument(parameter)
    else:
        name = " / ".join([*parameter.opts, *parameter.secondary_opts])
    needed = " Required." if parameter.required and parameter.param_type_name == "option" else ""
    default = parameter.default
    shown = default not in (None, "", False, True, []) and "[default" not in parameter.help
    given = ", ".join(map(str, default)) if isinstance(default, list) else default
    text = parameter.help.replace("|", "\\|").replace("*", "\\*")
    return f"| `{name}` | {text}{needed}{f' Default: `{given}`.' if shown else ''} |"
