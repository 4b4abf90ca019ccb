# Long: one source of artifacts and all its faults.
"""Fetching: over a network that fails, from a store that lies, onto a disk that is full, by processes that die."""

import contextlib
import gc
import hashlib
import io
import json
import resource
import signal
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
import warnings
from pathlib import Path
from random import Random
from typing import Any

import pytest
from chips_backend import artifact
from chips_backend.artifact import ArtifactError, Wanted, obtain
from chips_backend.logs import Log
from chips_backend.testing import Backend, manifest_of, write_artifact

MIB = 1 << 20
ANY = Wanted()
CONTENT = Random(1).randbytes(3 * MIB)


# Google's client lets go of a connection that broke without closing it; the collector does, and warns.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(autouse=True)
def broken_connections_are_closed_here():
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr(artifact, "_FIRST_DELAY_S", 0.001)


def upload(gcs: Any, name: str, content: bytes) -> None:
    url = f"{gcs.url}/upload/storage/v1/b/{gcs.bucket}/o?uploadType=media&name={urllib.parse.quote(name, safe='')}"
    request = urllib.request.Request(url, content, {"Content-Type": "application/octet-stream"})  # noqa: S310
    urllib.request.urlopen(request, timeout=60).close()  # noqa: S310


def publish(gcs: Any, content: dict[str, bytes], /, prefix: str = "models/test/1", **fields: Any) -> str:
    for path, part in content.items():
        upload(gcs, f"{prefix}/{path}", part)
    upload(gcs, f"{prefix}/manifest.json", json.dumps(manifest_of(content, **fields)).encode())
    gcs.clear()
    return f"gs://{gcs.bucket}/{prefix}/"


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_an_artifact_is_fetched_once_and_kept_by_its_digest(gcs, tmp_path, log):
    address = publish(gcs, {"model.joblib": CONTENT, "sub/labels.txt": b"a\nb\n"})
    first = obtain(address, tmp_path, Wanted("test", "1"), log)
    assert (first.folder / "model.joblib").read_bytes() == CONTENT
    assert (first.folder / "sub/labels.txt").read_bytes() == b"a\nb\n"
    assert first.folder.name == first.digest.removeprefix("sha256:")
    gcs.clear()
    again = obtain(address.rstrip("/"), tmp_path, ANY, log)
    assert again.folder == first.folder
    assert [path for _, path in gcs.requests() if "/o/" in path and "manifest" not in path] == []


def test_what_chips_publish_writes_is_what_is_loaded(gcs, tmp_path, log):
    """Its objects are named by their content; the model finds them where they belong."""
    files = {"model.py": b"import helper", "helper.py": b"VALUE = 1"}
    manifest = manifest_of(files)
    for file in manifest["files"]:
        content = files[file["path"]]
        file["path"] = f"{file['sha256'][:16]}/{file['path']}"
        upload(gcs, f"m/{file['path']}", content)
    upload(gcs, "m/manifest.json", json.dumps(manifest).encode())
    found = obtain(f"gs://{gcs.bucket}/m", tmp_path, ANY, log)
    assert names_in(found.folder) == ["helper.py", "model.py"]


def test_progress_is_told_each_ten_percent(gcs, tmp_path):
    stream = io.StringIO()
    obtain(publish(gcs, {"model.joblib": Random(2).randbytes(20 * MIB)}), tmp_path, ANY, Log(stream))
    told = [json.loads(line)["message"] for line in stream.getvalue().splitlines()]
    assert told == [f"fetched {percent} % of the artifact" for percent in range(10, 101, 10)]


@pytest.mark.parametrize(
    "fault",
    [{"status": 503}, {"status": 500}, {"status": 429}, {"status": 408}, {"reset": True}, {"truncate": MIB}],
)
@pytest.mark.parametrize("what", ["manifest.json", "model.joblib"])
def test_what_may_pass_is_tried_again(gcs, tmp_path, log, fault, what):
    address = publish(gcs, {"model.joblib": CONTENT})
    times = 2 if what == "model.joblib" else 1
    fault = {"truncate": 10} if what == "manifest.json" and "truncate" in fault else fault
    gcs.fault(method="GET", path=what, times=times, **fault)
    found = obtain(address, tmp_path, ANY, log)
    assert (found.folder / "model.joblib").read_bytes() == CONTENT


def test_a_broken_download_goes_on_where_it_was(gcs, tmp_path, log, monkeypatch):
    address = publish(gcs, {"model.joblib": CONTENT})
    gcs.fault(method="GET", path="model.joblib.*alt=media", times=2, truncate=MIB)
    received: list[int] = []
    write = artifact._Sink.write

    def counted(sink: Any, block: bytes) -> int:
        received.append(len(block))
        return write(sink, block)

    monkeypatch.setattr(artifact._Sink, "write", counted)
    obtain(address, tmp_path, ANY, log)
    assert sum(received) == len(CONTENT), "no byte was fetched twice"


def test_what_does_not_pass_ends_with_the_objects_name(gcs, tmp_path, log):
    address = publish(gcs, {"model.joblib": CONTENT})
    gcs.fault(method="GET", path="model.joblib", times=1000, status=503)
    assert refused(address, tmp_path, log) == (69, f"{address}model.joblib cannot be fetched now")
    assert names_in(tmp_path / "test") == [next((tmp_path / "test").glob("*.lock")).name]


def test_flipped_bits_are_never_loaded(gcs, tmp_path, log):
    address = publish(gcs, {"model.joblib": CONTENT})
    gcs.fault(method="GET", path="model.joblib.*alt=media", corrupt=True)
    code, text = refused(address, tmp_path, log)
    assert (code, text) == (65, f"{address}model.joblib is not the file that was published")
    assert not any(name.endswith(".joblib") for name in names_in(tmp_path))
    assert (obtain(address, tmp_path, ANY, log).folder / "model.joblib").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "other", [CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]), CONTENT[:-1], b"", CONTENT + b"more"]
)
def test_a_swapped_object_is_never_loaded(gcs, tmp_path, log, other):
    address = publish(gcs, {"model.joblib": CONTENT})
    upload(gcs, "models/test/1/model.joblib", other)
    with pytest.raises(ArtifactError) as caught:
        obtain(address, tmp_path, ANY, log)
    assert caught.value.exit_code in {65, 69}
    assert not any(name.endswith(".joblib") for name in names_in(tmp_path))


def test_an_object_that_is_swapped_while_it_is_fetched_is_never_mixed(gcs, tmp_path, log, monkeypatch):
    address = publish(gcs, {"model.joblib": CONTENT})
    gcs.fault(method="GET", path="model.joblib.*alt=media", truncate=MIB)
    monkeypatch.setattr(
        "chips_backend.artifact.time.sleep",
        lambda _: upload(gcs, "models/test/1/model.joblib", Random(3).randbytes(3 * MIB)),
    )
    code, _ = refused(address, tmp_path, log)
    assert code in {65, 66}
    assert not any(name.endswith(".joblib") for name in names_in(tmp_path))


def test_a_missing_object_is_named(gcs, tmp_path, log):
    missing = f"gs://{gcs.bucket}/nothing/"
    assert refused(missing, tmp_path, log) == (66, f"{missing}manifest.json is not there")
    address = publish(gcs, {"model.joblib": CONTENT})
    url = f"{gcs.url}/storage/v1/b/{gcs.bucket}/o/{urllib.parse.quote('models/test/1/model.joblib', safe='')}"
    urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=60).close()  # noqa: S310
    assert refused(address, tmp_path, log) == (66, f"{address}model.joblib is not there")


@pytest.mark.parametrize("status", [401, 403])
def test_a_denied_object_says_which_role_is_needed(gcs, tmp_path, log, status):
    address = publish(gcs, {"model.joblib": CONTENT})
    gcs.fault(method="GET", path="model.joblib", times=9, status=status)
    with pytest.raises(ArtifactError, match=r"roles/storage.objectViewer") as caught:
        obtain(address, tmp_path, ANY, log)
    assert caught.value.exit_code == 77


def test_a_manifest_that_points_outside_fetches_nothing(gcs, tmp_path, log):
    address = publish(
        gcs, {"model.joblib": b"x"}, files=[{"path": "../../x", "bytes": 1, "sha256": "0" * 64}]
    )
    code, _ = refused(address, tmp_path, log)
    assert code == 65
    assert [path for _, path in gcs.requests() if "/o/" in path and "manifest" not in path] == []
    assert list(tmp_path.iterdir()) == []


def test_another_model_or_version_or_digest_than_the_wanted_one_is_not_loaded(gcs, tmp_path, log):
    address = publish(gcs, {"model.joblib": b"x"})
    for wanted in (Wanted("wine"), Wanted(version="2"), Wanted(digest="sha256:" + "0" * 64)):
        with pytest.raises(ArtifactError) as caught:
            obtain(address, tmp_path, wanted, log)
        assert caught.value.exit_code == 65
    found = obtain(address, tmp_path, ANY, log)
    assert obtain(address, tmp_path, Wanted("test", "1", found.digest), log) == found


def test_a_cache_that_was_tampered_with_is_fetched_anew(gcs, tmp_path, log):
    address = publish(gcs, {"model.joblib": CONTENT})
    found = obtain(address, tmp_path, ANY, log)
    for damage in (b"something else", None):
        if damage is None:
            (found.folder / "model.joblib").unlink()
        else:
            (found.folder / "model.joblib").write_bytes(damage)
        assert (obtain(address, tmp_path, ANY, log).folder / "model.joblib").read_bytes() == CONTENT


def test_many_at_once_fetch_it_once(gcs, tmp_path, log):
    address = publish(gcs, {"model.joblib": CONTENT})
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(obtain(address, tmp_path, ANY, log))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert {item.folder for item in found} == {found[0].folder}
    assert sum("alt=media" in path and "model.joblib" in path for _, path in gcs.requests()) == 1


# -- folders of this machine


def test_a_folder_is_used_where_it_is(tmp_path, log):
    folder = write_artifact(tmp_path / "a b", {"model.joblib": b"x"})
    for address in (str(folder), f"file://{folder}".replace(" ", "%20")):
        assert obtain(address, tmp_path / "cache", ANY, log).folder == folder
    assert not (tmp_path / "cache").exists()


def test_a_copy_of_a_bucket_is_laid_out_as_the_model_wants_it(tmp_path, log):
    """KServe copies a bucket as it is, with the objects' names that publishing gave them."""
    manifest = manifest_of({"model.py": b"import helper", "helper.py": b"VALUE = 1"})
    for file, content in zip(manifest["files"], (b"import helper", b"VALUE = 1"), strict=True):
        file["path"] = f"{file['sha256'][:16]}/{file['path']}"
        (tmp_path / "copy" / file["path"]).parent.mkdir(parents=True)
        (tmp_path / "copy" / file["path"]).write_bytes(content)
    (tmp_path / "copy/manifest.json").write_text(json.dumps(manifest))
    found = obtain(str(tmp_path / "copy"), tmp_path / "cache", ANY, log)
    assert (found.folder / "model.py").read_bytes() == b"import helper"
    assert (found.folder / "helper.py").read_bytes() == b"VALUE = 1"
    (tmp_path / "copy" / manifest["files"][0]["path"]).write_bytes(b"import other!")
    with pytest.raises(ArtifactError, match="not the file that was published"):
        obtain(str(tmp_path / "copy"), tmp_path / "cache", ANY, log)


def test_a_folder_is_checked_like_a_bucket(tmp_path, log):
    folder = write_artifact(tmp_path / "a", {"model.joblib": b"xyz"})
    (folder / "model.joblib").write_bytes(b"xyZ")
    assert refused(str(folder), tmp_path, log)[0] == 65
    (folder / "model.joblib").unlink()
    assert refused(str(folder), tmp_path, log) == (
        66,
        f"{folder}/model.joblib is missing, though the manifest lists it",
    )
    (folder / "manifest.json").write_text("{")
    assert refused(str(folder), tmp_path, log)[0] == 65
    (folder / "manifest.json").unlink()
    assert refused(str(folder), tmp_path, log)[0] == 66
    for address in ("s3://bucket/x", "gs:///x", "https://x/y"):
        assert refused(address, tmp_path, log) == (66, f"CHIPS_ARTIFACT={address}")


def test_a_cache_folder_that_cannot_be_made_is_told(gcs, tmp_path, log):
    address = publish(gcs, {"model.joblib": b"x"})
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot be used"):
        obtain(address, tmp_path / "file", ANY, log)


# -- whole processes


@pytest.fixture
def prepared(gcs, tmp_path, model):
    """Publish a model with a large file next to it; the environment to serve it."""

    def prepare(size: int) -> dict[str, str]:
        manifest = json.loads((model / "manifest.json").read_text())
        described = {name: manifest[name] for name in ("format", "signature", "samples")}
        files = {
            "model.py": (model / "model.py").read_bytes(),
            "weights.bin": Random(4).randbytes(MIB) * (size // MIB),
        }
        return {
            "CHIPS_ARTIFACT": publish(gcs, files, **described),
            "CHIPS_CACHE_DIR": str(tmp_path / "cache"),
            "STORAGE_EMULATOR_HOST": gcs.url,
        }

    return prepare


def test_killed_while_it_downloads_the_next_start_recovers(gcs, tmp_path, prepared, start):
    environ = prepared(64 * MIB)
    gcs.fault(method="GET", path="weights.bin.*alt=media", truncate=40 * MIB)
    gcs.fault(
        method="GET", path="weights.bin.*alt=media", delay_s=600
    )  # the second try never comes to its end
    backend = start(environ)
    backend.wait_for("fetched 50 %")
    backend.process.kill()
    assert backend.end() == -signal.SIGKILL
    (draft,) = (tmp_path / "cache/test").glob(".*")
    assert (draft / "weights.bin").exists(), "it was in the middle"
    gcs.clear()
    backend = start(environ).wait_until_ready()
    assert backend.post("/predict", {"instances": [[1.0, 2]]}).json["predictions"] == [3.0]
    assert backend.end(signal.SIGTERM) == 0
    assert list((tmp_path / "cache/test").glob(".*")) == [], "what was left lying is gone"


def test_two_processes_start_at_once(gcs, prepared, start):
    environ = prepared(16 * MIB)
    both = [start(environ), start(environ)]
    for backend in both:
        backend.wait_until_ready()
        assert backend.post("/predict", {"instances": [[1.0, 2]]}).status == 200
    assert [backend.end(signal.SIGTERM) for backend in both] == [0, 0]
    assert sum("weights.bin" in path and "alt=media" in path for _, path in gcs.requests()) == 1


def test_a_full_disk_stops_the_start_and_says_so(tmp_path, prepared, start):
    environ = prepared(16 * MIB)
    with small_disk(tmp_path / "small", 8) as disk:
        if disk is None:
            pytest.skip("no file system may be mounted here")
        backend = start({**environ, "CHIPS_CACHE_DIR": str(disk)})
        assert backend.end() == 74
        last = backend.log[-1]["message"]
        assert "is full: give it more room (on Cloud Run the disk is memory)" in last
        assert [path for path in disk.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


@contextlib.contextmanager
def small_disk(folder: Path, size_mib: int) -> Any:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "chips-test", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)  # noqa: S607


def test_a_limit_of_the_system_on_files_stops_the_start(prepared, start):
    """Where no file system may be mounted, this is the full disk."""
    environ = prepared(16 * MIB)
    limited = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limited += f"resource.setrlimit(resource.RLIMIT_FSIZE, ({8 * MIB}, {8 * MIB})); "
    limited += "from chips_backend.__main__ import run; run()"
    backend = start(environ, command=(sys.executable, "-c", limited))
    assert backend.end() == 74
    assert "cannot be used" in backend.log[-1]["message"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_memory_stays_flat_while_fetching(prepared, start):
    size = 200 * MIB
    environ = prepared(size)
    backend = start(environ).listen()
    before = peak(backend)
    backend.wait_for("ready")
    assert peak(backend) < size + 64 * MIB
    if before:
        assert peak(backend) - before < 128 * MIB, "the packages and the model, but not the artifact"
    assert backend.end(signal.SIGTERM) == 0


def peak(backend: Backend) -> int:
    for line in Path(f"/proc/{backend.process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError


def test_a_sigterm_while_it_downloads_ends_it_at_once(gcs, prepared, start):
    environ = prepared(16 * MIB)
    gcs.fault(method="GET", path="weights.bin.*alt=media", delay_s=600)
    backend = start(environ).listen()
    assert backend.get("/v2/health/live").status == 200
    ready = backend.get("/v2/health/ready")
    assert (ready.status, ready.json["code"]) == (503, "not-ready")
    assert backend.end(signal.SIGTERM) == 0


def refused(address: str, cache: Path, log: Log) -> tuple[int, str]:
    with pytest.raises(ArtifactError) as caught:
        obtain(address, cache, ANY, log)
    return caught.value.exit_code, str(caught.value).partition(": ")[0]


def test_digests_are_of_bytes():
    assert manifest_of({"a": b"x"})["files"][0]["sha256"] == hashlib.sha256(b"x").hexdigest()
