"""Backends in real R."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.contract.backends.linear import publish
from tests.contract.backends.process import Backend, R


@pytest.fixture(scope="session")
def linear_store(linear_rds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store")
    publish(str(store), linear_rds, "linear")
    return store


Start = Callable[..., Backend]


@pytest.fixture
def start_r(has_r: None) -> Iterator[Start]:
    """Start R backends; what still runs at the end is killed."""
    started: list[Backend] = []

    def start(environ: Mapping[str, Any], command: Sequence[str] = R) -> Backend:
        backend = Backend(
            command,
            {"CHIPS_MODEL": "linear", "CHIPS_VERSION": "1", **{k: str(v) for k, v in environ.items()}},
        )
        started.append(backend)
        return backend

    yield start
    for backend in started:
        backend.kill()


def edit(folder: Path, code: str) -> str:
    """A copy of the backend in `folder` with more code in predict.R; its command."""
    copy = folder / "backend"
    shutil.copytree(Path(R[0]).parent, copy)
    with (copy / "predict.R").open("a") as predict:
        predict.write(code)
    return str(copy / "entrypoint.sh")
