"""Find the URLs of an environment's stores by its name (`--from qa --to prod`).

The stores are its registry, its artifact store and its image repository.
"""

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


def resolve_registry_url(name: str) -> str:
    """The URL of the registry that `name` names.

    It is that of the environment, or `name` itself if that is a URL. Raises Failure.
    """
    return name if ":" in name else registry_url_of_environment(name)


def registry_url_of_environment(name: str) -> str:
    """The URL of an environment's registry. Raises Failure."""
    environment = environment_named(name)
    if not environment.registry:
        raise Failure(
            f'the environment "{name}" names no registry',
            hint=f"add one in {environments_file()}",
            code=EX_CONFIG,
        )
    return environment.registry


def image_repository_of(name: str) -> str:
    """The image repository of an environment.

    Empty where there is none, or where `name` is a registry's URL. Raises Failure.
    """
    return "" if ":" in name else environment_named(name).images


def artifact_store_url_of(name: str, settings: Settings) -> str:
    """The URL of an environment's artifact store.

    Where the environment has none, or `name` is a URL, it is that of `settings`. Raises Failure.
    """
    return settings.artifacts if ":" in name else environment_named(name).artifacts or settings.artifacts
