"""Copy the container image of a promoted version to the target environment.

It goes to the repository of that environment, by its digest.
"""

from functools import partial

from gateway.cli.support import console
from gateway.cli.support.console import Failure
from gateway.settings import docker_folder


def promoted_image_address(image: str, images: str) -> str:
    """The address of the promoted image in the repository `images`.

    It has the same digest. Without a repository it is `image` as it is. Raises Failure.
    """
    if not image or not images:
        return image
    from gateway.deploy.copy_image import copied_image_address
    from gateway.deploy.target import DeployError

    try:
        return copied_image_address(image, images)
    except DeployError as error:
        raise Failure(str(error), hint=error.hint, code=error.code) from None


async def copy_promoted_image(image: str, target: str, *, as_json: bool) -> bool:
    """Copy the promoted image `image` to `target`. Both have the same digest. False where it was there. Raises Failure."""
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
