"""Environment variables that are not settings. They give folders, names and switches. Other modules ask this one for them."""

import os
from collections.abc import Mapping
from pathlib import Path


def user_data_registry_url(environ: Mapping[str, str]) -> str:
    """The URL of the registry in the user's data folder.

    It is the default, so `chips register` and `chips serve` use the same one, whichever folder they are started in.
    """
    base = environ.get("XDG_DATA_HOME") or str(Path(environ.get("HOME") or "/") / ".local/share")
    return f"sqlite://{Path(base) / 'chips' / 'registry.db'}"


def wants_debug() -> bool:
    """Whether CHIPS_DEBUG is set. Commands then show the traceback of an unexpected error."""
    return bool(os.environ.get("CHIPS_DEBUG"))


def process_environment() -> dict[str, str]:
    """A copy of this process's environment. It is for a program that a command starts."""
    return dict(os.environ)


def environment_for_backend() -> dict[str, str]:
    """The environment variables for a backend that a command starts.

    They are this process's own, but for those of CHIPS and Vertex AI (AIP_).
    """
    return {name: value for name, value in os.environ.items() if not name.startswith(("CHIPS_", "AIP_"))}


def state_folder(environ: Mapping[str, str] | None = None) -> Path:
    """The folder for state in the user's home.

    It holds recent requests, and what commands need to go on after an interruption.
    """
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
    """Docker's configuration folder. `docker login` keeps credentials there."""
    return Path(os.environ.get("DOCKER_CONFIG") or Path(os.environ.get("HOME") or "/") / ".docker")


def named_environment() -> str:
    """The name of the environment that CHIPS_ENV chooses. It is empty if none."""
    return os.environ.get("CHIPS_ENV", "")


def gcloud_endpoint_override(api: str) -> str:
    """The address that overrides the endpoint of a Google API, in the variable that gcloud reads too.

    It is empty if none does. It is for proxies and tests.
    """
    return os.environ.get(f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{api.upper()}", "").rstrip("/")
