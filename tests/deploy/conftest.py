"""A checkout of deploy/terraform, planned by terraform itself with a stand-in for Google's provider."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require


@pytest.fixture(scope="module")
def provider() -> Iterator[object]:
    require("terraform", available=shutil.which("terraform") is not None, why="terraform is not installed")
    from tests.deploy.provider import Provider

    provider = Provider()
    yield provider
    provider.stop()


@pytest.fixture
def checkout(tmp_path: Path, provider):
    from tests.deploy.terraform import Checkout

    return Checkout(tmp_path, provider)
