"""The file of named environments, and the file that remembers which of them is in use.

An environment says which project, registry and artifact store a command acts on.

    # ~/.config/chips/environments.toml
    [dev]
    registry = "firestore://my-project-dev/chips"
    artifacts = "gs://my-project-dev-artifacts"

    [prod]
    project = "my-project"
    region = "europe-west1"
    registry = "firestore://my-project/chips"
    artifacts = "gs://my-project-artifacts"
    images = "europe-west1-docker.pkg.dev/my-project/chips"
    gateway = "https://chips.example.com"
    protected = true

People write this file. `chips env use` writes the other one, which is kept with the other state of the commands.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from gateway.core.decode_text_file import decode_text_file
from gateway.core.suggestions import suggest

EXAMPLE = '[dev]\nregistry = "firestore://my-project-dev/chips"\nartifacts = "gs://my-project-dev-artifacts"'


class Environment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named environment that commands act on. What is not given stays as the settings say."""

    registry: str = ""
    artifacts: str = ""
    figures: str = ""  # store that its gateways report to, where they may only read the registry
    gateway: str = ""  # address of its gateway
    project: str = ""
    region: str = ""
    images: str = ""  # repository that images are pushed to
    account: str = ""  # service account of backends that `chips deploy` makes a service for
    protected: bool = False  # whether commands ask before they write


class ChosenEnvironment(NamedTuple):
    """The environment that a command acts on, and what chose it."""

    name: str
    environment: Environment
    by: str  # --env, CHIPS_ENV, or `chips env use`


class EnvironmentsFileError(Exception):
    """The environments file cannot be used. It lacks the environment, or cannot be read; the text says how to fix it."""


def read_environments(path: Path) -> dict[str, Environment]:
    """Read all environments from the file at `path`. There are none where there is no file. Raises EnvironmentsFileError."""
    try:
        text = decode_text_file(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise EnvironmentsFileError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise EnvironmentsFileError(f"{path} {error}") from None
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise EnvironmentsFileError(f"{path} is not valid TOML: {error}") from None
    found, problems = {}, []
    for name, table in content.items():
        try:
            found[name] = msgspec.convert(table, Environment)
        except msgspec.ValidationError as error:
            problems.append(f"[{name}]: {_explained(str(error), table)}")
    if problems:
        raise EnvironmentsFileError(f"{path}: " + "; ".join(problems))
    return found


def _explained(reason: str, table: object) -> str:
    if "unknown field" in reason and isinstance(table, Mapping):
        known = Environment.__struct_fields__
        wrong = next(field for field in table if field not in known)
        return f"there is no field {wrong}{suggest(wrong, known)}"
    return reason


def find_environment(environments: Mapping[str, Environment], name: str, path: Path) -> Environment:
    """The environment called `name`. Raises EnvironmentsFileError, which lists those that exist."""
    if name in environments:
        return environments[name]
    if not environments:
        raise EnvironmentsFileError(
            f'there is no environment "{name}": {path} does not exist yet. It may begin:\n{EXAMPLE}'
        )
    hint = suggest(name, environments, else_all=True)
    raise EnvironmentsFileError(f'there is no environment "{name}" in {path}{hint}')


class CurrentEnvironmentFile:
    """The file that remembers which environment is in use. `chips env use` writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> str:
        try:
            return self._path.read_text(encoding="utf-8").strip()
        except OSError:
            return ""

    def write(self, name: str) -> None:
        if name:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(name + "\n", encoding="utf-8")
        else:
            self._path.unlink(missing_ok=True)
