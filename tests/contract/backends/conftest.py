"""A real model, published once for all tests here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def wine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a published artifact: the wine model of the examples."""
    folder = tmp_path_factory.mktemp("wine")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CHIPS_")}
    for arguments in (
        ("examples/wine/train.py", str(folder / "out")),
        (
            *("-m", "gateway.cli", "publish", str(folder / "out/model.joblib"), "--model", "wine"),
            *("--version", "1", "--store", str(folder / "store"), "--by", "test"),
            *(
                "--signature",
                str(folder / "out/signature.json"),
                "--samples",
                str(folder / "out/samples.json"),
            ),
        ),
    ):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done
    return folder / "store/wine/1"


@pytest.fixture(scope="session")
def python_environment(wine: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a Python backend that serves it."""
    cache = tmp_path_factory.mktemp("cache")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CHIPS_", "AIP_"))}
    return {
        **kept,
        "CHIPS_MODEL": "wine",
        "CHIPS_VERSION": "1",
        "CHIPS_ARTIFACT": str(wine),
        "CHIPS_CACHE_DIR": str(cache),
        "CHIPS_CONCURRENCY": "2",
    }
