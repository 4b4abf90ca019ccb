"""Find the registry, artifact store and image repository of an environment that a command names (`--from qa --to prod`)."""

from gateway.cli.support.console import EX_CONFIG, Failure
from gateway.cli.support.environments_file import (
    Environment,
    EnvironmentsFileError,
    find_environment,
    read_environments,
)
from gateway.settings import Settings, environments_file


def environment_named(name: str) -> Environment:
    """The environment of that name. Raises Failure."""
    path = environments_file()
    try:
        return find_environment(read_environments(path), name, path)
    except EnvironmentsFileError as error:
        raise Failure(str(error), code=EX_CONFIG) from None


def registry_url_of(name: str) -> str:
    """The registry's URL of an environment; a URL is taken as it is. Raises Failure."""
    return name if ":" in name else registry_url_of_environment(name)


def registry_url_of_environment(name: str) -> str:
    """The registry's URL of an environment. Raises Failure."""
    environment = environment_named(name)
    if not environment.registry:
        raise Failure(
            f'the environment "{name}" names no registry',
            hint=f"add one in {environments_file()}",
            code=EX_CONFIG,
        )
    return environment.registry


def image_repository_of(name: str) -> str:
    """The repository for images of an environment; empty where it has none, or is given by its registry's URL. Raises Failure."""
    return "" if ":" in name else environment_named(name).images


def artifact_store_url_of(name: str, settings: Settings) -> str:
    """The artifact store of an environment; of a registry that is given by its URL, the settings'. Raises Failure."""
    return settings.artifacts if ":" in name else environment_named(name).artifacts or settings.artifacts
