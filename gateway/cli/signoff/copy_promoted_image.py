"""Copy the container image of a promoted version, by its digest, to the repository of the target environment."""

from functools import partial

from gateway.cli.support import console
from gateway.cli.support.console import Failure
from gateway.settings import docker_folder


def promoted_image_address(image: str, images: str) -> str:
    """The address of `image` in the repository `images`, by the same digest; as it is where there is none. Raises Failure."""
    if not image or not images:
        return image
    from gateway.deploy.copy_image import copied_image_address
    from gateway.deploy.target import DeployError

    try:
        return copied_image_address(image, images)
    except DeployError as error:
        raise Failure(str(error), hint=error.hint, code=error.code) from None


async def copy_promoted_image(image: str, target: str, *, as_json: bool) -> bool:
    """Copy `image` to `target`, of the same digest; False where it was there. Raises Failure."""
    from gateway.deploy.copy_image import copy_image
    from gateway.deploy.image_credentials import find_credentials
    from gateway.deploy.target import DeployError

    def tell(text: str) -> None:
        if not as_json:
            console.note(f"copying {text}")

    try:
        return await copy_image(image, target, partial(find_credentials, docker_folder=docker_folder()), tell)
    except DeployError as error:
        raise Failure(str(error), hint=error.hint, code=error.code) from None
