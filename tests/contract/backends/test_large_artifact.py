"""A large artifact is fetched, checked and kept with flat memory, and its progress told: by Python, R and Julia alike.

CHIPS_TEST_BIG=1 makes it 2 GiB, and prints what each took; without, it is just so large that one who held it in memory is seen.
"""

import asyncio
import hashlib
import json
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.machine import tree
from gateway.verify.fake_gcs import BUCKET, FakeGcs
from tests.contract.backends.languages import JULIA_LINEAR, Julia
from tests.contract.backends.linear import publish, write_joblib
from tests.contract.backends.process import JULIA_PREDICT, PYTHON, Backend, R

# Read before the tests' own clean environment takes it away.
IS_BIG = os.environ.get("CHIPS_TEST_BIG") == "1"
BALLAST_BYTES = (2048 if IS_BIG else 256) << 20
# Julia collects by how long collecting took: the peaks of two starts that fetch the same differ by up to 91 MiB (488 to 579).
MAY_GROW_BYTES = {"python": 64 << 20, "r": 64 << 20, "julia": 128 << 20}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800 if IS_BIG else 300),
]  # a Julia compiles its program at each start


@pytest.fixture(scope="module")
def ballast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[memoryview]:
    path = tmp_path_factory.mktemp("ballast") / "ballast.bin"
    with path.open("wb") as stream:
        stream.truncate(BALLAST_BYTES)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        content = memoryview(mapped)
        yield content
        content.release()
    path.unlink()


@pytest.fixture(scope="module")
def ballast_digest(ballast: memoryview) -> str:
    return hashlib.sha256(ballast).hexdigest()


@pytest.fixture
def python_model(tmp_path: Path) -> tuple[tuple[str, ...], Path, dict[str, str]]:
    return PYTHON, write_joblib(tmp_path / "model.joblib"), {}


@pytest.fixture
def r_model(linear_rds: Path) -> tuple[tuple[str, ...], Path, dict[str, str]]:
    return R, linear_rds, {}


@pytest.fixture
def julia_model(julia: Julia, linear_jls: Path) -> tuple[tuple[str, ...], Path, dict[str, str]]:
    return JULIA_PREDICT, linear_jls, {**julia.environ, "PREDICT": JULIA_LINEAR}


def peak_bytes(pid: int) -> int:
    """The most memory that any one of its processes has held so far."""
    found = []
    for process in tree(pid):
        try:
            status = Path(f"/proc/{process}/status").read_text()
        except OSError:
            continue
        found += [int(kib) for kib in re.findall(r"VmHWM:\s+(\d+) kB", status)]
    return max(found) * 1024


@pytest.mark.parametrize("language", ["python", "r", "julia"])
async def test_memory_stays_flat_and_progress_is_told(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    language: str,
    ballast: memoryview,
    ballast_digest: str,
    tmp_path: Path,
):
    if IS_BIG:
        monkeypatch.setattr("tests.contract.backends.process.TIMEOUT_S", 1500.0)
    command, source, environ = request.getfixturevalue(f"{language}_model")
    publish(str(tmp_path / "store"), source)
    folder = tmp_path / "store/linear/1"
    small = json.loads((folder / "manifest.json").read_bytes())
    entry = {"path": "ballast.bin", "bytes": len(ballast), "sha256": ballast_digest}
    large = {**small, "files": [*small["files"], entry]}
    objects: dict[str, bytes | memoryview] = {"large/ballast.bin": ballast}
    for name, manifest in (("small", small), ("large", large)):
        objects[f"{name}/manifest.json"] = json.dumps(manifest).encode()
        objects |= {f"{name}/{f['path']}": (folder / f["path"]).read_bytes() for f in small["files"]}
    store = FakeGcs(objects)
    url = await store.start()
    peaks, told = [], [0]
    try:
        for name in ("small", "large"):
            cache = tmp_path / "cache" / name
            backend = Backend(
                command,
                {
                    **environ,
                    "STORAGE_EMULATOR_HOST": url,
                    "CHIPS_ARTIFACT": f"gs://{BUCKET}/{name}/",
                    "CHIPS_CACHE_DIR": str(cache),
                    "CHIPS_CONCURRENCY": "1",
                },
            )
            try:
                await asyncio.to_thread(backend.ready)
                peaks.append(peak_bytes(backend.pid))
                lines = [str(line["message"]) for line in backend.log]
                told = [int(found[1]) for line in lines if (found := re.match(r"fetched (\d+) %", line))]
            finally:
                await asyncio.to_thread(backend.kill)
    finally:
        await store.stop()
    assert told == list(range(10, 101, 10))
    print(
        f"{language}: {len(ballast) >> 20} MiB, peak {peaks[1] >> 20} MiB, {(peaks[1] - peaks[0]) >> 20} more than without"
    )
    assert peaks[1] - peaks[0] < MAY_GROW_BYTES[language], [peak >> 20 for peak in peaks]
