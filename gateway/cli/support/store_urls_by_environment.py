"""Look up the URLs of an environment's stores by its name (`--from qa --to prod`).

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


def resolve_registry_url(environment_or_url: str) -> str:
    """The registry URL of the named environment; a URL is returned as it is. Raises Failure."""
    return (
        environment_or_url if ":" in environment_or_url else registry_url_of_environment(environment_or_url)
    )


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


def image_repository_of_environment(environment_or_url: str) -> str:
    """The image repository of the named environment. Empty where it has none, and for a registry's URL. Raises Failure."""
    return "" if ":" in environment_or_url else environment_named(environment_or_url).images


def artifact_store_or_default(environment_or_url: str, default: Settings) -> str:
    """The URL of the named environment's artifact store, or else that of the settings `default`.

    It is that of `default` where the environment has none, and for a registry's URL. Raises Failure.
    """
    if ":" in environment_or_url:
        return default.artifacts
    return environment_named(environment_or_url).artifacts or default.artifacts
