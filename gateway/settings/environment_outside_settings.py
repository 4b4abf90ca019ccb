"""Environment variables that are not settings: folders, names and switches. The only reader of them besides the loader."""

import os
from collections.abc import Mapping
from pathlib import Path


def user_data_registry_url(environ: Mapping[str, str]) -> str:
    """The URL of the default registry: a file in the user's data folder, so that `chips register` and `chips serve` meet wherever they are started."""
    base = environ.get("XDG_DATA_HOME") or str(Path(environ.get("HOME") or "/") / ".local/share")
    return f"sqlite://{Path(base) / 'chips' / 'registry.db'}"


def wants_debug() -> bool:
    """Whether commands show where an unexpected error happened."""
    return bool(os.environ.get("CHIPS_DEBUG"))


def process_environment() -> dict[str, str]:
    """The whole environment, for a program that a command starts."""
    return dict(os.environ)


def inherited_environment() -> dict[str, str]:
    """The environment without what it says to CHIPS or Vertex AI, for a backend that is given settings of its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("CHIPS_", "AIP_"))}


def state_folder(environ: Mapping[str, str] | None = None) -> Path:
    """The folder for state: the gateway keeps recent requests there, and commands what they need to go on after an interruption."""
    environ = os.environ if environ is None else environ
    base = environ.get("XDG_STATE_HOME") or str(Path(environ.get("HOME") or "/") / ".local/state")
    return Path(base) / "chips"


def environments_file() -> Path:
    """The path of the file that describes the named environments."""
    given = os.environ.get("CHIPS_ENVIRONMENTS")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path(os.environ.get("HOME") or "/") / ".config")
    return Path(base) / "chips" / "environments.toml"


def docker_folder() -> Path:
    """Where `docker login` keeps what it was given."""
    return Path(os.environ.get("DOCKER_CONFIG") or Path(os.environ.get("HOME") or "/") / ".docker")


def named_environment() -> str:
    """The environment that CHIPS_ENV names, or nothing."""
    return os.environ.get("CHIPS_ENV", "")


def endpoint_override(service: str) -> str:
    """Another address of a Google API, by the variable that gcloud reads too; for proxies and tests."""
    return os.environ.get(f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{service.upper()}", "").rstrip("/")
