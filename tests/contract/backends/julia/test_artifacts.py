"""What is fetched is what was published, byte for byte, or it is not loaded; what was published is what is read."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest

from gateway.artifacts.manifest import parse_manifest
from tests.contract.backends.julia.conftest import Driver, Start
from tests.contract.backends.languages import Julia
from tests.contract.backends.linear import publish
from tests.contract.backends.process import PYTHON, ROOT, Backend
from tests.damage import one_bit_off
from tests.gcs.fixture import Gcs
from tests.patience import patience

pytestmark = pytest.mark.timeout(600)  # a Julia compiles its program at each start

ROW = {"x": 1.5, "n": 2, "k": 3}


@pytest.fixture
def store(gcs: Gcs, linear_jls: Path) -> str:
    """A bucket with the linear model."""
    publish(f"gs://{gcs.bucket}/models", linear_jls, STORAGE_EMULATOR_HOST=gcs.url)
    gcs.clear()
    return f"gs://{gcs.bucket}/models/linear/1/"


def cached(folder: Path) -> list[str]:
    """What lies in a cache, but for locks."""
    return sorted(p.name for p in folder.glob("*/*") if p.suffix != ".lock") if folder.exists() else []


def test_a_backend_fetches_once_and_answers(store: str, gcs: Gcs, start_julia: Start, tmp_path: Path):
    environ = {"CHIPS_ARTIFACT": store, "CHIPS_CACHE_DIR": tmp_path, "STORAGE_EMULATOR_HOST": gcs.url}
    backend = start_julia(environ).ready()
    assert backend.predict(ROW).json()["predictions"] == [12.0]
    told = [str(line["message"]) for line in backend.log]
    assert any(text.startswith("fetched 100 %") for text in told)
    assert backend.stop() == 0
    gcs.clear()
    second = start_julia(environ).ready()
    assert [path.partition("?")[0].rpartition("%2F")[2] for _, path in gcs.requests()] == ["manifest.json"]
    assert second.predict(ROW).headers["X-Chips-Model"] == "linear@1"
    assert second.stop() == 0


def test_killed_while_it_fetches_it_recovers(store: str, gcs: Gcs, start_julia: Start, tmp_path: Path):
    environ = {"CHIPS_ARTIFACT": store, "CHIPS_CACHE_DIR": tmp_path, "STORAGE_EMULATOR_HOST": gcs.url}
    gcs.fault(method="GET", path="model.jls", truncate=10)
    gcs.fault(method="GET", path="model.jls", delay_s=600)
    backend = start_julia(environ)
    backend.wait_for(lambda entry: "is tried again" in str(entry["message"]))
    while sum("model.jls" in path for _, path in gcs.requests()) < 2:
        time.sleep(0.02)
    backend.kill()
    (draft,) = cached(tmp_path)
    assert draft.startswith(".")
    gcs.clear()
    again = start_julia(environ).ready()
    assert again.predict(ROW).json()["predictions"] == [12.0]
    (folder,) = cached(tmp_path)
    assert not folder.startswith(".")
    assert again.stop() == 0


def test_what_was_corrupted_never_loads(store: str, gcs: Gcs, start_julia: Start, tmp_path: Path):
    gcs.fault(method="GET", path="model.jls", corrupt=True)
    environ = {"CHIPS_ARTIFACT": store, "CHIPS_CACHE_DIR": tmp_path, "STORAGE_EMULATOR_HOST": gcs.url}
    backend = start_julia(environ)
    assert backend.end() == 65
    assert "is not the file that was published" in backend.why()
    assert cached(tmp_path) == []


def replace(gcs: Gcs, store: str, name: str, content: bytes) -> None:
    """Put another object in the place of a published one, as anybody who may write to the bucket could."""
    bucket, _, prefix = store.removeprefix("gs://").partition("/")
    url = f"{gcs.url}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(prefix + name, safe='')}"
    with urlopen(Request(url, data=content, method="POST"), timeout=patience(10)) as response:
        assert response.status == 200


def object_of(gcs: Gcs, store: str) -> str:
    bucket, _, prefix = store.removeprefix("gs://").partition("/")
    with urlopen(f"{gcs.url}/{bucket}/{prefix}manifest.json", timeout=patience(10)) as response:
        (file,) = json.load(response)["files"]
    return str(file["path"])


def test_swapped_truncated_or_longer_never_loads(
    store: str, gcs: Gcs, driver: Driver, tmp_path: Path, linear_jls: Path
):
    name, content = object_of(gcs, store), linear_jls.read_bytes()
    for other in (one_bit_off(content), content[:-1], content + b"!", b""):
        replace(gcs, store, name, other)
        refused = driver.obtain(store, tmp_path, STORAGE_EMULATOR_HOST=gcs.url)
        assert refused["exit_code"] in {65, 69}, refused
        assert cached(tmp_path) == []
    replace(gcs, store, name, content)
    assert "folder" in driver.obtain(store, tmp_path, STORAGE_EMULATOR_HOST=gcs.url)


def test_what_was_changed_in_the_cache_is_fetched_again(store: str, gcs: Gcs, driver: Driver, tmp_path: Path):
    folder = Path(driver.obtain(store, tmp_path, STORAGE_EMULATOR_HOST=gcs.url)["folder"])
    good = (folder / "model.jls").read_bytes()
    (folder / "model.jls").write_bytes(one_bit_off(good))
    assert driver.obtain(store, tmp_path, STORAGE_EMULATOR_HOST=gcs.url)["folder"] == str(folder)
    assert (folder / "model.jls").read_bytes() == good


def test_trouble_that_passes_is_waited_out(store: str, gcs: Gcs, driver: Driver, tmp_path: Path):
    gcs.fault(method="GET", path="manifest.json", status=503, times=2)
    gcs.fault(method="GET", path="model.jls", reset=True)
    gcs.fault(method="GET", path="model.jls", truncate=7, times=2)
    gcs.fault(method="GET", path="model.jls", status=429)
    answer = driver.obtain(store, tmp_path, STORAGE_EMULATOR_HOST=gcs.url)
    assert "folder" in answer, answer
    asked = [path for _, path in gcs.requests() if "model.jls" in path]
    assert any("ifGenerationMatch" in path for path in asked)


def test_what_cannot_be_had_says_why(store: str, gcs: Gcs, driver: Driver, tmp_path: Path):
    emulator = {"STORAGE_EMULATOR_HOST": gcs.url}
    for fault, code, words in (
        ({"path": "model.jls", "status": 404}, 66, "model.jls is not there"),
        ({"path": "model.jls", "status": 403}, 77, "roles/storage.objectViewer"),
        ({"path": "manifest.json", "status": 401}, 77, "no permission to read"),
        ({"path": "manifest.json", "status": 503, "times": 6}, 69, "cannot be fetched now"),
    ):
        gcs.fault(method="GET", **fault)
        answer = driver.obtain(store, tmp_path, **emulator)
        assert answer["exit_code"] == code, answer
        assert words in answer["error"]
        gcs.clear()
    missing = driver.obtain(f"gs://{gcs.bucket}/nothing/", tmp_path, **emulator)
    assert missing["exit_code"] == 66
    (tmp_path / "file").write_text("")
    no_folder = driver.obtain(store, tmp_path / "file" / "cache", **emulator)
    assert no_folder["exit_code"] == 74
    assert "CHIPS_CACHE_DIR" in no_folder["error"] or "cannot be used" in no_folder["error"]


def test_two_at_once_fetch_once(store: str, gcs: Gcs, julia: Julia, driver: Driver, tmp_path: Path):
    gcs.fault(method="GET", path="model.jls", delay_s=1)
    other = Driver(julia)
    try:
        with ThreadPoolExecutor() as pool:
            answers = list(
                pool.map(
                    lambda one: one.obtain(store, tmp_path, STORAGE_EMULATOR_HOST=gcs.url), (driver, other)
                )
            )
    finally:
        other.close()
    assert answers[0] == answers[1]
    assert sum("model.jls" in path for _, path in gcs.requests()) == 1


class _Metadata(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        good = self.headers["Metadata-Flavor"] == "Google" and self.path.endswith("/default/token")
        body = json.dumps({"access_token": "t0ken", "expires_in": 3599, "token_type": "Bearer"}).encode()
        self.send_response(200 if good else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


class _Storage(_Metadata):
    def do_GET(self) -> None:
        self.send_response(404 if self.headers["Authorization"] == "Bearer t0ken" else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def servers() -> Iterator[list[str]]:
    running = [ThreadingHTTPServer(("127.0.0.1", 0), kind) for kind in (_Metadata, _Storage)]
    for server in running:
        Thread(target=server.serve_forever, daemon=True).start()
    yield [f"127.0.0.1:{server.server_address[1]}" for server in running]
    for server in running:
        server.shutdown()
        server.server_close()


def test_it_asks_with_the_token_of_its_own_account(servers: list[str], driver: Driver, tmp_path: Path):
    metadata, storage = servers
    named = driver.obtain("gs://b/p/", tmp_path, STORAGE_EMULATOR_HOST=storage, GCE_METADATA_HOST=metadata)
    assert named["exit_code"] == 66, named  # it got in, and found nothing
    nameless = driver.obtain("gs://b/p/", tmp_path, STORAGE_EMULATOR_HOST=storage)
    assert nameless["exit_code"] == 77, nameless


def test_memory_stays_flat_while_a_large_artifact_is_fetched(gcs: Gcs, julia: Julia, tmp_path: Path):
    size = 200 << 20
    source = tmp_path / "model.jls"
    with source.open("wb") as stream:
        stream.truncate(size)
    publish(f"gs://{gcs.bucket}", source, STORAGE_EMULATOR_HOST=gcs.url)
    code = f"""
        using ChipsBackend: Backend
        using Logging
        with_logger(NullLogger()) do
            config = Backend.Config(artifact = "gs://{gcs.bucket}/linear/1/", cache_dir = "{tmp_path}/cache")
            before = Sys.maxrss()
            Backend.obtain(config, environ = Dict("STORAGE_EMULATOR_HOST" => "{gcs.url}"))
            print(Sys.maxrss() - before)
        end
    """
    grown = int(julia.run("-e", code))
    assert grown < 128 << 20, f"{grown >> 20} MiB"


def chips_publish(source: Path, store: str, folder: Path, version: str, **environ: str) -> str:
    """What `chips publish` says to the very same model."""
    command = [
        sys.executable,
        "-m",
        "gateway.cli",
        "publish",
        str(source),
        "--model",
        "linear",
        "--version",
        "1",
    ]
    command += ["--store", store, "--runtime", f"julia={version}"]
    command += ["--signature", str(folder / "signature.json"), "--samples", str(folder / "samples.json")]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environ}, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def test_julia_publishes_what_chips_publish_would(
    gcs: Gcs, driver: Driver, julia: Julia, linear_jls: Path, tmp_path: Path
):
    version = julia.run("-e", "print(VERSION)")
    publish(str(tmp_path / "described"), linear_jls)  # writes the two files that describe it
    described = linear_jls.parent / "described"
    for store in (str(tmp_path / "store"), f"gs://{gcs.bucket}/julia"):
        environ = {"STORAGE_EMULATOR_HOST": gcs.url}
        answer = driver.publish(linear_jls, store, **environ)
        assert "address" in answer, answer
        assert driver.publish(linear_jls, store, **environ) == answer
        assert chips_publish(linear_jls, store, described, version, **environ).startswith("unchanged"), store
        found = driver.obtain(answer["address"], tmp_path / "cache", **environ)
        assert (Path(found["folder"]) / "model.jls").read_bytes() == linear_jls.read_bytes()
    manifest = parse_manifest((tmp_path / "store/linear/1/manifest.json").read_bytes())
    assert (manifest.created_by, manifest.format, manifest.runtime) == ("ana", "jls", {"julia": version})
    assert manifest.files[0].sha256 == hashlib.sha256(linear_jls.read_bytes()).hexdigest()


def test_a_published_version_never_changes(gcs: Gcs, driver: Driver, linear_jls: Path, tmp_path: Path):
    other = tmp_path / "model.jls"
    other.write_bytes(linear_jls.read_bytes() + b"!")
    for store in (str(tmp_path / "store"), f"gs://{gcs.bucket}/julia"):
        environ = {"STORAGE_EMULATOR_HOST": gcs.url}
        place = driver.publish(linear_jls, store, **environ)["address"]
        assert "never changes" in driver.publish(other, store, **environ)["error"]
        folder = driver.obtain(place, tmp_path / "cache", **environ)["folder"]
        assert (Path(folder) / "model.jls").read_bytes() == linear_jls.read_bytes()


def test_an_upload_that_breaks_off_is_tried_again(gcs: Gcs, driver: Driver, linear_jls: Path, tmp_path: Path):
    gcs.fault(method="POST", path="model.jls", status=503)
    gcs.fault(method="POST", path="manifest.json", reset=True)
    store = f"gs://{gcs.bucket}/julia"
    answer = driver.publish(linear_jls, store, STORAGE_EMULATOR_HOST=gcs.url)
    assert answer.get("address") == f"{store}/linear/1/", answer
    gcs.fault(method="POST", path="model.jls", status=403)
    denied = driver.publish(linear_jls, store, version="2", STORAGE_EMULATOR_HOST=gcs.url)
    assert "roles/storage.objectUser" in denied["error"]
    nowhere = driver.publish(linear_jls, "gs://no-such-bucket", STORAGE_EMULATOR_HOST=gcs.url)
    assert "no bucket" in nowhere["error"]


def test_python_reads_what_julia_published(gcs: Gcs, driver: Driver, linear_jls: Path, tmp_path: Path):
    """One manifest for all languages: Python's backend takes it, up to a format that it does not load."""
    place = driver.publish(linear_jls, str(tmp_path))["address"]
    backend = Backend(PYTHON, {"CHIPS_ARTIFACT": place})
    assert backend.end() == 70
    assert "jls" in backend.why()


def test_a_folder_that_was_copied_from_a_bucket_serves(store: str, gcs: Gcs, driver: Driver, tmp_path: Path):
    """As KServe's initializer leaves it: objects are named by their content."""
    folder = tmp_path / "copy"
    name = object_of(gcs, store)
    whole = Path(driver.obtain(store, tmp_path / "cache", STORAGE_EMULATOR_HOST=gcs.url)["folder"])
    (folder / name).parent.mkdir(parents=True)
    shutil.copy(whole / "model.jls", folder / name)
    bucket, _, prefix = store.removeprefix("gs://").partition("/")
    with urlopen(f"{gcs.url}/{bucket}/{prefix}manifest.json", timeout=patience(10)) as response:
        (folder / "manifest.json").write_bytes(response.read())
    answer = driver.obtain(str(folder), tmp_path / "other")
    assert (Path(answer["folder"]) / "model.jls").exists(), answer
