"""Artifacts from Cloud Storage and from a folder: fetched through every fault, and never loaded where one byte differs."""

import gzip
import hashlib
import json
import shutil
from pathlib import Path
from random import Random
from urllib.parse import quote

import pytest
import requests

from tests.contract.backends.linear import publish
from tests.contract.backends.process import R
from tests.contract.backends.r.conftest import Start
from tests.damage import one_bit_off
from tests.gcs.fixture import Gcs
from tests.patience import patience

pytestmark = pytest.mark.slow

MIB = 1 << 20
EX_DATAERR, EX_NOINPUT, EX_UNAVAILABLE, EX_IOERR, EX_NOPERM = 65, 66, 69, 74, 77
MEDIA = "weights.bin.*alt=media"


@pytest.fixture
def source(linear_rds: Path, tmp_path: Path) -> Path:
    """The model with a larger file next to it."""
    folder = tmp_path / "source"
    folder.mkdir()
    shutil.copy(linear_rds, folder / "model.rds")
    (folder / "weights.bin").write_bytes(Random(1).randbytes(8 * MIB))
    return folder


@pytest.fixture
def bucket(gcs: Gcs, source: Path) -> str:
    publish(f"gs://{gcs.bucket}/models", source, "linear")
    gcs.clear()
    return f"gs://{gcs.bucket}/models/linear/1/"


@pytest.fixture
def environ(bucket: str, tmp_path: Path) -> dict[str, str]:
    return {"CHIPS_ARTIFACT": bucket, "CHIPS_CACHE_DIR": str(tmp_path / "cache"), "CHIPS_CONCURRENCY": "1"}


def downloads(gcs: Gcs) -> int:
    return sum("alt=media" in path and "manifest" not in path for _, path in gcs.requests())


def cached(environ: dict[str, str]) -> list[Path]:
    return [
        path for path in Path(environ["CHIPS_CACHE_DIR"]).rglob("*") if path.is_file() and path.stat().st_size
    ]


def object_of(gcs: Gcs, file: str) -> str:
    """The name of the object with a published file."""
    content = requests.get(
        f"{gcs.url}/{gcs.bucket}/models/linear/1/manifest.json", timeout=patience(10)
    ).json()
    (path,) = (entry["path"] for entry in content["files"] if entry["path"].endswith(file))
    return f"models/linear/1/{path}"


def address(gcs: Gcs, name: str) -> str:
    return f"{gcs.url}/{gcs.bucket}/{quote(name)}"


def test_fetched_once_and_then_served_from_the_cache(start_r: Start, environ: dict[str, str], gcs: Gcs):
    backend = start_r(environ).ready()
    assert backend.predict([1.5, 2, 3]).json()["predictions"] == [12.0]
    tenths = [entry for entry in backend.log if str(entry["message"]).startswith("fetched ")]
    assert 1 <= len(tenths) <= 10
    assert downloads(gcs) == 2
    assert backend.stop() == 0
    assert start_r(environ).ready().stop() == 0
    assert downloads(gcs) == 2


@pytest.mark.parametrize(
    "fault",
    [{"status": 503}, {"status": 429}, {"reset": True}, {"truncate": 3 * MIB}, {"truncate": 0}],
    ids=lambda fault: "-".join(map(str, *fault.items())),
)
def test_what_may_pass_is_tried_again_from_where_it_broke_off(
    start_r: Start, environ: dict[str, str], gcs: Gcs, fault: dict[str, object]
):
    gcs.fault(path=MEDIA, **fault)
    backend = start_r(environ).ready()
    assert any("tried again" in str(entry["message"]) for entry in backend.log)
    assert backend.predict([1.5, 2, 3]).json()["predictions"] == [12.0]


def test_a_store_that_does_not_answer_ends_the_start(start_r: Start, environ: dict[str, str], gcs: Gcs):
    gcs.fault(path="manifest.json", status=503, times=50)
    backend = start_r(environ)
    assert backend.end() == EX_UNAVAILABLE
    assert "cannot be fetched now" in backend.why()


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("path", ["manifest.json", MEDIA])
def test_denied(start_r: Start, environ: dict[str, str], gcs: Gcs, status: int, path: str):
    gcs.fault(path=path, status=status)
    backend = start_r(environ)
    assert backend.end() == EX_NOPERM
    assert "roles/storage.objectViewer" in backend.why()
    assert environ["CHIPS_ARTIFACT"] in backend.why()


def test_missing(start_r: Start, environ: dict[str, str], gcs: Gcs):
    requests.delete(address(gcs, object_of(gcs, "weights.bin")), timeout=patience(10)).raise_for_status()
    backend = start_r(environ)
    assert backend.end() == EX_NOINPUT
    assert "weights.bin is not there" in backend.why()
    requests.delete(address(gcs, "models/linear/1/manifest.json"), timeout=patience(10)).raise_for_status()
    assert start_r(environ).end() == EX_NOINPUT


@pytest.mark.parametrize("change", ["corrupted", "truncated", "longer", "swapped", "empty"])
def test_what_is_not_what_was_published_is_never_loaded(
    start_r: Start, environ: dict[str, str], gcs: Gcs, change: str
):
    model = object_of(gcs, "model.rds")
    content = requests.get(address(gcs, model), timeout=patience(10)).content
    other = requests.get(address(gcs, object_of(gcs, "weights.bin")), timeout=patience(10)).content
    changed = {
        "corrupted": one_bit_off(content),
        "truncated": content[:-1],
        "longer": content + b"x",
        "swapped": other,
        "empty": b"",
    }[change]
    requests.put(address(gcs, model), data=changed, timeout=patience(10)).raise_for_status()
    backend = start_r(environ)
    assert backend.end() == EX_DATAERR
    assert "not the file that was published" in backend.why()
    assert "model.rds" in backend.why()
    assert not cached(environ)


def test_a_bit_that_flips_on_the_way_is_seen(start_r: Start, environ: dict[str, str], gcs: Gcs):
    gcs.fault(path=MEDIA, corrupt=True)
    assert start_r(environ).end() == EX_DATAERR
    assert not cached(environ)
    assert start_r(environ).ready().stop() == 0


def test_killed_in_the_middle_of_a_download_it_recovers(start_r: Start, environ: dict[str, str], gcs: Gcs):
    gcs.fault(path=MEDIA, truncate=3 * MIB)
    gcs.fault(path=MEDIA, delay_s=600)
    backend = start_r(environ)
    backend.wait_for(lambda entry: "tried again" in str(entry["message"]))
    assert cached(environ)  # half of a file
    backend.kill()
    gcs.clear()
    again = start_r(environ).ready()
    assert again.predict([1.5, 2, 3]).json()["predictions"] == [12.0]
    content = requests.get(
        f"{gcs.url}/{gcs.bucket}/models/linear/1/manifest.json", timeout=patience(10)
    ).json()
    digests = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in cached(environ))
    assert digests == sorted(entry["sha256"] for entry in content["files"])


def test_a_cache_that_was_changed_is_fetched_anew(start_r: Start, environ: dict[str, str], gcs: Gcs):
    assert start_r(environ).ready().stop() == 0
    (model,) = (path for path in cached(environ) if path.name == "model.rds")
    model.write_bytes(b"not the model")
    assert start_r(environ).ready().stop() == 0
    assert downloads(gcs) == 4


def test_two_that_start_at_once_fetch_once(start_r: Start, environ: dict[str, str], gcs: Gcs):
    gcs.fault(path=MEDIA, delay_s=1)
    both = [start_r(environ), start_r(environ)]
    assert [backend.ready().stop() for backend in both] == [0, 0]
    assert downloads(gcs) == 2


def test_a_full_disk(start_r: Start, environ: dict[str, str]):
    limited = ("sh", "-c", f"trap '' XFSZ; ulimit -f 4096; exec {R[0]}")
    backend = start_r(environ, limited)
    assert backend.end() == EX_IOERR
    assert "is full" in backend.why()
    assert "CHIPS_CACHE_DIR" in backend.why()
    assert not cached(environ)


def test_a_cache_that_cannot_be_written(start_r: Start, environ: dict[str, str], tmp_path: Path):
    backend = start_r({**environ, "CHIPS_CACHE_DIR": "/sys/chips"})
    assert backend.end() == EX_NOPERM
    assert "/sys/chips" in backend.why()
    (tmp_path / "file").write_text("in the way")
    assert start_r({**environ, "CHIPS_CACHE_DIR": str(tmp_path / "file/cache")}).end() == EX_IOERR


def test_tokens_come_from_the_metadata_server(
    start_r: Start, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    # Nobody listens on port 9, so nothing leaves this machine: without a token nothing is asked of the real service.
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    backend = start_r({**environ, "GCE_METADATA_HOST": "127.0.0.1:9"})
    assert backend.end() == EX_UNAVAILABLE
    assert "access token" in backend.why()


def test_another_model_than_the_one_asked_for(start_r: Start, linear_store: Path):
    backend = start_r({"CHIPS_ARTIFACT": linear_store / "linear/1", "CHIPS_VERSION": "2"})
    assert backend.end() == EX_DATAERR
    assert "linear@1" in backend.why()


def test_a_sample_that_comes_out_differently_stops_the_start(
    start_r: Start, linear_store: Path, tmp_path: Path
):
    folder = tmp_path / "artifact"
    shutil.copytree(linear_store / "linear/1", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["samples"][0]["response"]["predictions"] = [12.1]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    backend = start_r({"CHIPS_ARTIFACT": folder})
    assert backend.end() == EX_DATAERR
    assert "differently" in backend.why()


def test_a_file_that_is_no_rds_file_ends_the_start_with_its_reason(start_r: Start, tmp_path: Path):
    source = tmp_path / "model.rds"
    source.write_bytes(gzip.compress(b"not an RDS file"))
    publish(str(tmp_path / "store"), source, "linear")
    backend = start_r({"CHIPS_ARTIFACT": tmp_path / "store/linear/1"})
    assert backend.end() == 70
    assert "could not be loaded" in backend.why()
