"""Where an image lies after a copy: at the repository of the environment, by the digest that it has."""

import hashlib

import pytest

from gateway.deploy.copy_image import copied_image_address
from gateway.deploy.target import DeployError


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        ("wine@sha256:" + "a" * 64, "names no image at a registry"),
        ("example.com/wine:4", "named by a tag"),
        ("https://example.com/wine@sha256:" + "a" * 64, "names no image"),
        ("example.com/../wine@sha256:" + "a" * 64, "names no image"),
        ("example.com/wine@sha512:" + "a" * 128, "names no image"),
    ],
)
def test_what_is_no_image_by_digest_is_refused(image: str, problem: str):
    with pytest.raises(DeployError, match=problem):
        copied_image_address(image, "example.com/models")


def test_an_image_that_is_in_the_repository_stays():
    digest = f"sha256:{hashlib.sha256(b'').hexdigest()}"
    assert (
        copied_image_address(f"a.dev/p/models/wine:4@{digest}", "a.dev/p/models")
        == f"a.dev/p/models/wine:4@{digest}"
    )
    assert (
        copied_image_address(f"a.dev/p/models-qa/wine@{digest}", "a.dev/p/models/")
        == f"a.dev/p/models/wine@{digest}"
    )
