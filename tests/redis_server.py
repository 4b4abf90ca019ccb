"""A real Redis for one test, on a socket."""

import os
import shutil
import subprocess
import tempfile
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
    # Not in the test's folder, whose path may be longer than a socket's, 107 bytes (unix(7)).
    with tempfile.TemporaryDirectory(prefix="redis-", dir="/tmp") as short:
        yield from _running(program, Path(short) / "redis.sock", tmp_path)


def _running(program: str, path: Path, folder: Path) -> Iterator[str]:
    server = subprocess.Popen(
        [program, "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(folder)],
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
