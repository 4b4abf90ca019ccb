"""A real Redis for one test, on a socket in its folder."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.patience import patience


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    program = shutil.which("redis-server")
    require(
        "redis", available=program is not None, why="redis-server is not installed (apt install redis-server)"
    )
    assert program is not None
    if "faketime" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("redis: its allocator stands still under faketime")
    path = tmp_path / "redis.sock"
    server = subprocess.Popen(
        [program, "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    said = []
    for line in server.stdout:
        said.append(line)
        if "ready to accept connections" in line.lower():
            break
    assert server.poll() is None, "".join(said)
    yield f"unix://{path}"
    server.terminate()
    server.stdout.close()
    server.wait(timeout=patience(30))
